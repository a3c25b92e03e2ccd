"""Users who move between groups have one run in a period: never two, and never none for a move."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from batchwork_server.domain.due_times import start_of_day
from batchwork_server.domain.preference import parse_wish
from batchwork_server.domain.preference_groups import period_of
from batchwork_server.domain.schedule import Schedule
from batchwork_server.store.database import open_database
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.groups import GroupServer
from tests.fakes import FakeClock
from tests.long import times as how_often
from tests.sqlite import create_database

DAYS = 3
STEP = timedelta(minutes=20)
STEPS = DAYS * 24 * 3

SPRING = {  # the day before the one on which the clock changes
    "Europe/Berlin": date(2026, 3, 28),
    "America/New_York": date(2026, 10, 31),
    "Australia/Lord_Howe": date(2026, 4, 4),
    "Asia/Kolkata": date(2026, 3, 28),
}

times = st.sampled_from(["00:00", "01:45", "02:15", "02:45", "09:00", "13:30", "18:30", "23:50"])
daily = st.builds(lambda at: {"frequency": "daily", "preferred_time": at}, times)
hourly = st.builds(lambda n: {"frequency": "hourly", "minute": n}, st.sampled_from([0, 25, 55]))
weekly = st.builds(
    lambda day, at: {"frequency": "weekly", "preferred_day": day, "preferred_time": at},
    st.sampled_from(["saturday", "sunday", "monday"]),
    times,
)


def in_zone(schedules: st.SearchStrategy[dict[str, Any]], *zones: str) -> Any:
    return st.builds(lambda s, zone: s | {"time_zone": zone}, schedules, st.sampled_from(zones))


def moves_of(schedules: Any) -> Any:
    """Some moves of one user: at which step of the clock, and where to."""
    return st.lists(st.tuples(st.integers(1, STEPS - 1), schedules), max_size=8)


@dataclass(frozen=True)
class Run:
    """A run of the user, with the schedule that they had when it was made."""

    due_time: datetime
    schedule: Schedule


def schedule_of(fields: dict[str, Any]) -> Schedule:
    wish, _ = parse_wish(fields, path="wish")
    assert wish is not None
    assert wish.schedule is not None
    return wish.schedule


async def live(
    start: datetime,
    first: dict[str, Any],
    moves: Sequence[tuple[int, dict[str, Any]]],
    looks: Sequence[bool],
) -> list[Run]:
    """Lets one user move about while another one stays in each group, and returns their runs."""
    clock = FakeClock(start)
    with tempfile.TemporaryDirectory() as folder:
        database = await open_database(
            create_database(Path(folder) / "batchwork.db"), synchronous="NORMAL"
        )
        server = GroupServer(database, clock=clock)
        try:
            return await _live(server, start, first, moves, looks)
        finally:
            await database.close()


async def _live(
    server: GroupServer,
    start: datetime,
    first: dict[str, Any],
    moves: Sequence[tuple[int, dict[str, Any]]],
    looks: Sequence[bool],
) -> list[Run]:
    await server.add_users("ada", *(f"stays_{n}" for n in range(len(moves))))
    await server.put_job()
    await server.wish("ada", **first)
    for number, (_, fields) in enumerate(moves):
        await server.wish(f"stays_{number}", **fields)
    await server.scheduler.run_once()
    wishes = [(start, first)]
    for step in range(1, STEPS + 1):
        server.clock.advance(STEP)
        for _, fields in (move for move in moves if move[0] == step):
            wishes.append((server.clock.now(), fields))
            await server.wish("ada", **fields)
        if not looks[step % len(looks)] and step < STEPS:
            continue  # the scheduler is late
        await server.scheduler.run_once()
    runs = []
    for batch in await server.batches_of():
        current = [fields for moment, fields in wishes if moment <= batch.create_time][-1]
        for item in await server.items_of(batch):
            if item.user_id == "ada" and item.skip_reason is None:
                assert batch.request.due_time is not None
                runs.append(Run(batch.request.due_time, schedule_of(current)))
    return sorted(runs, key=lambda run: run.due_time)


looks = st.lists(st.booleans(), min_size=1, max_size=5).filter(any)
slow = settings(
    max_examples=how_often(2, long=20), deadline=None, suppress_health_check=list(HealthCheck)
)


@slow
@given(data=st.data(), looks=looks)
def test_nobody_has_two_runs_in_a_period(data: st.DataObject, looks: list[bool]):
    schedules = in_zone(st.one_of(daily, hourly, weekly), *SPRING)
    zone = data.draw(st.sampled_from(sorted(SPRING)))
    start = start_of_day(SPRING[zone], ZoneInfo(zone)).astimezone(UTC)

    runs = asyncio.run(live(start, data.draw(schedules), data.draw(moves_of(schedules)), looks))

    for before, run in itertools.pairwise(runs):
        period = period_of(run.schedule, "UTC", run.due_time)
        if period.first_day is None:
            assert before.due_time < period.start
        else:
            own = period_of(before.schedule, "UTC", before.due_time)
            assert own.day_of(before.due_time) < period.first_day


@slow
@given(data=st.data(), zone=st.sampled_from(sorted(SPRING)), looks=looks)
def test_who_has_a_due_time_every_day_has_a_run_every_day(
    data: st.DataObject, zone: str, looks: list[bool]
):
    schedules = in_zone(st.one_of(daily, hourly), zone)
    local = ZoneInfo(zone)
    start = start_of_day(SPRING[zone], local).astimezone(UTC) - timedelta(hours=1)

    runs = asyncio.run(live(start, data.draw(schedules), data.draw(moves_of(schedules)), looks))

    days = {run.due_time.astimezone(local).date() for run in runs}
    assert days >= {SPRING[zone] + timedelta(days=n) for n in range(DAYS - 1)}
