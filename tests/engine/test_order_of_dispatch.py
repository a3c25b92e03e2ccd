"""Who goes first, and that whoever goes last has a longest wait, with a clock that is moved."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from batchwork_server.domain.batch import HANDICAPS, Batch, Priority
from batchwork_server.domain.item_durations import MeasuredAttempts
from batchwork_server.domain.submission import RequestedOptions
from batchwork_server.ports import ItemCall, ItemResult

from tests.engine.conftest import StartWorker, Worker
from tests.factories import TENANT
from tests.fakes import START, FakeClock, FakeProcessor

STEP = timedelta(seconds=10)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize("priority", [Priority.LOW, Priority.MEDIUM])
async def test_an_endless_flow_of_what_is_more_urgent_does_not_starve_a_batch(
    start_worker: StartWorker, clock: FakeClock, priority: Priority
):
    worker = await start_worker(FakeProcessor(), slots=1, clock=clock)
    await worker.engine.stop_claims()  # the test takes the chunks, one each step of the clock
    chunks = worker.store.chunks
    patient = await worker.submit(["p"], options=RequestedOptions(priority=priority))

    waited, overtaken = clock.now() - START, 0
    while waited < timedelta(hours=1):
        await worker.submit(["u"], options=RequestedOptions(priority=Priority.HIGH))
        [(key, *_), *_] = await chunks.next_chunks(now=clock.now(), limit=1)
        claimed = await chunks.claim([key], owner="test", now=clock.now(), lease=STEP)
        if patient.key in claimed.batches:
            break
        overtaken += 1
        clock.advance(STEP)
        waited = clock.now() - START

    longest = HANDICAPS[priority] - HANDICAPS[Priority.HIGH]
    assert overtaken > 0, "what is urgent goes first"
    assert waited <= longest, "what came later overtakes for so long, and no longer"


async def test_of_what_is_due_together_the_most_urgent_goes_first(
    start_worker: StartWorker, clock: FakeClock
):
    worker = await start_worker(FakeProcessor(), slots=1, clock=clock)
    await worker.engine.stop_claims()
    batches = {
        priority: await worker.submit(["x"], options=RequestedOptions(priority=priority))
        for priority in Priority
    }

    found = await worker.store.chunks.next_chunks(now=clock.now(), limit=10)
    keys = [chunk.chunk_key for chunk in found]
    claimed = await worker.store.chunks.claim(keys, owner="test", now=clock.now(), lease=STEP)

    urgency = (Priority.CRITICAL, Priority.HIGH, Priority.MEDIUM, Priority.LOW)
    order = [chunk.batch_key for chunk in claimed.chunks]
    assert order == [batches[priority].key for priority in urgency]


async def test_a_large_batch_does_not_hold_up_a_small_one(
    start_worker: StartWorker, clock: FakeClock
):
    worker = await start_worker(FakeProcessor(), slots=1, clock=clock)
    await worker.engine.stop_claims()
    options = RequestedOptions(chunk_size=1)
    large = await worker.submit([f"l{n}" for n in range(100)], options=options)
    small = await worker.submit(["s"], options=options)

    [first, second, *_] = await worker.store.chunks.next_chunks(now=clock.now(), limit=10)
    claimed = await worker.store.chunks.claim(
        [first.chunk_key, second.chunk_key], owner="test", now=clock.now(), lease=STEP
    )

    assert [chunk.batch_key for chunk in claimed.chunks] == [large.key, small.key]


SLOTS = 25
CHUNK = timedelta(seconds=20)
"""How long 25 workers take for 50 items that take 10 seconds each."""


async def start_slow(start_worker: StartWorker, clock: FakeClock) -> Worker:
    """Returns a worker of which nothing is taken but by the test, and whose items are slow."""
    worker = await start_worker(FakeProcessor(), slots=SLOTS, clock=clock)
    await worker.engine.stop_claims()
    measured = MeasuredAttempts(
        tenant_id=TENANT, template_id="scripted", count=100, micros=100 * 10_000_000
    )
    await worker.store.item_durations.learn([measured], now=clock.now())
    return worker


async def do_next_chunk(worker: Worker, clock: FakeClock) -> int:
    """Takes the next chunk, does its items, and returns the key of its batch."""
    [chunk] = await worker.store.chunks.next_chunks(now=clock.now(), limit=1)
    await worker.store.chunks.claim(
        [chunk.chunk_key], owner="test", now=clock.now(), lease=timedelta(hours=1)
    )
    clock.advance(CHUNK)
    return chunk.batch_key


async def submit_many(worker: Worker, count: int, **options: Any) -> Batch:
    names = [f"i{number}" for number in range(count)]
    return await worker.submit(names, options=RequestedOptions(chunk_size=50, **options))


@pytest.mark.parametrize("head_start", [1, 3, 10])
async def test_a_small_batch_waits_for_no_more_of_a_slow_large_one_than_is_in_hand(
    start_worker: StartWorker, clock: FakeClock, head_start: int
):
    # The story: chunks stood a second apart, though one took 20 seconds. A small batch that came
    # a minute later stood behind 60 of them and waited for 20 minutes.
    worker = await start_slow(start_worker, clock)
    await submit_many(worker, 2000)
    for _ in range(head_start):
        await do_next_chunk(worker, clock)
    clock.advance(SECOND)
    small = await submit_many(worker, 2)

    waited_from = clock.now()
    while await do_next_chunk(worker, clock) != small.key:
        pass

    assert clock.now() - waited_from <= 2 * CHUNK


async def test_an_endless_flow_of_small_batches_does_not_starve_a_slow_large_one(
    start_worker: StartWorker, clock: FakeClock
):
    worker = await start_slow(start_worker, clock)
    large = await submit_many(worker, 1000)

    done = []
    for _ in range(40):  # as many as the workers could do if there were nothing else
        await submit_many(worker, 2)
        done.append(await do_next_chunk(worker, clock))

    assert done.count(large.key) == len(done) // 2


async def test_of_a_batch_that_may_use_one_worker_the_chunks_stand_as_far_apart_as_that_takes(
    start_worker: StartWorker, clock: FakeClock
):
    worker = await start_slow(start_worker, clock)

    bounded = await submit_many(worker, 100, max_concurrent_items=1)

    assert bounded.request.options.chunk_duration == timedelta(seconds=500)


async def test_what_items_take_is_learnt_and_outlives_the_server(
    start_worker: StartWorker, clock: FakeClock
):
    def takes_a_minute(call: ItemCall) -> ItemResult:
        clock.advance(timedelta(minutes=1))
        return ItemResult(value=call.data)

    names = [f"i{number}" for number in range(4)]
    work = FakeProcessor({name: [takes_a_minute] for name in names})
    worker = await start_worker(work, slots=1, clock=clock)
    first = await worker.submit(names, options=RequestedOptions(chunk_size=2))
    await worker.end_of(first)
    await worker.stop()

    worker = await start_worker(FakeProcessor(), slots=1, clock=clock)
    second = await worker.submit(names, options=RequestedOptions(chunk_size=2))

    assert first.request.options.chunk_duration == SECOND, "half a second an item, by default"
    assert second.request.options.chunk_duration == timedelta(minutes=2)
