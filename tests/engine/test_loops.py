"""Background loops go on, whatever becomes of one call, and say so once rather than each time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from batchwork_server.engine import loop as module
from batchwork_server.engine.loop import tick
from batchwork_server.errors import StorageFull, StoreUnavailable
from batchwork_server.logs import get_logger

from tests.fakes import FakeClock

SECOND = timedelta(seconds=1)
Logged = Callable[[], list[dict[str, Any]]]


class Work:
    """What a loop does.

    Attributes:
        error: What each call ends with, if anything.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.error: Exception | None = None

    async def run_once(self) -> None:
        self.calls += 1
        if self.error is not None:
            raise self.error


@pytest.fixture(autouse=True)
def fresh_logger(logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    # A logger keeps the stream that it wrote to first, which was another test's.
    monkeypatch.setattr(module, "log", get_logger(module.__name__))


@asynccontextmanager
async def ticking(work: Work, clock: FakeClock) -> AsyncIterator[None]:
    """Runs a loop that works every second."""
    stop = asyncio.Event()
    task = asyncio.create_task(
        tick("scheduler", work.run_once, interval=SECOND, clock=clock, stop=stop)
    )
    await clock.waited_on()
    yield
    stop.set()
    await task


async def pass_seconds(clock: FakeClock, count: int) -> None:
    for _ in range(count):
        clock.advance(SECOND)
        await clock.waited_on()


async def test_a_full_disk_is_told_once_a_minute_and_not_at_every_call(
    clock: FakeClock, logged: Logged
):
    work = Work()
    work.error = StorageFull("The disk is full.")

    async with ticking(work, clock):
        await pass_seconds(clock, 150)

    lines = [(line["event"], line["loop"], line["seconds"]) for line in logged()]
    assert work.calls == 151
    assert lines == [("loop.waiting", "scheduler", seconds) for seconds in (0, 60, 120)]


async def test_another_reason_is_told_at_once(clock: FakeClock, logged: Logged):
    work = Work()
    work.error = StorageFull("The disk is full.")

    async with ticking(work, clock):
        await pass_seconds(clock, 3)
        work.error = StoreUnavailable("The database does not answer.")
        await pass_seconds(clock, 3)

    assert [(line["reason"], line["seconds"]) for line in logged()] == [
        ("QUOTA_STORAGE", 0),
        ("DEPENDENCY_UNAVAILABLE", 4),
    ]


async def test_the_end_of_a_wait_is_told_and_so_is_the_next_wait(clock: FakeClock, logged: Logged):
    work = Work()
    away = StoreUnavailable("The database does not answer.")

    async with ticking(work, clock):
        for error in (away, None, away):
            work.error = error
            await pass_seconds(clock, 5)

    assert [(line["event"], line["level"], line["seconds"]) for line in logged()] == [
        ("loop.waiting", "warning", 0),
        ("loop.resumed", "info", 5),
        ("loop.waiting", "warning", 0),
    ]


async def test_an_error_that_nobody_foresaw_is_told_with_its_trace_and_the_loop_goes_on(
    clock: FakeClock, logged: Logged
):
    work = Work()
    work.error = ZeroDivisionError("by nothing")

    async with ticking(work, clock):
        await pass_seconds(clock, 2)

    assert work.calls == 3
    assert [line["event"] for line in logged()] == ["loop.failed"] * 3
    assert "ZeroDivisionError: by nothing" in logged()[0]["exception"]
