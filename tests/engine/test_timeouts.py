"""Time that is over: of batches, of attempts, of processors that do not stop; and time to wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import orjson
import pytest
from batchwork_server.domain.batch import BatchState, Counts
from batchwork_server.domain.item import ItemState
from batchwork_server.domain.retry import RequestedRetry
from batchwork_server.engine import engine as engine_module
from batchwork_server.engine.engine import Engine
from batchwork_server.engine.hands import GRACE
from batchwork_server.errors import ItemFailed
from batchwork_server.ports import ItemCall, ItemResult

from tests.engine.conftest import RequestedOptions, StartWorker, calls_of, gated
from tests.fakes import FakeClock, FakeProcessor

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


class Stubborn(FakeProcessor):
    """Takes no notice of a cancellation while it has one of its items in hand.

    Attributes:
        released: Ends that, for good.
        cancelled: Set when it was cancelled and went on.
    """

    def __init__(self, *stubborn_at: str) -> None:
        super().__init__()
        self.released = asyncio.Event()
        self.cancelled = asyncio.Event()
        self._stubborn_at = stubborn_at

    async def process(self, call: ItemCall) -> ItemResult:
        if call.item_id in self._stubborn_at:
            self.started.set()
            while not self.released.is_set():
                try:
                    await self.released.wait()
                except asyncio.CancelledError:
                    self.cancelled.set()
        return await super().process(call)


@asynccontextmanager
async def stubborn(*item_ids: str) -> AsyncIterator[Stubborn]:
    """Releases what was held at the end, so that no task of the test is left."""
    work = Stubborn(*item_ids)
    try:
        yield work
    finally:
        work.released.set()
        for _ in range(20):
            await asyncio.sleep(0)


async def settled() -> None:
    """Lets everybody go on who can."""
    for _ in range(50):
        await asyncio.sleep(0)


async def look(clock: FakeClock, times: int) -> None:
    """Lets time pass in which the engine looks so often at what its workers do."""
    for _ in range(times):
        clock.advance(Engine.WATCH_INTERVAL)
        await settled()


# Of batches


@pytest.mark.arrow("batch R", "batch U", "item N")
async def test_a_batch_whose_time_is_over_expires_and_keeps_its_results(
    start_worker: StartWorker, clock: FakeClock
):
    work = FakeProcessor()
    worker = await start_worker(work, slots=1, clock=clock)

    def hold(call: ItemCall) -> ItemResult:
        work.gate = asyncio.Event()  # the items after this one wait
        return ItemResult(value=call.data)

    work.on("i0", hold)
    batch = await worker.submit(
        [f"i{n}" for n in range(6)],
        options=RequestedOptions(
            chunk_size=1, max_concurrent_items=1, batch_timeout=MINUTE, item_timeout=HOUR
        ),
    )
    running = await worker.until(batch, lambda batch: batch.counts.succeeded == 1)
    await calls_of(work, 2)

    clock.advance(MINUTE)
    await worker.deadlines.run_once()
    expiring = await worker.until(batch, lambda batch: batch.counts.expired >= 4)
    work.gate.set()
    batch = await worker.end_of(batch)

    assert running.expire_time == batch.create_time + MINUTE
    assert (expiring.state, expiring.state_reason) == (BatchState.CANCELLING, "BATCH_TIMEOUT")
    assert (batch.state, batch.state_reason) == (BatchState.EXPIRED, "BATCH_TIMEOUT")
    assert (batch.counts.succeeded, batch.counts.expired) == (2, 4), "what was in flight counts"
    items = await worker.items(batch)
    assert [item.state for item in items[2:]] == [ItemState.EXPIRED] * 4
    assert orjson.loads(items[0].result_json or "") == {"id": "i0"}


@pytest.mark.arrow("batch W")
@pytest.mark.parametrize(
    ("failing", "state"),
    [
        ((), BatchState.SUCCEEDED),
        (("i0",), BatchState.PARTIALLY_SUCCEEDED),
        (("i0", "i1"), BatchState.FAILED),
    ],
)
async def test_a_batch_whose_last_items_were_in_flight_at_its_end_did_not_expire(
    start_worker: StartWorker, clock: FakeClock, failing: tuple[str, ...], state: BatchState
):
    work = FakeProcessor({item_id: [ItemFailed("BAD")] for item_id in failing})
    worker = await start_worker(work, slots=2, clock=clock)
    async with gated(work):
        batch = await worker.submit(
            ["i0", "i1"], options=RequestedOptions(batch_timeout=MINUTE, item_timeout=HOUR)
        )
        await calls_of(work, 2)
        clock.advance(MINUTE)
        await worker.deadlines.run_once()
        closing = await worker.until(batch, lambda batch: batch.closing is not None)
    batch = await worker.end_of(batch)

    assert closing.state is BatchState.CANCELLING
    assert (batch.state, batch.state_reason) == (state, "")
    assert batch.counts.expired == 0


# Of attempts


async def test_an_attempt_that_takes_too_long_leaves_the_others_alone(start_worker: StartWorker):
    work = FakeProcessor()
    worker = await start_worker(work, slots=2)

    async def forever(call: ItemCall) -> ItemResult:
        if call.item_id == "i1":
            await asyncio.Event().wait()
        return ItemResult(value=call.item_id)

    work.process = forever  # type: ignore[method-assign]
    batch = await worker.submit(
        ["i0", "i1", "i2"],
        options=RequestedOptions(item_timeout=timedelta(milliseconds=1), retry_limit=0),
    )
    batch = await worker.finish(batch)

    assert batch.counts == Counts(total=3, succeeded=2, failed=1)
    item = await worker.store.batches.get_item(batch, "i1")
    assert (item.error.reason, item.error.retryable) == ("ITEM_TIMEOUT", True)


async def test_a_reason_that_the_policy_names_is_not_tried_again(start_worker: StartWorker):
    refused = ItemFailed("QUOTA_EMPTY", "No credit.", retryable=True)
    work = FakeProcessor({"i0": [refused], "i1": [ItemFailed("BUSY", retryable=True)]})
    worker = await start_worker(work)
    batch = await worker.submit(
        ["i0", "i1"],
        options=RequestedOptions(
            retry=RequestedRetry(non_retryable_reasons=frozenset({"QUOTA_EMPTY"}))
        ),
    )

    batch = await worker.finish(batch)

    assert batch.counts == Counts(total=2, succeeded=1, failed=1, retries=1)
    assert (work.attempts("i0"), work.attempts("i1")) == (1, 2)


async def test_a_retry_that_waits_holds_no_slot_and_survives_a_restart(
    start_worker: StartWorker, clock: FakeClock
):
    later = ItemFailed("BUSY", retryable=True, retry_after=HOUR)
    first_work = FakeProcessor({"i0": [later]})
    first = await start_worker(first_work, slots=1, clock=clock)
    batch = await first.submit(["i0"])
    waiting = await first.until(batch, lambda batch: batch.counts.retries == 1)

    other = await first.end_of(await first.submit(["j0", "j1"]))
    await first.stop()
    second = await start_worker(slots=1, clock=clock)
    clock.advance(HOUR - SECOND)
    third = await second.end_of(await second.submit(["k0"]))
    early = second.work.attempts("i0")
    clock.advance(SECOND)
    batch = await second.end_of(batch)

    assert waiting.counts == Counts(total=1, pending=1, retries=1)
    assert (other.counts.succeeded, third.counts.succeeded, early) == (2, 1, 0)
    assert batch.counts == Counts(total=1, succeeded=1, retries=1)
    item = await second.store.batches.get_item(batch, "i0")
    assert [attempt.number for attempt in item.attempts] == [1, 2]
    assert [call.attempt for call in second.work.calls if call.item_id == "i0"] == [2]


# Of processors that do not stop


@pytest.mark.arrow("item K")
async def test_an_attempt_that_swallows_its_cancellation_is_given_up_and_its_slot_replaced(
    start_worker: StartWorker, clock: FakeClock
):
    async with stubborn("i0") as work:
        worker = await start_worker(work, slots=1, clock=clock)
        batch = await worker.submit(
            ["i0", "i1"],
            options=RequestedOptions(item_timeout=timedelta(milliseconds=1), retry_limit=3),
        )
        await work.cancelled.wait()

        await look(clock, GRACE + 1)
        batch = await worker.end_of(batch)

        assert batch.counts == Counts(total=2, succeeded=1, failed=1)
        item = await worker.store.batches.get_item(batch, "i0")
        assert (item.error.reason, item.error.retryable) == ("ITEM_TIMEOUT", False)
        assert worker.engine.is_running
        work.released.set()
        for _ in range(20):
            await asyncio.sleep(0)
        again = await worker.end_of(await worker.submit(["j0", "j1"]))
        assert again.counts.succeeded == 2
        late = await worker.store.batches.get_item(batch, "i0")
        assert late == item, "what comes of it afterwards counts no more"


async def test_an_attempt_that_ends_when_it_is_cancelled_is_not_given_up(
    start_worker: StartWorker, clock: FakeClock
):
    work = FakeProcessor()
    worker = await start_worker(work, slots=1, clock=clock)
    cancelled, cleaned = asyncio.Event(), asyncio.Event()

    async def clean_up(call: ItemCall) -> ItemResult:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
            await cleaned.wait()
        raise AssertionError("it was cancelled")

    work.process = clean_up  # type: ignore[method-assign]
    batch = await worker.submit(
        ["i0"], options=RequestedOptions(item_timeout=timedelta(milliseconds=1), retry_limit=0)
    )
    await cancelled.wait()
    await look(clock, GRACE)
    cleaned.set()
    batch = await worker.end_of(batch)

    [item] = await worker.items(batch)
    assert (item.error.reason, item.error.retryable) == ("ITEM_TIMEOUT", True)


async def test_a_server_that_was_frozen_gives_nobody_up(
    start_worker: StartWorker, clock: FakeClock
):
    # The story: the clock went on while the process was stopped, or its event loop held up. Items
    # failed for good, for not having heeded a cancellation that nobody had sent them yet.
    work = FakeProcessor()
    worker = await start_worker(work, slots=1, clock=clock)
    async with gated(work):
        batch = await worker.submit(["i0"], options=RequestedOptions(item_timeout=MINUTE))
        await calls_of(work, 1)
        clock.advance(HOUR)
        await look(clock, 2 * GRACE)
    batch = await worker.end_of(batch)

    assert batch.counts == Counts(total=1, succeeded=1)


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
async def test_a_batch_whose_attempts_swallow_the_stop_ends_all_the_same(
    start_worker: StartWorker, clock: FakeClock, again: bool
):
    # The story: whatever was heard of the batch after the first stop raised, out of the second
    # CancelBatch too, and the batch stayed CANCELLING for as long as its items were allowed.
    async with stubborn("i0") as work:
        worker = await start_worker(work, slots=1, clock=clock)
        batch = await worker.submit(["i0", "i1"], options=RequestedOptions(item_timeout=HOUR))
        await work.started.wait()

        await worker.cancel(batch, stop_in_flight=True)
        await work.cancelled.wait()
        if again:
            await worker.cancel(batch, stop_in_flight=True)
        await look(clock, GRACE + 1)
        batch = await worker.end_of(batch)

        assert batch.state is BatchState.CANCELLED
        assert batch.counts == Counts(total=2, cancelled=2)
        assert worker.engine.is_running


async def test_an_attempt_that_does_not_end_holds_up_no_stop_and_no_item(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine_module, "CANCEL_GRACE", timedelta(0))
    async with stubborn("i0") as work:
        worker = await start_worker(work, slots=2)
        batch = await worker.submit(["i0", "i1"])
        await work.started.wait()

        async with asyncio.timeout(30):
            await worker.stop(grace=timedelta(0))

        kept, counted = await worker.store.chunks.check_counts(batch.key)
        assert kept == counted
        assert (kept.running, kept.failed) == (0, 0)
        heir = await start_worker()
        batch = await heir.end_of(batch)
        assert batch.counts == Counts(total=2, succeeded=2)
