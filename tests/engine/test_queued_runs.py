"""Due times that wait for other runs of their job: each becomes one run, or has a reason."""

from __future__ import annotations

import asyncio

import pytest
from batchwork_server import failpoints
from batchwork_server.domain.batch import BatchState, StateReason
from batchwork_server.store.database import Database

from tests.engine.test_firing import FIRST, HOUR, JOB, MINUTE, Server, several
from tests.factories import TENANT
from tests.fakes import FakeClock

NIGHT = {"catch_up": "all", "catch_up_window": 86400}


@pytest.fixture
def server(database: Database, clock: FakeClock) -> Server:
    return Server(database, clock=clock)


@pytest.fixture
async def queued(server: Server) -> Server:
    """A job whose second due time waits for the run of the first."""
    await server.put(overlap="queue_one")
    await server.run_at(FIRST)
    await server.run_at(FIRST + HOUR)
    return server


async def test_a_due_time_waits_for_the_run_before(queued: Server):
    [_, waiting] = await queued.occurrences_of()

    assert (waiting.decision, waiting.batch_id, waiting.reason) == ("QUEUED", "", None)
    assert waiting.message == "It waits for other runs of the job."
    assert len(await queued.batches_of()) == 1


async def test_it_starts_when_the_run_before_is_over_and_tells_how_long_it_waited(queued: Server):
    await queued.end_runs()
    await queued.run_at(FIRST + HOUR + 5 * MINUTE)

    [_, started] = await queued.occurrences_of()
    [_, batch] = await queued.batches_of()
    assert (started.decision, started.batch_id) == ("FIRED", batch.batch_id)
    assert started.message == "It waited 300 s for other runs of the job."
    assert started.decide_time == FIRST + HOUR + 5 * MINUTE
    assert (started.due_time, batch.request.source) == (FIRST + HOUR, "schedule")


async def test_a_batch_knows_the_due_time_it_was_made_for(queued: Server):
    await queued.end_runs()
    await queued.run_at(FIRST + 5 * HOUR)

    assert [each.request.due_time for each in await queued.batches_of()] == [
        FIRST,
        FIRST + HOUR,
    ]


async def test_what_comes_due_while_one_waits_is_skipped_and_says_so(queued: Server):
    await queued.run_at(FIRST + 2 * HOUR)

    newest = (await queued.occurrences_of())[-1]
    assert (newest.decision, newest.reason) == ("SKIPPED", "OVERLAP")
    assert newest.message == "Another due time of the job waited already."


async def test_the_next_one_waits_when_the_one_before_has_started(queued: Server):
    await queued.end_runs()
    await queued.run_at(FIRST + 2 * HOUR)

    assert await queued.fates_of() == ["FIRED", "FIRED", "QUEUED"]


async def test_a_paused_job_keeps_what_waits_until_it_is_resumed(queued: Server):
    await queued.jobs.pause_job(JOB, tenant_id=TENANT)
    await queued.end_runs()
    await queued.run_at(FIRST + 2 * HOUR)
    meanwhile = await queued.fates_of()

    await queued.jobs.resume_job(JOB, tenant_id=TENANT)
    await queued.run_at(FIRST + 2 * HOUR + MINUTE)

    assert meanwhile == ["FIRED", "QUEUED"]
    assert await queued.fates_of() == ["FIRED", "FIRED"]


@pytest.mark.parametrize("how", ["DeleteJob", "ImportJobs with prune"])
async def test_what_waits_is_skipped_when_its_job_is_deleted(queued: Server, how: str):
    if how == "DeleteJob":
        await queued.jobs.delete_job(JOB, tenant_id=TENANT)
    else:
        await queued.imports.import_jobs(
            '{"batch_processing_jobs": []}', tenant_id=TENANT, prune=True
        )

    await queued.put(overlap="queue_one")
    await queued.end_runs()
    await queued.run_at(FIRST + HOUR + MINUTE)

    skipped = (await queued.occurrences_of())[1]
    assert (skipped.decision, skipped.reason) == ("SKIPPED", "JOB_DELETED")
    assert skipped.message == "The job was deleted while it waited."
    assert len(await queued.batches_of()) == 1


async def test_what_waits_runs_as_the_job_is_by_then(queued: Server):
    await queued.put(overlap="queue_one", name="Renamed")
    await queued.end_runs()
    await queued.run_at(FIRST + HOUR + MINUTE)

    assert (await queued.batches_of())[-1].request.display_name == "Renamed"


async def test_what_waits_and_cannot_be_planned_is_skipped_with_the_reason(queued: Server):
    await queued.put(overlap="queue_one", category="nothing_there")
    await queued.end_runs()
    await queued.run_at(FIRST + HOUR + MINUTE)

    failed = (await queued.occurrences_of())[-1]
    assert (failed.reason, failed.batch_id) == ("RUN_FAILED", "")
    assert "There is no category 'nothing_there'" in failed.message


async def test_what_waits_waits_on_while_a_source_is_away(queued: Server):
    queued.categories.away = True
    await queued.end_runs()
    await queued.run_at(FIRST + HOUR + MINUTE)
    meanwhile = await queued.fates_of()

    queued.categories.away = False
    await queued.run_at(FIRST + HOUR + 2 * MINUTE)

    assert meanwhile == ["FIRED", "QUEUED"]
    assert await queued.fates_of() == ["FIRED", "FIRED"]


async def test_a_batch_that_was_deleted_holds_nothing_up(queued: Server):
    # The story: a deleted batch has no end until its rows are removed, and counted as going on.
    await queued.end_runs()
    [batch] = await queued.batches_of()
    async with queued.store.transaction() as tx:
        await queued.store.retention.delete(tx, batch.key)

    await queued.run_at(FIRST + HOUR + MINUTE)
    assert await queued.fates_of() == ["FIRED", "FIRED"]


async def test_a_death_after_the_commit_starts_nothing_twice(
    queued: Server, database: Database, clock: FakeClock
):
    await queued.end_runs()
    failpoints.arm("fire.committed", "raise")
    try:
        with pytest.raises(failpoints.Failpoint):
            await queued.run_at(FIRST + HOUR + MINUTE)
    finally:
        failpoints.disarm()

    await Server(database, clock=clock).scheduler.run_once()

    assert await queued.fates_of() == ["FIRED", "FIRED"]
    assert len(await queued.batches_of()) == 2


async def test_four_schedulers_start_each_queued_due_time_once_and_one_at_a_time(
    database: Database, database_url: str, clock: FakeClock
):
    names = [f"job_{number}_of_many" for number in range(12)]
    async with several(database, database_url) as databases:
        servers = [Server(each, clock=clock) for each in databases]
        for name in names:
            await servers[0].put(name, **NIGHT)
        clock.advance(FIRST + 3 * HOUR - clock.now())

        for round_number in range(1, 5):
            await asyncio.gather(*(each.scheduler.run_once() for each in servers))
            for name in names:
                assert len(await servers[0].batches_of(name)) == round_number
                await servers[0].end_runs(name)

        for name in names:
            occurrences = await servers[0].occurrences_of(name)
            assert [each.decision for each in occurrences] == ["CAUGHT_UP"] * 3 + ["FIRED"]
            batches = await servers[0].batches_of(name)
            assert [each.batch_id for each in batches] == [each.batch_id for each in occurrences]


async def test_a_run_that_began_in_between_is_waited_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    await server.put(overlap="queue_one")
    original = server.categories.exists
    began: list[str] = []

    async def exists(name: str, **more: str) -> bool:
        if not began:
            began.append(name)
            await server.run_now()
        return await original(name, **more)

    monkeypatch.setattr(server.categories, "exists", exists)
    await server.run_at(FIRST)

    assert await server.fates_of() == ["QUEUED"]
    assert len(await server.batches_of()) == 1


@pytest.fixture
def announced(server: Server) -> list[str]:
    """Which batches were told to have changed."""
    told: list[str] = []
    server.wakeups.subscribe(lambda batch: told.append(batch.batch_id))
    return told


async def test_a_newer_run_cancels_the_one_before_and_says_so(server: Server, announced: list[str]):
    await server.put(overlap="cancel_previous")
    await server.run_at(FIRST)
    await server.run_at(FIRST + HOUR)

    [old, new] = await server.batches_of()
    assert (old.state, old.state_reason) == (BatchState.CANCELLING, StateReason.NEWER_RUN)
    assert (old.closing, old.stop_in_flight) == (BatchState.CANCELLED, True)
    assert old.state_message == f"The run {new.batch_id} of the job took its place."
    assert new.state is BatchState.PENDING
    assert announced == [old.batch_id]
    assert await server.fates_of() == ["FIRED", "FIRED"]


async def test_a_newer_run_that_cannot_be_planned_cancels_nothing(
    server: Server, announced: list[str]
):
    await server.put(overlap="cancel_previous")
    await server.run_at(FIRST)
    await server.put(overlap="cancel_previous", category="nothing_there")
    await server.run_at(FIRST + HOUR)

    [batch] = await server.batches_of()
    assert batch.state is BatchState.PENDING
    assert announced == []


async def test_a_newer_run_stops_what_is_being_cancelled_already(server: Server):
    await server.put(overlap="cancel_previous")
    await server.run_at(FIRST)
    [old] = await server.batches_of()
    async with server.store.transaction() as tx:
        await server.store.changes.close(
            tx,
            old.key,
            closing=BatchState.CANCELLED,
            reason=StateReason.CANCELLED_BY_CALLER,
            message="",
            stop_in_flight=False,
            now=FIRST,
        )
    await server.run_at(FIRST + HOUR)

    [old, _] = await server.batches_of()
    assert (old.state_reason, old.stop_in_flight) == (StateReason.CANCELLED_BY_CALLER, True)
