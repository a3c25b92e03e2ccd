"""Four processes race for three hundred due times, and each is fired once."""

from __future__ import annotations

import asyncio
import random
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from batchwork_server.store.database import open_database

from tests.e2e.conftest import ROOT
from tests.e2e.racing_scheduler import DUE_TIMES, JOBS
from tests.engine.test_firing import Server
from tests.fakes import FakeClock

PROCESSES = 4
KILLS = 2  # of each process, at most


class Racer:
    """A scheduler in a process of its own."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def is_ready(self) -> None:
        assert await self._line() == "ready"

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")

    async def race(self, most: int = sys.maxsize) -> int:
        """Returns at how many due jobs it has looked, when these are so many or it has ended."""
        looked_at = 0
        while looked_at < most and (line := await self._line()):
            looked_at += int(line)
        return looked_at

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()

    async def ended(self) -> int:
        await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode

    async def _line(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            return (await self._process.stdout.readline()).decode().strip()


StartRacer = Callable[[], Awaitable[Racer]]


@pytest.fixture
async def start_racer(database_url: str) -> AsyncIterator[StartRacer]:
    """Starts schedulers over one database with jobs; what still runs at the end is killed."""
    database = await open_database(database_url)
    server = Server(database, clock=FakeClock())
    for name in JOBS:
        await server.put(name, overlap="allow")
    await database.close()
    racers: list[Racer] = []

    async def start() -> Racer:
        command = (sys.executable, "-m", "tests.e2e.racing_scheduler", database_url)
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, cwd=ROOT)
        racer = Racer(process)
        racers.append(racer)
        await racer.is_ready()
        return racer

    yield start
    for racer in racers:
        await racer.kill()


async def assert_each_has_fired_once(database_url: str) -> None:
    """Every due time has one occurrence and one batch, and was on time."""
    database = await open_database(database_url)
    server = Server(database, clock=FakeClock())
    for name in JOBS:
        occurrences = await server.occurrences_of(name)
        batches = await server.batches_of(name)
        assert [(each.due_time, each.decision) for each in occurrences] == [
            (due_time, "FIRED") for due_time in DUE_TIMES
        ]
        assert sorted(each.batch_id for each in batches) == sorted(
            each.batch_id for each in occurrences
        )
        assert len({each.batch_id for each in batches}) == len(DUE_TIMES)
    await database.close()


async def test_four_processes_fire_each_of_three_hundred_due_times_once(
    start_racer: StartRacer, database_url: str
):
    racers = await asyncio.gather(*(start_racer() for _ in range(PROCESSES)))
    for racer in racers:
        racer.go()
    looked_at = [await racer.race() for racer in racers]

    assert [await racer.ended() for racer in racers] == [0] * PROCESSES
    await assert_each_has_fired_once(database_url)
    assert len(JOBS) * len(DUE_TIMES) == 300
    assert sum(looked_at) > 300  # else nobody came too late, and this was no race


async def test_four_processes_that_are_killed_again_and_again_fire_each_once(
    start_racer: StartRacer, database_url: str
):
    chance = random.Random(20261015)

    async def survive() -> int:
        """Starts a process again until it comes to the end; tells how often it was killed."""
        for kills in range(KILLS):
            racer = await start_racer()
            racer.go()
            enough = chance.randrange(1, 40)
            if await racer.race(enough) < enough:
                assert await racer.ended() == 0
                return kills
            await racer.kill()
        racer = await start_racer()
        racer.go()
        assert await racer.ended() == 0
        return KILLS

    kills = await asyncio.gather(*(survive() for _ in range(PROCESSES)))

    assert sum(kills) >= 2  # with fewer, those that were not killed would not be done
    await assert_each_has_fired_once(database_url)
