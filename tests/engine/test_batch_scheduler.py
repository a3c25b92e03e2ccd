"""The scheduler wakes at the next start time, and a lost wake-up costs one interval."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from batchwork_server.clock import Clock, SystemClock
from batchwork_server.domain.batch import BatchState
from batchwork_server.domain.schedule import Hourly, Schedule
from batchwork_server.engine.batch_scheduler import Alarm, BatchScheduler
from batchwork_server.engine.loop import tick
from batchwork_server.errors import StoreUnavailable
from batchwork_server.wakeups import Wakeups

from tests.engine.conftest import StartWorker
from tests.factories import make_batch, make_request
from tests.fakes import START, FakeClock
from tests.store.test_jobs import make_stored, put
from tests.store.test_occurrences import listed, run_at, schedule

PATIENCE = 30  # seconds in which a wake-up comes, however busy the machine is
LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)


class FakeFiring:
    """Fires by its own clock.

    Attributes:
        starts: When the runs begin that have not begun.
        fired: When the runs began that have.
        resting: When runs should have begun that cannot.
        error: What a look ends with, if anything.
        is_done: Set when every run has begun.
    """

    def __init__(self, clock: Clock, *starts: datetime) -> None:
        self.starts = list(starts)
        self.fired: list[datetime] = []
        self.resting: list[datetime] = []
        self.looks = 0
        self.error: Exception | None = None
        self.is_done = asyncio.Event()
        self._clock = clock

    async def schedule_all(self) -> None: ...

    async def fire_due(self) -> int:
        self.looks += 1
        if self.error is not None:
            raise self.error
        up = [start for start in self.starts if start <= self._clock.now()]
        self.starts = [start for start in self.starts if start not in up]
        self.fired += up
        if not self.starts:
            self.is_done.set()
        return len(up)

    async def next_start_time(self, *, after: datetime) -> datetime | None:
        later = (start for start in (*self.starts, *self.resting) if start > after)
        return min(later, default=None)


@asynccontextmanager
async def running(firing: FakeFiring, clock: Clock) -> AsyncIterator[BatchScheduler]:
    """Runs a scheduler in its loop."""
    scheduler = BatchScheduler(firing, clock=clock, wakeups=Wakeups())
    scheduler.start()
    loop = asyncio.create_task(
        tick(
            "scheduler",
            scheduler.run_once,
            interval=timedelta(hours=1),
            clock=clock,
            stop=asyncio.Event(),
            wake=scheduler.wake,
        )
    )
    yield scheduler
    loop.cancel()
    await asyncio.wait([loop])
    scheduler.close()


@contextmanager
def alarm() -> Iterator[tuple[Alarm, asyncio.Queue[None]]]:
    """Makes an alarm, and a queue of what it rings."""
    rings: asyncio.Queue[None] = asyncio.Queue()
    alarm = Alarm(lambda: rings.put_nowait(None))
    yield alarm, rings
    alarm.close()


async def ring(rings: asyncio.Queue[None]) -> None:
    async with asyncio.timeout(PATIENCE):
        await rings.get()


async def test_it_wakes_for_one_start_time_after_the_other():
    clock = SystemClock()
    starts = [clock.now() + number * timedelta(milliseconds=50) for number in range(1, 5)]
    firing = FakeFiring(clock, *starts)

    async with running(firing, clock), asyncio.timeout(PATIENCE):
        await firing.is_done.wait()

    assert firing.fired == starts


async def test_a_job_that_is_due_earlier_wakes_it_at_once(clock: FakeClock):
    firing = FakeFiring(clock, START + timedelta(days=10_000))
    wakeups = Wakeups()
    scheduler = BatchScheduler(firing, clock=clock, wakeups=wakeups)

    wakeups.schedules_changed()

    assert scheduler.wake.is_set()


@pytest.mark.parametrize(
    ("job_id", "state", "wakes"),
    [
        pytest.param("job_posts", BatchState.SUCCEEDED, True, id="the end of a run"),
        pytest.param("job_posts", BatchState.CANCELLED, True, id="a run that is cancelled"),
        pytest.param("job_posts", BatchState.RUNNING, False, id="progress of a run"),
        pytest.param("", BatchState.SUCCEEDED, False, id="the end of a batch without a job"),
    ],
)
async def test_the_end_of_a_run_wakes_it(
    clock: FakeClock, job_id: str, state: BatchState, wakes: bool
):
    wakeups = Wakeups()
    scheduler = BatchScheduler(FakeFiring(clock), clock=clock, wakeups=wakeups)

    wakeups.batch_changed(make_batch(state=state, request=make_request(job_id=job_id)))

    assert scheduler.wake.is_set() is wakes


async def test_a_job_that_rests_does_not_wake_it_again_and_again(clock: FakeClock):
    firing = FakeFiring(clock)
    firing.resting = [START]

    async with running(firing, clock):
        await clock.waited_on()
        clock.advance(timedelta(hours=1))
        await clock.waited_on()

    assert firing.looks == 2


async def test_without_an_alarm_it_looks_by_itself(clock: FakeClock):
    firing = FakeFiring(clock, START + timedelta(seconds=7))
    scheduler = BatchScheduler(firing, clock=clock, wakeups=Wakeups())
    loop = asyncio.create_task(
        tick(
            "scheduler",
            scheduler.run_once,
            interval=BatchScheduler.INTERVAL,
            clock=clock,
            stop=asyncio.Event(),
            wake=scheduler.wake,
        )
    )
    for _ in range(3):
        await clock.waited_on()
        clock.advance(BatchScheduler.INTERVAL)
    async with asyncio.timeout(PATIENCE):
        await firing.is_done.wait()
    loop.cancel()
    await asyncio.wait([loop])

    assert firing.fired == [START + timedelta(seconds=7)]


@pytest.mark.parametrize(
    "error", [StoreUnavailable("The database is away."), ZeroDivisionError()], ids=repr
)
async def test_after_an_error_it_does_not_wait_for_the_interval(clock: FakeClock, error: Exception):
    firing = FakeFiring(clock, START)
    firing.error = error
    scheduler = BatchScheduler(firing, clock=clock, wakeups=Wakeups())
    scheduler.start()

    with pytest.raises(type(error)):
        await scheduler.run_once()

    async with asyncio.timeout(PATIENCE):
        await scheduler.wake.wait()
    scheduler.close()


async def test_an_alarm_rings_however_late_it_is():
    with alarm() as (set_alarm, rings):
        set_alarm.set(LONG_AGO)

        await ring(rings)


async def test_an_alarm_rings_once_for_each_moment():
    with alarm() as (set_alarm, rings):
        for _ in range(3):
            set_alarm.set(LONG_AGO)
        await ring(rings)
        set_alarm.set(LONG_AGO)
        set_alarm.set(LONG_AGO + timedelta(seconds=1))
        await ring(rings)

        assert rings.empty()


async def test_an_alarm_that_is_set_to_another_moment_forgets_the_first():
    later = SystemClock().now() + timedelta(days=1)
    with alarm() as (set_alarm, rings):
        set_alarm.set(later)
        set_alarm.set(LONG_AGO)
        await ring(rings)
        set_alarm.set(LONG_AGO + timedelta(seconds=1))
        set_alarm.set(None)
        set_alarm.set(later)
        set_alarm.set(LONG_AGO + timedelta(seconds=2))
        await ring(rings)

        assert rings.empty()


async def test_an_alarm_says_nothing_in_the_log_unless_it_fails(
    logged: Callable[[], list[dict[str, Any]]],
):
    with alarm() as (set_alarm, rings):
        set_alarm.set(LONG_AGO)
        await ring(rings)
    quiet = logged()
    gone_off = asyncio.Event()

    def fail() -> None:
        gone_off.set()
        raise ZeroDivisionError

    broken = Alarm(fail)
    broken.set(LONG_AGO)
    async with asyncio.timeout(PATIENCE):
        await gone_off.wait()
    broken.close()

    assert quiet == []
    [line] = logged()
    assert (line["level"], line["logger"]) == ("error", "apscheduler.executors.default")
    assert "ZeroDivisionError" in line["exception"]


async def test_a_server_looks_at_a_changed_job_without_waiting_for_its_interval(
    start_worker: StartWorker, clock: FakeClock
):
    worker = await start_worker(clock=clock)
    await clock.waited_on()
    await put(worker.store, make_stored(schedule=Schedule(cadence=Hourly())))
    await schedule(worker.store, run_at(0))

    worker.wakeups.schedules_changed()

    async with asyncio.timeout(PATIENCE):
        while not await listed(worker.store):
            await asyncio.sleep(0)
    assert clock.now() == START
