"""Groups of every cadence run once in each of their periods, and a change is followed at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from batchwork_server.engine.batch_scheduler import BatchScheduler
from batchwork_server.engine.loop import tick
from batchwork_server.store.database import Database

from tests.engine.groups import GroupServer
from tests.fakes import START, FakeClock

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
SECOND = timedelta(seconds=1)
SOON = 2 * BatchScheduler.INTERVAL


def nine_on(month: int, day: int) -> datetime:
    return datetime(2026, month, day, 9, tzinfo=UTC)


@pytest.fixture
def server(database: Database, clock: FakeClock) -> GroupServer:
    return GroupServer(database, clock=clock)


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        pytest.param(
            {"frequency": "weekly", "preferred_day": "friday"},
            [nine_on(3, 6), nine_on(3, 13), nine_on(3, 20), nine_on(3, 27), nine_on(4, 3)],
            id="weekly",
        ),
        pytest.param(
            {"frequency": "biweekly", "preferred_day": "friday"},
            [nine_on(3, 6), nine_on(3, 20), nine_on(4, 3)],
            id="biweekly",
        ),
        pytest.param(
            {"frequency": "monthly", "preferred_day": 31},
            [nine_on(3, 31), nine_on(4, 30)],
            id="monthly, on the last day of a shorter one",
        ),
    ],
)
async def test_a_group_runs_once_in_each_of_its_periods(
    server: GroupServer, wish: dict[str, Any], expected: list[datetime]
):
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", preferred_time="09:00", **wish)
    last = expected[-1]

    moment = START
    while moment <= last:
        await server.run_at(moment)
        moment += DAY

    assert [batch.request.due_time for batch in await server.batches_of()] == expected
    assert await server.fates() == [{"ada": ""}] * len(expected)


async def test_a_group_that_is_looked_at_twice_in_its_period_runs_once(server: GroupServer):
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", frequency="biweekly", preferred_day="tuesday", preferred_time="09:00")
    await server.run_at(START + DAY)

    await server.wish("ada", frequency="biweekly", preferred_day="friday", preferred_time="09:00")
    for day in range(2, 15):
        await server.run_at(START + day * DAY)

    served = [fate for fate in await server.fates() if fate == {"ada": ""}]
    assert len(served) == 1


@asynccontextmanager
async def scheduling(server: GroupServer) -> AsyncIterator[None]:
    """Runs the scheduler in its loop, as a server does."""
    loop = asyncio.create_task(
        tick(
            "scheduler",
            server.scheduler.run_once,
            interval=BatchScheduler.INTERVAL,
            clock=server.clock,
            stop=asyncio.Event(),
        )
    )
    try:
        await server.clock.waited_on()
        yield
    finally:
        loop.cancel()
        await asyncio.wait([loop])


async def wait_for(clock: FakeClock, length: timedelta) -> None:
    """Lets time pass, and the scheduler look whenever it wants to."""
    until = clock.now() + length
    while clock.now() < until:
        clock.advance(min(SECOND, until - clock.now()))
        await clock.waited_on()


@pytest.mark.parametrize("what", ["a first wish", "a move", "a default", "a new job"])
async def test_a_change_is_followed_within_two_looks(
    server: GroupServer, clock: FakeClock, what: str
):
    soon = {"frequency": "daily", "preferred_time": "09:01"}
    late = {"frequency": "daily", "preferred_time": "18:00"}
    await server.add_users("ada")
    if what != "a new job":
        await server.put_job(default_preferences=late)
    if what in ("a move", "a default"):
        await server.wish("ada", **(late if what == "a move" else {}))

    async with scheduling(server):
        await wait_for(clock, 50 * SECOND)
        if what == "a default":
            await server.set_default(**soon)
        else:
            await server.wish("ada", **soon)
        if what == "a new job":
            await server.put_job()
        await wait_for(clock, 10 * SECOND + SOON)
        [batch] = await server.batches_of()

    assert batch.request.due_time == START + MINUTE
    assert batch.create_time <= START + MINUTE + SOON
