"""Who goes first, and that whoever goes last has a longest wait, with a clock that is moved."""

from __future__ import annotations

from datetime import timedelta

import pytest
from batchwork_server.domain.batch import HANDICAPS, Priority
from batchwork_server.domain.submission import RequestedOptions

from tests.engine.conftest import StartWorker
from tests.fakes import START, FakeClock, FakeProcessor

STEP = timedelta(seconds=10)


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
