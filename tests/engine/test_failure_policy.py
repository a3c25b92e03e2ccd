"""A batch in which too many items fail is stopped, on each database."""

from __future__ import annotations

import asyncio

import pytest
from batchwork_server.domain.batch import Batch, BatchState, Counts
from batchwork_server.domain.failure import FailureAction, FailurePolicy
from batchwork_server.domain.item import ItemState
from batchwork_server.errors import ItemFailed
from batchwork_server.ports import ItemCall, ItemResult

from tests.engine.conftest import RequestedOptions, StartWorker, Worker
from tests.fakes import FakeProcessor


class Failing(FakeProcessor):
    """Fails every item, and after each few holds the next one until it is told to go on.

    Args:
        hold_after: After how many failures.
    """

    def __init__(self, *, hold_after: int) -> None:
        super().__init__()
        self._left = hold_after

    def go_on(self, *, hold_after: int) -> None:
        self._left = hold_after
        if self.gate is not None:
            self.gate.set()

    async def process(self, call: ItemCall) -> ItemResult:
        await super().process(call)
        self._left -= 1
        if not self._left:
            self.gate = asyncio.Event()
        raise ItemFailed("BAD_ADDRESS", "It has no @.")


class Rejecting(FakeProcessor):
    """Fails every item, or every other one: at once, or after it has let all others begin."""

    def __init__(self, *, waits: bool = False, every_other: bool = False) -> None:
        super().__init__()
        self._waits = waits
        self._every_other = every_other

    async def process(self, call: ItemCall) -> ItemResult:
        self.calls.append(call)
        fails = not (self._every_other and len(self.calls) % 2)
        if self._waits:
            await asyncio.sleep(0)
        if fails:
            raise ItemFailed("BAD_ADDRESS")
        return ItemResult(value={})


async def stopped(worker: Worker, policy: FailurePolicy, *, state: BatchState) -> Batch:
    """Returns what a large batch of fast items came to with the options of a server."""
    batch = await worker.submit(
        [f"i{n}" for n in range(3000)],
        options=RequestedOptions(chunk_size=100, failure_policy=policy),
    )
    return await worker.until(
        batch, lambda batch: batch.state is state and not batch.counts.running
    )


def options(policy: FailurePolicy) -> RequestedOptions:
    return RequestedOptions(chunk_size=1, max_concurrent_items=1, failure_policy=policy)


@pytest.mark.arrow("batch K")
async def test_one_failure_too_many_pauses_the_batch(start_worker: StartWorker):
    work = Failing(hold_after=3)
    worker = await start_worker(work, slots=1)
    told = worker.told(BatchState.PAUSED)
    batch = await worker.submit(
        [f"i{n}" for n in range(10)], options=options(FailurePolicy(max_failed=2))
    )

    await told.wait()
    paused = await worker.until(batch, lambda batch: batch.state is BatchState.PAUSED)
    work.go_on(hold_after=100)
    idle = await worker.until(batch, lambda batch: batch.counts.running == 0)

    assert (paused.state_reason, paused.counts.failed) == ("FAILURE_POLICY", 3)
    assert paused.state_message == "3 of 3 items failed."
    assert paused.resume_time is None
    assert idle.state is BatchState.PAUSED, "the item in flight finished, no other started"
    assert len(work.calls) <= 4


@pytest.mark.parametrize("waits", [False, True], ids=["items fail at once", "items wait first"])
@pytest.mark.parametrize(
    ("action", "state"),
    [(FailureAction.PAUSE, BatchState.PAUSED), (FailureAction.FAIL, BatchState.FAILED)],
)
async def test_no_more_items_fail_than_may_and_are_in_flight(
    start_worker: StartWorker, waits: bool, action: FailureAction, state: BatchState
):
    """Only a commit looked: of fast items thousands had failed by then."""
    slots = 25
    worker = await start_worker(Rejecting(waits=waits), slots=slots)

    batch = await stopped(worker, FailurePolicy(max_failed=10, action=action), state=state)

    in_flight = slots if waits else 1
    assert 10 < batch.counts.failed <= 10 + in_flight
    assert batch.state_reason == "FAILURE_POLICY"


async def test_a_ratio_is_exceeded_by_what_is_in_flight_at_most(start_worker: StartWorker):
    slots = 25
    worker = await start_worker(Rejecting(waits=True, every_other=True), slots=slots)
    policy = FailurePolicy(max_failed_ratio=0.4, min_sample=40)

    batch = await stopped(worker, policy, state=BatchState.PAUSED)

    assert 40 <= batch.counts.failed + batch.counts.succeeded <= 40 + slots


async def test_a_batch_that_is_resumed_goes_on_after_it_was_stopped_before_a_commit(
    start_worker: StartWorker,
):
    worker = await start_worker(Rejecting(), slots=25)
    batch = await stopped(worker, FailurePolicy(max_failed=10), state=BatchState.PAUSED)
    failed = []

    for _ in range(5):
        failed.append(batch.counts.failed)
        resumed = await worker.resume(batch)
        batch = await worker.until(
            batch,
            lambda batch: (
                batch.state is BatchState.PAUSED
                and batch.sequence > resumed.sequence  # noqa: B023
                and not batch.counts.running
            ),
        )

    assert failed == [11, 22, 33, 44, 55]


async def test_as_many_failures_as_are_allowed_stop_nothing(worker: Worker):
    for item_id in ("i1", "i2"):
        worker.work.on(item_id, ItemFailed("BAD_ADDRESS"))
    batch = await worker.submit(["i0", "i1", "i2"], options=options(FailurePolicy(max_failed=2)))

    batch = await worker.finish(batch)

    assert batch.state is BatchState.PARTIALLY_SUCCEEDED
    assert batch.counts == Counts(total=3, succeeded=1, failed=2)


async def test_the_ratio_counts_from_the_smallest_sample_on(start_worker: StartWorker):
    work = Failing(hold_after=3)
    worker = await start_worker(work, slots=1)
    policy = FailurePolicy(max_failed_ratio=0.5, min_sample=4)
    batch = await worker.submit([f"i{n}" for n in range(10)], options=options(policy))

    three_of_three = await worker.until(batch, lambda batch: batch.counts.failed == 3)
    work.go_on(hold_after=1)
    paused = await worker.until(batch, lambda batch: batch.state is BatchState.PAUSED)

    assert three_of_three.state is BatchState.RUNNING
    assert (paused.counts.failed, paused.state_message) == (4, "4 of 4 items failed.")


async def test_a_ratio_that_is_not_exceeded_stops_nothing(worker: Worker):
    for item_id in ("i1", "i2"):
        worker.work.on(item_id, ItemFailed("BAD_ADDRESS"))
    policy = FailurePolicy(max_failed_ratio=0.5, min_sample=4)
    batch = await worker.submit([f"i{n}" for n in range(4)], options=options(policy))

    batch = await worker.finish(batch)

    assert batch.counts == Counts(total=4, succeeded=2, failed=2)


async def test_a_resumed_batch_may_fail_as_often_again(start_worker: StartWorker):
    work = Failing(hold_after=3)
    worker = await start_worker(work, slots=1)
    paused = worker.told(BatchState.PAUSED)
    batch = await worker.submit(
        [f"i{n}" for n in range(20)], options=options(FailurePolicy(max_failed=2))
    )
    await paused.wait()
    work.go_on(hold_after=100)
    first = await worker.until(batch, lambda batch: batch.counts.running == 0)

    work.go_on(hold_after=3)
    resumed = await worker.resume(batch)
    second = await worker.until(
        batch, lambda batch: batch.state is BatchState.PAUSED and batch.counts.failed > 5
    )

    assert (resumed.state, resumed.state_reason) == (BatchState.RUNNING, "")
    assert second.counts.failed - first.counts.failed == 3
    assert second.state_message == "3 of 3 items failed."


@pytest.mark.arrow("batch S", "batch V")
async def test_a_batch_that_is_to_fail_ends_and_keeps_what_it_has(start_worker: StartWorker):
    work = FakeProcessor()
    worker = await start_worker(work, slots=1)
    gate, cancelling = asyncio.Event(), worker.told(BatchState.CANCELLING)

    def fail(call: ItemCall) -> ItemResult:
        work.gate = gate  # the items after this one wait
        raise ItemFailed("BAD_ADDRESS")

    work.on("i1", fail)
    failing = FailurePolicy(max_failed=0, action=FailureAction.FAIL)
    batch = await worker.submit([f"i{n}" for n in range(10)], options=options(failing))
    await cancelling.wait()
    gate.set()
    batch = await worker.finish(batch)

    assert (batch.state, batch.state_reason) == (BatchState.FAILED, "FAILURE_POLICY")
    assert batch.state_message == "1 of 2 items failed."
    assert batch.counts.failed == 1
    assert batch.counts.cancelled >= 7, "what was not attempted is cancelled"
    items = await worker.items(batch)
    assert [item.state for item in items[:2]] == [ItemState.SUCCEEDED, ItemState.FAILED]


async def test_a_batch_that_is_to_go_on_says_that_too_many_failed_once_and_at_its_end(
    worker: Worker,
):
    for n in range(6):
        worker.work.on(f"i{n}", ItemFailed("BAD_ADDRESS"))
    going_on = FailurePolicy(max_failed=1, action=FailureAction.CONTINUE)
    batch = await worker.submit([f"i{n}" for n in range(8)], options=options(going_on))

    batch = await worker.finish(batch)

    events = await worker.store.batches.events(batch.key, after=0, limit=100)
    said = [event for event in events if event.state_reason and event.kind == "STATE_CHANGED"]
    assert [(event.state, event.state_reason) for event in said] == [
        (BatchState.RUNNING, "FAILURE_POLICY"),
        (BatchState.PARTIALLY_SUCCEEDED, "FAILURE_POLICY"),
    ]
    assert batch.state_message == "6 of 8 items failed."
    assert batch.state is BatchState.PARTIALLY_SUCCEEDED
    assert batch.counts == Counts(total=8, failed=6, succeeded=2)


async def test_attempts_that_are_tried_again_do_not_count_as_failures(worker: Worker):
    for n in range(5):
        worker.work.on(f"i{n}", ItemFailed("BUSY", retryable=True))
    batch = await worker.submit(
        [f"i{n}" for n in range(5)], options=options(FailurePolicy(max_failed=0))
    )

    batch = await worker.finish(batch)

    assert batch.counts == Counts(total=5, succeeded=5, retries=5)
