"""What became due of a group while no scheduler ran is made up for by the policy of the job."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from batchwork_server.store.database import Database

from tests.engine.groups import GroupServer
from tests.fakes import START, FakeClock

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
SIX_IN_THE_EVENING = {"frequency": "daily", "preferred_time": "18:00"}
HALF_PAST_NINE = {"frequency": "daily", "preferred_time": "09:30"}


@pytest.fixture
def server(database: Database, clock: FakeClock) -> GroupServer:
    return GroupServer(database, clock=clock)


@pytest.mark.parametrize(
    ("policies", "decision", "reason"),
    [
        ({}, "CAUGHT_UP", None),
        ({"catch_up_window": 3 * 3600}, "CAUGHT_UP", None),
        ({"catch_up_window": 3600}, "SKIPPED", "OUTSIDE_WINDOW"),
        ({"catch_up": "none"}, "SKIPPED", "MISSED"),
    ],
    ids=["by default", "within the window", "after the window", "not wanted"],
)
async def test_the_first_due_time_of_a_new_group_is_not_passed_over(
    server: GroupServer, policies: dict[str, Any], decision: str, reason: str | None
):
    """A group that was new when the scheduler came back counted for an hour, whatever the job."""
    await server.add_users("ada")
    await server.put_job(**policies)
    await server.wish("ada", **SIX_IN_THE_EVENING)
    await server.scheduler.run_once()

    server.clock.advance(5 * MINUTE)
    await server.wish("ada", **HALF_PAST_NINE)
    await server.run_at(START + 2 * HOUR + 45 * MINUTE)

    [occurrence] = await server.occurrences_of()
    assert occurrence.due_time == START + 30 * MINUTE
    assert (occurrence.decision, occurrence.reason) == (decision, reason)
    assert await server.fates() == ([{"ada": ""}] if reason is None else [])


async def test_a_new_time_that_was_missed_for_days_is_recorded_and_the_last_one_made_up_for(
    server: GroupServer,
):
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **HALF_PAST_NINE)
    await server.run_at(START + 3 * DAY)

    decided = [(each.due_time, each.decision) for each in await server.occurrences_of()]
    assert decided == [
        (START + 30 * MINUTE, "SKIPPED"),
        (START + 30 * MINUTE + DAY, "SKIPPED"),
        (START + 30 * MINUTE + 2 * DAY, "CAUGHT_UP"),
    ]


async def test_a_time_that_was_over_when_it_was_set_is_not_made_up_for(server: GroupServer):
    await server.add_users("ada")
    await server.put_job()
    await server.run_at(START + HOUR)
    await server.wish("ada", **HALF_PAST_NINE)
    await server.run_at(START + 2 * HOUR)

    assert await server.occurrences_of() == []
