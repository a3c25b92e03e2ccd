"""Users whom somebody else keeps: that they are away is told once, and that they are back."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from batchwork_server.engine import user_source
from batchwork_server.engine.user_source import UserSource
from batchwork_server.errors import ConfigurationError, SourceUnavailable
from structlog.testing import capture_logs

from tests.fakes import FakeClock, FakeUsers


class FakeOutsideUsers(FakeUsers):
    """Users in memory, of somebody else.

    Attributes:
        pings: How often it was asked whether it answers.
        wrong: What is wrong with it, when it answers.
    """

    def __init__(self) -> None:
        super().__init__("ann")
        self.pings = 0
        self.wrong = ""

    async def ping(self) -> None:
        self.pings += 1
        if self.away:
            raise SourceUnavailable("The source of users is away.")
        if self.wrong:
            raise ConfigurationError(self.wrong)

    async def verdicts(self, user_ids: Any, *, tenant_id: str) -> Any:
        if self.away:
            raise SourceUnavailable("The source of users is away.")
        return await super().verdicts(user_ids, tenant_id=tenant_id)

    async def close(self) -> None:
        return None


@pytest.fixture
def outside() -> FakeOutsideUsers:
    return FakeOutsideUsers()


@pytest.fixture
def source(outside: FakeOutsideUsers, clock: FakeClock) -> UserSource:
    return UserSource(outside, clock=clock)


def events(logs: Any) -> list[str]:
    return [entry["event"] for entry in logs]


async def test_that_it_is_away_and_back_is_told_once_each(source, outside):
    with capture_logs() as logs:
        for away in (False, True, True, False, False):
            outside.away = away
            await source.check()

    assert events(logs) == ["user_source.away", "user_source.back"]


async def test_a_question_tells_as_much_as_a_look(source, outside):
    before = source.is_well
    await source.verdicts(["ann"], tenant_id="default")
    known = source.is_well
    outside.away = True
    with pytest.raises(SourceUnavailable):
        await source.verdicts(["ann"], tenant_id="default")

    assert (before, known, source.is_well) == (False, True, False)


async def test_who_has_just_answered_is_not_asked_again(source, outside, clock):
    await source.verdicts(["ann"], tenant_id="default")

    await source.run_once()
    asked = outside.pings
    clock.advance(UserSource.INTERVAL)
    await source.run_once()

    assert (asked, outside.pings) == (0, 1)


async def test_a_source_that_is_away_is_looked_at_again(source, outside):
    outside.away = True
    await source.run_once()
    outside.away = False

    await source.run_once()

    assert source.is_well


async def test_a_source_that_is_not_what_the_settings_say_stops_a_start_only(source, outside):
    outside.wrong = "BATCHWORK_USERS_TABLE: there is no table."

    with pytest.raises(ConfigurationError):
        await source.check()
    with capture_logs() as logs:
        await source.run_once()

    assert events(logs) == ["user_source.away"]
    assert not source.is_well


async def test_a_source_that_hangs_does_not_hold_up_the_start(
    source, outside, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(user_source, "LONGEST_FIRST_LOOK", timedelta(0))
    monkeypatch.setattr(outside, "ping", asyncio.Event().wait)

    with capture_logs() as logs:
        await source.look_first()

    assert events(logs) == ["user_source.away"]
    assert not source.is_well
