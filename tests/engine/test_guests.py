"""Who moves to a time that is over is served once more by the group that they left."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from batchwork_server.engine.retention import Retention
from batchwork_server.store.database import Database

from tests.engine.groups import GroupServer
from tests.fakes import START, FakeClock

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def server(database: Database, clock: FakeClock) -> GroupServer:
    return GroupServer(database, clock=clock)


def monthly(day: int) -> dict[str, Any]:
    return {"frequency": "monthly", "preferred_day": day, "preferred_time": "09:00"}


def weekly(day: str, *, frequency: str = "weekly") -> dict[str, Any]:
    return {"frequency": frequency, "preferred_day": day, "preferred_time": "09:00"}


@pytest.mark.parametrize(
    ("first", "then", "moved", "due"),
    [
        pytest.param(
            monthly(25),
            monthly(5),
            datetime(2026, 3, 10, 12, tzinfo=UTC),
            datetime(2026, 3, 25, 9, tzinfo=UTC),
            id="monthly",
        ),
        pytest.param(
            weekly("friday", frequency="biweekly"),
            weekly("monday", frequency="biweekly"),
            START + HOUR,
            START + 4 * DAY,
            id="biweekly, first week",
        ),
    ],
)
async def test_a_guest_is_known_however_short_events_are_kept(
    server: GroupServer,
    clock: FakeClock,
    first: dict[str, Any],
    then: dict[str, Any],
    moved: datetime,
    due: datetime,
):
    """Guests came from the log of changes, which was forgotten after as many days as events."""
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **first)
    await server.run_at(moved)
    await server.wish("ada", **then)

    await server.run_at(due - HOUR)
    await Retention(store=server.store, clock=clock, events_are_kept=DAY).run_once()
    await server.run_at(due)

    [batch] = await server.batches_of()
    assert batch.request.due_time == due
    assert await server.fates() == [{"ada": ""}]
