"""A batch that may not use more workers leaves the others to everybody else."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from batchwork_server.domain.batch import BatchState, Counts, Priority
from batchwork_server.errors import ProviderUnavailable
from batchwork_server.ports import ItemCall, ItemResult

from tests.engine.conftest import RequestedOptions, StartWorker, Worker, calls_of
from tests.fakes import FakeClock, FakeProcessor

SECOND = timedelta(seconds=1)
ONE_AT_A_TIME = RequestedOptions(max_concurrent_items=1, chunk_size=50)
AT_ONCE = RequestedOptions(priority=Priority.CRITICAL)


class Slow(FakeProcessor):
    """Holds what is called slow until the test lets it go, and is quick with the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.released = asyncio.Event()

    async def process(self, call: ItemCall) -> ItemResult:
        result = await super().process(call)
        if call.item_id.startswith("slow"):
            await self.released.wait()
        return result


def slow(count: int) -> list[str]:
    return [f"slow-{number}" for number in range(count)]


async def claimed_items(worker: Worker, batch_key: int) -> int:
    batch = await worker.store.batches.get_by_key(batch_key)
    assert batch is not None
    return batch.counts.running


async def test_a_small_batch_goes_by_a_slow_one_that_may_use_one_worker(start_worker: StartWorker):
    # The story: one claimed chunk of 50 items counted as 50 items in reserve, though one worker
    # was all that it could use: 24 workers idled, and nothing else was claimed.
    work = Slow()
    worker = await start_worker(work, slots=25)
    large = await worker.submit(slow(200), options=ONE_AT_A_TIME)
    await calls_of(work, 1)

    small = await worker.end_of(await worker.submit(["quick-1", "quick-2"]))
    going_on = await worker.store.batches.get_by_key(large.key)
    claimed = await claimed_items(worker, large.key)
    work.released.set()
    done = await worker.end_of(large)

    assert small.counts == Counts(total=2, succeeded=2)
    assert going_on is not None
    assert going_on.state is BatchState.RUNNING
    assert claimed == 50, "of a batch that has enough in hand no further chunk is claimed"
    assert done.counts == Counts(total=200, succeeded=200)


async def test_many_slow_batches_that_may_use_one_worker_each_run_side_by_side(
    start_worker: StartWorker,
):
    work = Slow()
    worker = await start_worker(work, slots=8)
    batches = [await worker.submit(slow(120), options=ONE_AT_A_TIME) for _ in range(8)]

    await calls_of(work, 8)
    started = {call.batch_id for call in work.calls}
    work.released.set()
    done = [await worker.end_of(batch) for batch in batches]

    assert started == {batch.batch_id for batch in batches}
    assert all(batch.state is BatchState.SUCCEEDED for batch in done)


async def test_what_is_urgent_does_not_wait_for_a_probe_that_hangs(
    start_worker: StartWorker, clock: FakeClock
):
    work = Slow()
    work.on("slow-0", ProviderUnavailable("NO_ANSWER", retry_after=SECOND))
    worker = await start_worker(work, slots=4, clock=clock)
    large = await worker.submit(slow(30), options=RequestedOptions(chunk_size=30))
    await calls_of(work, 1)
    work.released.set()
    await worker.until(
        large, lambda batch: batch.state is BatchState.PAUSED and not batch.counts.running
    )
    work.released.clear()
    work.calls.clear()

    clock.advance(SECOND)
    await worker.deadlines.run_once()
    await calls_of(work, 1)  # the probe, which hangs
    urgent = await worker.submit(["quick"], template_id="elsewhere", options=AT_ONCE)
    urgent = await worker.end_of(urgent)
    probes = sum(call.batch_id == large.batch_id for call in work.calls)
    work.released.set()
    done = await worker.end_of(large)

    assert urgent.counts == Counts(total=1, succeeded=1)
    assert probes == 1
    assert done.counts == Counts(total=30, succeeded=30)


async def test_a_bounded_batch_does_not_wait_between_its_chunks(
    start_worker: StartWorker, clock: FakeClock
):
    worker = await start_worker(FakeProcessor(), slots=4, clock=clock)

    batch = await worker.submit(
        [f"quick-{number}" for number in range(40)],
        options=RequestedOptions(max_concurrent_items=2, chunk_size=2),
    )
    done = await worker.end_of(batch)  # the clock stands still: nobody looked by the way

    assert done.counts == Counts(total=40, succeeded=40)
