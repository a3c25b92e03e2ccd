"""Who moves to a time that is over is served once more by the group that they left."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from batchwork_server.domain.submission import Idempotency
from batchwork_server.engine.retention import Retention
from batchwork_server.store.database import Database
from batchwork_server.store.store import DueGroup

from tests.engine.groups import JOB, GroupServer
from tests.factories import TENANT
from tests.fakes import START, FakeClock

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
WEDNESDAY, FRIDAY = START + 2 * DAY, START + 4 * DAY  # START is a Monday, nine o'clock


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


async def pause(server: GroupServer) -> None:
    await server.jobs.pause_job(JOB, tenant_id=TENANT, note="", idempotency=Idempotency())


async def resume(server: GroupServer) -> None:
    await server.jobs.resume_job(JOB, tenant_id=TENANT, idempotency=Idempotency())


async def test_a_pause_loses_no_guest(server: GroupServer):
    """A job that was resumed counted anew from then on, and so did the guests of its groups."""
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **weekly("friday"))
    await server.run_at(WEDNESDAY)
    await server.wish("ada", **weekly("monday"))
    await server.run_at(WEDNESDAY + MINUTE)

    await pause(server)
    await server.run_at(WEDNESDAY + HOUR)
    await resume(server)
    await server.run_at(WEDNESDAY + 2 * HOUR)
    await server.run_at(FRIDAY)

    assert await server.fates() == [{"ada": ""}]


async def test_a_pause_that_no_scheduler_saw_leaves_the_groups_due(server: GroupServer):
    """What a scheduler had seen of the job was the same after it, so it looked at nothing anew."""
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **weekly("friday"))
    await server.run_at(WEDNESDAY)

    await pause(server)
    await resume(server)
    await server.run_at(WEDNESDAY + HOUR)
    await server.run_at(FRIDAY)

    assert await server.fates() == [{"ada": ""}]


async def test_a_pause_keeps_a_due_time_that_a_group_was_to_have_once_more(server: GroupServer):
    await server.add_users("ada")
    await server.put_job(default_preferences=weekly("friday"))
    await server.wish("ada")
    await server.run_at(WEDNESDAY)
    await server.set_default(**weekly("monday"))
    await server.run_at(WEDNESDAY + MINUTE)

    await pause(server)
    await server.run_at(WEDNESDAY + HOUR)
    await resume(server)
    await server.run_at(WEDNESDAY + 2 * HOUR)
    await server.run_at(FRIDAY)
    await server.run_at(START + 7 * DAY)

    due = [batch.request.due_time for batch in await server.batches_of()]
    assert due == [FRIDAY, START + 7 * DAY]


async def test_what_a_paused_job_missed_is_not_made_up_for(server: GroupServer):
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **weekly("friday"))
    await server.run_at(WEDNESDAY)

    await pause(server)
    await server.run_at(FRIDAY + HOUR)
    await resume(server)
    await server.run_at(FRIDAY + 2 * HOUR)
    await server.run_at(FRIDAY + 7 * DAY)

    due = [batch.request.due_time for batch in await server.batches_of()]
    assert due == [FRIDAY + 7 * DAY]


async def test_a_group_that_came_while_the_job_was_paused_has_not_missed_anything(
    server: GroupServer,
):
    await server.add_users("ada")
    await server.put_job(catch_up="all", catch_up_window=14 * 86400)
    await server.scheduler.run_once()

    await pause(server)
    await server.run_at(WEDNESDAY)
    await server.wish("ada", **weekly("friday"))
    await server.run_at(FRIDAY + HOUR)
    await resume(server)
    await server.run_at(FRIDAY + 2 * HOUR)
    await server.run_at(FRIDAY + 7 * DAY)

    due = [batch.request.due_time for batch in await server.batches_of()]
    assert due == [FRIDAY + 7 * DAY]


async def test_who_left_a_new_group_during_a_pause_is_its_guest(server: GroupServer):
    await server.add_users("ada")
    await server.put_job()
    await server.scheduler.run_once()

    await pause(server)
    await server.run_at(WEDNESDAY)
    await server.wish("ada", **weekly("friday"))
    await server.run_at(WEDNESDAY + HOUR)
    await server.wish("ada", **weekly("monday"))
    await resume(server)
    await server.run_at(WEDNESDAY + 2 * HOUR)
    await server.run_at(FRIDAY)

    assert await server.fates() == [{"ada": ""}]


async def test_who_moves_to_the_west_after_their_run_has_no_second_one_on_that_date(
    server: GroupServer,
):
    """Periods were compared by their instants: the same date came again in the new zone."""
    tokyo = {"frequency": "daily", "preferred_time": "09:00", "time_zone": "Asia/Tokyo"}
    los_angeles = tokyo | {"time_zone": "America/Los_Angeles"}
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **tokyo)
    await server.scheduler.run_once()

    await server.run_at(datetime(2026, 3, 3, tzinfo=UTC))  # nine o'clock on the third in Tokyo
    await server.wish("ada", **los_angeles)
    await server.run_at(datetime(2026, 3, 3, 1, tzinfo=UTC))
    await server.run_at(datetime(2026, 3, 3, 17, tzinfo=UTC))  # nine o'clock on the third there
    await server.run_at(datetime(2026, 3, 4, 17, tzinfo=UTC))

    assert await server.fates() == [{"ada": ""}, {"ada": "ALREADY_DONE"}, {"ada": ""}]


async def test_a_default_that_changes_while_a_group_is_looked_at_counts(
    database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
):
    """The group moved on by the default that had been read, and was not looked at again."""
    server, other = (GroupServer(database, clock=clock) for _ in range(2))
    await server.add_users("ada")
    await server.put_job(default_preferences=weekly("wednesday"))
    await server.wish("ada")
    await server.run_at(START)
    due, has_changed = server.store.group_schedules.due, False

    async def overtaken(*, now: datetime, limit: int) -> list[DueGroup]:
        nonlocal has_changed
        rows = await due(now=now, limit=limit)
        if rows and not has_changed:
            has_changed = True
            await other.set_default(frequency="daily", preferred_time="09:00")
            await other.schedules.reconcile()
        return rows

    monkeypatch.setattr(server.store.group_schedules, "due", overtaken)
    for day in (WEDNESDAY, WEDNESDAY + DAY, FRIDAY):
        await server.run_at(day)
        await server.scheduler.run_once()

    due_times = [batch.request.due_time for batch in await server.batches_of()]
    assert due_times == [WEDNESDAY, WEDNESDAY + DAY, FRIDAY]
