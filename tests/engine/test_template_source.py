"""Following a template service: what holds while it is away, and what is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
from batchwork_server.domain.batch import Template
from batchwork_server.domain.read_templates import ReadTemplates
from batchwork_server.engine import template_source
from batchwork_server.engine.template_source import TemplateSource
from batchwork_server.errors import SourceUnavailable, Violation
from batchwork_server.logs import get_logger

from tests.factories import make_template
from tests.fakes import FakeClock

MINUTE = timedelta(minutes=1)

Lines = Callable[[], list[dict[str, Any]]]


class Service:
    """Says what the test says."""

    def __init__(self) -> None:
        self.says: ReadTemplates | SourceUnavailable | None = None
        self.known: list[str] = []

    async def read(self, before: Mapping[str, Template]) -> ReadTemplates | None:
        self.known = list(before)
        if isinstance(self.says, SourceUnavailable):
            raise self.says
        return self.says

    async def close(self) -> None:
        return


AWAY = SourceUnavailable("Error connecting to Template Service: it is down.")


def having(*template_ids: str, problems: tuple[Violation, ...] = ()) -> ReadTemplates:
    templates = [make_template(template_id=template_id) for template_id in template_ids]
    return ReadTemplates(templates=templates, problems=problems)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def source(service: Service, clock: FakeClock) -> TemplateSource:
    return TemplateSource(service, interval=MINUTE, clock=clock)


@pytest.fixture
def told(logged: Lines, monkeypatch: pytest.MonkeyPatch) -> Lines:
    """The lines that the source has logged."""
    # A logger keeps the stream of the first test that used it.
    monkeypatch.setattr(template_source, "log", get_logger(template_source.__name__))
    return logged


def events(told: Lines) -> list[str]:
    return [line["event"] for line in told()]


async def ids(source: TemplateSource) -> list[str]:
    return [template.template_id for template in await source.all()]


async def test_before_the_first_answer_nobody_is_told_that_there_is_nothing(
    source: TemplateSource, service: Service
):
    service.says = AWAY
    await source.look_first()

    for asked in (source.all(), source.get("welcome")):
        with pytest.raises(SourceUnavailable) as raised:
            await asked
        assert raised.value.reason == "DEPENDENCY_UNAVAILABLE"
    assert not source.is_well


async def test_what_was_said_holds_while_the_service_is_away(
    source: TemplateSource, service: Service, told: Lines, clock: FakeClock
):
    service.says = having("tpl_a")
    await source.run_once()
    service.says = AWAY
    clock.advance(MINUTE)
    await source.run_once()
    await source.run_once()

    assert await ids(source) == ["tpl_a"]
    assert events(told) == ["template_source.read", "template_source.away"]
    assert told()[-1]["age"] == 60


async def test_a_service_that_is_back_is_told_and_followed(
    source: TemplateSource, service: Service, told: Lines
):
    service.says = AWAY
    await source.run_once()
    service.says = having("tpl_b")
    await source.run_once()

    assert await ids(source) == ["tpl_b"]
    assert events(told)[1:] == ["template_source.back", "template_source.read"]


async def test_it_is_well_for_three_intervals_after_an_answer(
    source: TemplateSource, service: Service, clock: FakeClock
):
    service.says = having("tpl_a")
    await source.run_once()
    service.says = AWAY

    clock.advance(3 * MINUTE)
    assert source.is_well
    clock.advance(timedelta(seconds=1))
    assert not source.is_well
    service.says = None
    await source.run_once()
    assert source.is_well


async def test_what_is_not_said_any_more_is_gone(source: TemplateSource, service: Service):
    service.says = having("tpl_a", "tpl_b")
    await source.run_once()
    service.says = having("tpl_b")
    await source.run_once()

    assert await ids(source) == ["tpl_b"]
    assert service.known == ["tpl_a", "tpl_b"]


async def test_a_service_that_lost_everything_takes_nothing_away(
    source: TemplateSource, service: Service, told: Lines
):
    service.says = having("tpl_a")
    await source.run_once()
    service.says = having()
    await source.run_once()

    assert await ids(source) == ["tpl_a"]
    assert events(told)[-1] == "template_source.empty"


async def test_problems_are_told_and_the_others_are_taken(
    source: TemplateSource, service: Service, told: Lines
):
    service.says = having("tpl_a", problems=(Violation("$.templates[1]", "is no template."),) * 101)
    await source.run_once()

    line = told()[0]
    assert line["event"] == "template_source.problems"
    assert (line["problem_count"], len(line["problems"])) == (101, 100)
    assert await ids(source) == ["tpl_a"]
