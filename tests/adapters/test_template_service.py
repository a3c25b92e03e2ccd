"""Templates over HTTP, whatever the service at the other end does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from batchwork_server.adapters import template_service as adapter
from batchwork_server.adapters.template_service import HttpTemplates
from batchwork_server.domain.batch import Template
from batchwork_server.domain.declared_overrides import DeclaredOverride
from batchwork_server.domain.read_templates import ReadTemplates
from batchwork_server.errors import SourceUnavailable
from batchwork_server.processors.registry import ProcessorRegistry
from batchwork_server.processors.render import RenderProcessor

from tests.fakes import FakeClock
from tests.http_service import API_KEY, Told
from tests.template_service import TemplateServer, template_service

ATTEMPTS = 4


def fields(template_id: str = "tpl_post", **changed: Any) -> dict[str, Any]:
    return {
        "template_id": template_id,
        "processor": "render",
        "parameters": {"text": "Hello"},
        **changed,
    }


@pytest.fixture
async def server() -> AsyncIterator[TemplateServer]:
    async with template_service() as running:
        yield running


def client_of(
    server: TemplateServer, clock: FakeClock, *, timeout: timedelta = timedelta(seconds=10)
) -> HttpTemplates:
    registry = ProcessorRegistry()
    registry.register("render", RenderProcessor())
    return HttpTemplates(
        url=server.url, api_key=API_KEY, timeout=timeout, processors=registry, clock=clock
    )


@pytest.fixture
async def templates(server: TemplateServer, clock: FakeClock) -> AsyncIterator[HttpTemplates]:
    client = client_of(server, clock)
    yield client
    await client.close()


async def read(templates: HttpTemplates, before: list[Template] | None = None) -> ReadTemplates:
    found = await templates.read({each.template_id: each for each in before or ()})
    assert found is not None
    return found


async def refusal(templates: HttpTemplates) -> SourceUnavailable:
    with pytest.raises(SourceUnavailable) as raised:
        await templates.read({})
    assert raised.value.reason == "DEPENDENCY_UNAVAILABLE"
    assert API_KEY not in raised.value.message
    return raised.value


def ids(found: ReadTemplates) -> list[str]:
    return [template.template_id for template in found.templates]


async def test_templates_are_read_and_checked_as_files_are(
    server: TemplateServer, templates: HttpTemplates
):
    server.templates = [
        fields("tpl_b", operations=["annotate"], overrides={"tone": {"default": "dry"}}),
        fields("tpl_a"),
    ]

    found = await read(templates)

    assert ids(found) == ["tpl_a", "tpl_b"]
    assert found.templates[1] == Template(
        template_id="tpl_b",
        processor="render",
        parameters={"text": "Hello"},
        operations=("annotate",),
        overrides={"tone": DeclaredOverride(default="dry")},
    )
    assert found.problems == []
    assert server.keys == [f"bearer {API_KEY}"]
    assert server.requests == ["/templates"]


async def test_pages_are_read_to_the_end(server: TemplateServer, templates: HttpTemplates):
    server.templates = [fields(f"tpl_{number}") for number in range(5)]
    server.page_size = 2

    assert ids(await read(templates)) == [f"tpl_{number}" for number in range(5)]
    assert server.requests == ["/templates", "/templates?page_token=2", "/templates?page_token=4"]


async def test_a_broken_template_is_set_aside_and_named(
    server: TemplateServer, templates: HttpTemplates
):
    server.templates = [
        fields("tpl_a"),
        fields("tpl_b", processor="no-such"),
        fields("tpl_c", parameters={"text": "{{ name"}),
        "no template",
        fields("tpl_d", parameters={"text": "x" * 300_000}),
        fields("tpl_e", description="half a pair \ud800"),
    ]

    found = await read(templates)

    assert ids(found) == ["tpl_a"]
    assert [problem.path for problem in found.problems] == [
        "$.templates[1] (tpl_b).processor",
        "$.templates[2] (tpl_c).parameters",
        "$.templates[3]",
        "$.templates[4] (tpl_d)",
        "$.templates[5] (tpl_e).description",
    ]


async def test_of_two_that_claim_the_same_the_first_is_taken(
    server: TemplateServer, templates: HttpTemplates
):
    server.templates = [
        fields("tpl_a", operations=["annotate"]),
        fields("tpl_b", operations=["annotate"]),
        fields("tpl_c"),
        fields("tpl_c", description="again"),
    ]

    found = await read(templates)

    assert ids(found) == ["tpl_a", "tpl_c"]
    assert [problem.path for problem in found.problems] == [
        "$.templates[1] (tpl_b).operations",
        "$.templates[3] (tpl_c).template_id",
    ]


async def test_one_that_breaks_stays_as_it_was(server: TemplateServer, templates: HttpTemplates):
    server.templates = [fields("tpl_a", description="good"), fields("tpl_b")]
    before = await read(templates)
    server.templates = [fields("tpl_a", processor="no-such"), fields("tpl_c")]

    after = await read(templates, list(before.templates))

    assert ids(after) == ["tpl_a", "tpl_c"]
    assert after.templates[0].description == "good"
    assert len(after.problems) == 1


@pytest.mark.parametrize("tags", [True, False], ids=["with tags", "without"])
async def test_what_has_not_changed_is_not_read_again(
    server: TemplateServer, templates: HttpTemplates, tags: bool
):
    server.tags = tags
    server.templates = [fields("tpl_a")]

    first = await templates.read({})
    second = await templates.read({})
    server.templates = [fields("tpl_b")]
    third = await templates.read({})

    assert first is not None
    assert second is None
    assert third is not None
    assert ids(third) == ["tpl_b"]


async def test_no_templates_are_an_answer(templates: HttpTemplates):
    assert await read(templates) == ReadTemplates(templates=[], problems=[])


# Not well


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_what_may_pass_is_tried_again(
    server: TemplateServer, templates: HttpTemplates, status: int
):
    server.behaviours = [Told(status=status)] * (ATTEMPTS - 1)

    await read(templates)

    assert len(server.requests) == ATTEMPTS


@pytest.mark.parametrize(
    ("told", "advice"),
    [
        pytest.param(Told(status=401), "TEMPLATE_SERVICE_API_KEY", id="a wrong key"),
        pytest.param(Told(status=404), "TEMPLATE_SERVICE_URL", id="nothing there"),
        pytest.param(Told(status=304), "TEMPLATE_SERVICE_URL", id="unchanged, unasked"),
        pytest.param(Told(body="{"), "docs/template-service.md", id="no json"),
        pytest.param(Told(body="7"), "docs/template-service.md", id="no object"),
        pytest.param(Told(body='{"templates": {}}'), "$.templates", id="no list"),
        pytest.param(
            Told(body='{"templates": [], "next_page_token": "1"}'), "again", id="a circle"
        ),
        pytest.param(Told(headers={"content-length": str(33 * 1024 * 1024)}), "limit", id="huge"),
        pytest.param(Told(body=b"\xff"), "UTF-8", id="no text"),
    ],
)
async def test_a_wrong_answer_is_told_with_what_to_do(
    server: TemplateServer, templates: HttpTemplates, told: Told, advice: str
):
    server.always = told

    assert advice in (await refusal(templates)).message


async def test_a_service_that_is_down_is_away(server: TemplateServer, templates: HttpTemplates):
    await server.stop()

    error = await refusal(templates)

    assert error.message.startswith("Error connecting to Template Service")


async def test_a_slow_service_is_away(server: TemplateServer, clock: FakeClock):
    server.always = Told(body="[]", hold=asyncio.Event())
    impatient = client_of(server, clock, timeout=timedelta(milliseconds=50))

    error = await refusal(impatient)

    assert "not answered within" in error.message
    await impatient.close()


async def test_more_templates_than_fit_are_refused(
    server: TemplateServer, templates: HttpTemplates, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(adapter, "MOST_TEMPLATES", 3)
    server.templates = [fields(f"tpl_{number}") for number in range(5)]
    server.page_size = 2

    assert "more than 3 templates" in (await refusal(templates)).message


async def test_an_answer_that_could_not_be_read_is_read_again(
    server: TemplateServer, templates: HttpTemplates
):
    server.behaviours = [Told(body=json.dumps([fields("tpl_a")])[:-1])]
    server.templates = [fields("tpl_a")]

    await refusal(templates)

    assert ids(await read(templates)) == ["tpl_a"]


async def test_what_could_not_be_checked_is_asked_for_again(
    server: TemplateServer, templates: HttpTemplates, monkeypatch: pytest.MonkeyPatch
):
    """Its tag was known already, so that the service had nothing new to say ever after."""
    server.templates = [fields()]
    server.tags = True

    with monkeypatch.context() as failing:
        failing.setattr(adapter, "TemplateReading", None)
        with pytest.raises(TypeError):
            await templates.read({})

    assert ids(await read(templates)) == ["tpl_post"]
    assert await templates.read({}) is None


async def test_the_bytes_of_pages_are_counted_not_their_characters(
    server: TemplateServer, templates: HttpTemplates, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(adapter, "MOST_BYTES", 1000)
    server.always = Told(
        body=json.dumps(
            {"templates": [{"template_id": "ä" * 300}], "next_page_token": "2"}, ensure_ascii=False
        )
    )

    assert "more than 1000 bytes" in (await refusal(templates)).message
