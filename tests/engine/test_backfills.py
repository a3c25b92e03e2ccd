"""Backfilled due times become runs, each once, and leave the job's own schedule its turn."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from batchwork_server import failpoints
from batchwork_server.application.backfills import Backfills
from batchwork_server.domain.backfill import Backfill, BackfillRange
from batchwork_server.domain.submission import Idempotency
from batchwork_server.store.database import Database

from tests.engine.test_firing import FIRST, HOUR, JOB, MINUTE, Server, several
from tests.factories import TENANT
from tests.fakes import START, FakeClock


def backfills_of(server: Server) -> Backfills:
    return Backfills(store=server.store, clock=server.clock, wakeups=server.wakeups, zone="UTC")


async def backfill(server: Server, hours: int = 3, *, is_parallel: bool = False) -> Backfill:
    """Backfills the last due times before the job was there."""
    asked = BackfillRange(
        job_id=JOB, start=START - hours * HOUR, end=START, is_parallel=is_parallel
    )
    backfills = backfills_of(server)
    return await backfills.backfill_job(asked, tenant_id=TENANT, idempotency=Idempotency())


@pytest.fixture
async def server(database: Database, clock: FakeClock) -> Server:
    server = Server(database, clock=clock)
    await server.put(overlap="queue_one")
    return server


async def test_runs_begin_one_after_the_other_the_oldest_due_time_first(server: Server):
    await backfill(server)

    begun = []
    for _ in range(3):
        await server.scheduler.run_once()
        begun.append(len(await server.batches_of()))
        await server.end_runs()
    await server.scheduler.run_once()

    batches = await server.batches_of()
    assert begun == [1, 2, 3]
    assert [each.request.due_time for each in batches] == [FIRST - n * HOUR for n in (3, 2, 1)]
    assert {each.request.source for each in batches} == {"backfill"}
    assert batches[0].batch_id.startswith("bat_backfill_")
    assert await server.fates_of() == ["BACKFILLED"] * 3


async def test_the_scheduler_is_woken(server: Server):
    server.scheduler.wake.clear()
    await backfill(server)

    assert server.scheduler.wake.is_set()


async def test_all_begin_at_once_when_that_is_wanted_beside_what_goes_on(server: Server):
    await server.run_now()
    await backfill(server, is_parallel=True)

    await server.scheduler.run_once()

    assert len(await server.batches_of()) == 4
    assert await server.fates_of() == ["BACKFILLED"] * 3


async def test_it_waits_for_a_run_of_the_schedule_that_goes_on(server: Server):
    await server.run_at(FIRST)
    await backfill(server)

    await server.run_at(FIRST + MINUTE)

    assert await server.fates_of() == ["QUEUED"] * 3 + ["FIRED"]


async def test_the_schedule_goes_before_a_backfill_that_waits(server: Server):
    await backfill(server)
    await server.scheduler.run_once()
    await server.run_at(FIRST)
    waiting = await server.fates_of()

    await server.end_runs()
    await server.run_at(FIRST + MINUTE)

    assert waiting == ["BACKFILLED", "QUEUED", "QUEUED", "QUEUED"]
    assert await server.fates_of() == ["BACKFILLED", "QUEUED", "QUEUED", "FIRED"]


async def test_a_paused_job_is_backfilled_and_what_its_schedule_queued_waits(server: Server):
    await server.run_at(FIRST)
    await server.run_at(FIRST + HOUR)
    await server.jobs.pause_job(JOB, tenant_id=TENANT)
    await backfill(server, 1)
    await server.end_runs()

    await server.run_at(FIRST + HOUR + MINUTE)

    assert await server.fates_of() == ["BACKFILLED", "FIRED", "QUEUED"]


async def test_a_due_time_that_the_schedule_has_not_decided_on_fires_once(server: Server):
    await server.put(schedule={"frequency": "hourly", "minute": 30, "jitter": 1200})
    server.clock.advance(FIRST - server.clock.now() + timedelta(seconds=1))
    asked = BackfillRange(job_id=JOB, start=FIRST, end=FIRST + timedelta(seconds=1))
    backfills = backfills_of(server)
    await backfills.backfill_job(asked, tenant_id=TENANT, idempotency=Idempotency())

    await server.scheduler.run_once()
    await server.end_runs()
    await server.run_at(FIRST + 20 * MINUTE)

    [occurrence] = await server.occurrences_of()
    assert (occurrence.due_time, occurrence.decision) == (FIRST, "BACKFILLED")
    assert len(await server.batches_of()) == 1


async def test_what_waits_is_skipped_when_the_job_is_deleted(server: Server):
    found = await backfill(server)
    await server.jobs.delete_job(JOB, tenant_id=TENANT)

    await server.scheduler.run_once()

    assert await server.fates_of() == ["JOB_DELETED"] * 3
    assert {each.backfill_id for each in await server.occurrences_of()} == {found.backfill_id}


async def test_a_death_between_two_runs_starts_nothing_twice(
    server: Server, database: Database, clock: FakeClock
):
    await backfill(server, is_parallel=True)
    failpoints.arm("fire.committed", "raise", after=1)
    try:
        with pytest.raises(failpoints.Failpoint):
            await server.scheduler.run_once()
    finally:
        failpoints.disarm()
    half = await server.batches_of()

    await Server(database, clock=clock).scheduler.run_once()

    assert len(half) == 2
    assert len(await server.batches_of()) == 3
    assert await server.fates_of() == ["BACKFILLED"] * 3


@pytest.mark.parametrize("is_parallel", [False, True], ids=["one after the other", "all at once"])
async def test_four_schedulers_start_each_due_time_once(
    database: Database, database_url: str, clock: FakeClock, is_parallel: bool
):
    async with several(database, database_url) as databases:
        servers = [Server(each, clock=clock) for each in databases]
        await servers[0].put()
        await backfill(servers[0], 6, is_parallel=is_parallel)

        for _ in range(6):
            await asyncio.gather(*(each.scheduler.run_once() for each in servers))
            await servers[0].end_runs()

        occurrences = await servers[0].occurrences_of()
        assert [each.decision for each in occurrences] == ["BACKFILLED"] * 6
        batches = await servers[0].batches_of()
        assert sorted(each.batch_id for each in batches) == sorted(
            each.batch_id for each in occurrences
        )
