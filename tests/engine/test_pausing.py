"""Batches that are paused, and batches that somebody cancels while they end, on each database."""

from __future__ import annotations

import asyncio

import pytest
from batchwork_server.domain.batch import FINAL_STATES, BatchState, Counts, StateReason
from batchwork_server.errors import ItemFailed, WrongState

from tests.engine.conftest import RequestedOptions, StartWorker, calls_of, gated
from tests.fakes import FakeProcessor


@pytest.mark.arrow("batch J", "item H")
async def test_items_in_flight_finish_and_no_other_starts(start_worker: StartWorker):
    work = FakeProcessor()
    worker = await start_worker(work, slots=2)
    async with gated(work):
        batch = await worker.submit([f"i{n}" for n in range(30)])
        await calls_of(work, 2)
        pausing = await worker.pause(batch)
    idle = await worker.until(batch, lambda batch: batch.counts.running == 0)
    started = len(work.calls)
    await worker.resume(batch)
    done = await worker.finish(batch)

    assert pausing.state is BatchState.PAUSED
    assert (idle.state, started) == (BatchState.PAUSED, 2)
    assert idle.counts == Counts(total=30, succeeded=2, pending=28)
    assert done.counts == Counts(total=30, succeeded=30)
    assert {item.attempt_count for item in await worker.items(done)} == {1}


@pytest.mark.arrow("batch P")
@pytest.mark.parametrize(
    ("failing", "state"),
    [
        ((), BatchState.SUCCEEDED),
        (("i0",), BatchState.PARTIALLY_SUCCEEDED),
        (("i0", "i1"), BatchState.FAILED),
    ],
)
async def test_a_batch_whose_last_items_finish_while_it_is_paused_ends(
    start_worker: StartWorker, failing: tuple[str, ...], state: BatchState
):
    work = FakeProcessor({item_id: [ItemFailed("BAD")] for item_id in failing})
    worker = await start_worker(work, slots=2)
    async with gated(work):
        batch = await worker.submit(["i0", "i1"])
        await calls_of(work, 2)
        pausing = await worker.pause(batch)
    batch = await worker.finish(batch)

    assert pausing.state is BatchState.PAUSED
    assert (batch.state, batch.state_reason) == (state, "")


async def test_a_failed_attempt_of_a_paused_batch_waits_for_the_resume(start_worker: StartWorker):
    work = FakeProcessor({"i0": [ItemFailed("BUSY", retryable=True)]})
    worker = await start_worker(work, slots=1)
    async with gated(work):
        batch = await worker.submit(["i0"])
        await calls_of(work, 1)
        await worker.pause(batch)
    idle = await worker.until(batch, lambda batch: batch.counts.retries == 1)
    await worker.resume(batch)
    done = await worker.finish(batch)

    assert (idle.state, idle.counts) == (
        BatchState.PAUSED,
        Counts(total=1, pending=1, retries=1),
    )
    assert done.counts == Counts(total=1, succeeded=1, retries=1)


async def test_a_restart_leaves_a_paused_batch_paused(start_worker: StartWorker):
    first_work = FakeProcessor()
    first = await start_worker(first_work, slots=1)
    async with gated(first_work):
        batch = await first.submit(["i0", "i1", "i2"])
        await calls_of(first_work, 1)
        await first.pause(batch)
    await first.until(batch, lambda batch: batch.counts.running == 0)
    await first.stop()

    second = await start_worker()
    other = await second.finish(await second.submit(["j0"]))
    still = await second.until(batch, lambda batch: True)
    await second.resume(batch)
    done = await second.finish(batch)

    assert other.counts.succeeded == 1
    assert (still.state, still.state_reason) == (BatchState.PAUSED, StateReason.PAUSED_BY_CALLER)
    assert done.counts.succeeded == 3


async def test_pauses_and_resumes_at_any_moment_lose_nothing(start_worker: StartWorker):
    worker = await start_worker(slots=3)
    batch = await worker.submit(
        [f"i{n}" for n in range(60)], options=RequestedOptions(chunk_size=3)
    )

    for pause in range(20):
        for _ in range(pause * 7 % 40):
            await asyncio.sleep(0)
        try:
            await worker.pause(batch)
            await worker.resume(batch)
        except WrongState:
            break  # it is over
    done = await worker.finish(batch)

    assert done.counts == Counts(total=60, succeeded=60)
    assert len(worker.work.calls) == 60


@pytest.mark.parametrize("moment", range(12))
async def test_a_cancel_that_races_the_end_leaves_one_end(start_worker: StartWorker, moment: int):
    work = FakeProcessor()
    worker = await start_worker(work, slots=4)
    async with gated(work) as gate:
        batch = await worker.submit(["i0", "i1", "i2"])
        await calls_of(work, 3)

        async def finish() -> None:
            for _ in range(moment * 3):
                await asyncio.sleep(0)
            gate.set()

        results = await asyncio.gather(worker.cancel(batch), finish(), return_exceptions=True)
    batch = await worker.finish(batch)

    events = await worker.store.batches.events(batch.key, after=0, limit=100)
    ends = [event.state for event in events if event.state in FINAL_STATES]
    assert ends == [batch.state]
    assert batch.state is (
        BatchState.SUCCEEDED if isinstance(results[0], WrongState) else BatchState.CANCELLED
    )
    assert batch.counts == Counts(total=3, succeeded=3)


@pytest.mark.parametrize("moment", range(6))
async def test_two_cancels_a_pause_and_a_resume_at_once_leave_one_end(
    start_worker: StartWorker, moment: int
):
    work = FakeProcessor()
    worker = await start_worker(work, slots=2)
    async with gated(work) as gate:
        batch = await worker.submit([f"i{n}" for n in range(25)])
        await calls_of(work, 1)
        changes = [
            worker.cancel(batch, stop_in_flight=True),
            worker.pause(batch),
            worker.resume(batch),
            worker.cancel(batch),
        ]
        order = changes[moment % 4 :] + changes[: moment % 4]
        await asyncio.gather(*order, return_exceptions=True)
        gate.set()
    batch = await worker.finish(batch)

    events = await worker.store.batches.events(batch.key, after=0, limit=1000)
    assert [event.state for event in events if event.state in FINAL_STATES] == [batch.state]
    assert batch.state is BatchState.CANCELLED
