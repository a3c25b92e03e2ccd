"""Batches that are over and are tried again, on each database."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from batchwork_server.domain.batch import Batch, BatchState, Counts
from batchwork_server.domain.item import ItemState
from batchwork_server.errors import ItemFailed, NothingMatches, ProviderUnavailable
from batchwork_server.store import events
from batchwork_server.store.tables import outcomes
from sqlalchemy import select

from tests.engine.conftest import RequestedOptions, StartWorker, Worker, calls_of, gated
from tests.fakes import FakeClock, FakeProcessor

MINUTE = timedelta(minutes=1)


def bad(reason: str = "BAD_ADDRESS") -> ItemFailed:
    return ItemFailed(reason, "It has no @.")


def busy() -> ItemFailed:
    return ItemFailed("BUSY", "Come back later.", retryable=True)


async def outcome_rows(worker: Worker, batch: Batch, state: ItemState) -> list[tuple[Any, ...]]:
    """Returns what the database holds of the items in a state."""
    query = select(outcomes).where(
        outcomes.c.batch_key == batch.key, outcomes.c.state == str(state)
    )
    async with worker.store.transaction() as tx:
        rows = await tx.connection.execute(query.order_by(outcomes.c.item_index))
        return [tuple(row) for row in rows]


@pytest.mark.arrow("item O")
async def test_only_what_failed_runs_again_and_the_rest_is_untouched(worker: Worker):
    worker.work.on("i1", bad())
    worker.work.on("i3", bad())
    batch = await worker.finish(await worker.submit([f"i{n}" for n in range(25)]))
    before = await outcome_rows(worker, batch, ItemState.SUCCEEDED)
    worker.work.calls.clear()

    reopened, count = await worker.retry(batch)
    done = await worker.finish(batch)

    assert (reopened.state, reopened.attempt_number, count) == (BatchState.PENDING, 2, 2)
    assert reopened.counts == Counts(total=25, pending=2, succeeded=23, retries=2)
    assert (reopened.end_time, done.state) == (None, BatchState.SUCCEEDED)
    assert done.counts == Counts(total=25, succeeded=25, retries=2)
    assert sorted(call.item_id for call in worker.work.calls) == ["i1", "i3"]
    after = await outcome_rows(worker, batch, ItemState.SUCCEEDED)
    assert [row for row in after if row in before] == before


@pytest.mark.parametrize(
    ("matching", "chosen"),
    [
        pytest.param({"error_reason": "BAD_ADDRESS"}, ["i1"], id="reason"),
        pytest.param({"item_ids": ("i2", "i0")}, ["i2"], id="ids of items, not those that did"),
        pytest.param({"item_ids": ("i1", "i2")}, ["i1", "i2"], id="several ids"),
        pytest.param({"states": (ItemState.FAILED, ItemState.EXPIRED)}, ["i1", "i2"], id="states"),
    ],
)
async def test_only_what_the_filter_names_runs_again(
    worker: Worker, matching: dict[str, Any], chosen: list[str]
):
    worker.work.on("i1", bad())
    worker.work.on("i2", bad("TOO_LONG"))
    batch = await worker.finish(await worker.submit(["i0", "i1", "i2"]))
    worker.work.calls.clear()

    _, count = await worker.retry(batch, **matching)
    done = await worker.finish(batch)

    assert sorted(call.item_id for call in worker.work.calls) == chosen
    assert count == len(chosen)
    assert done.counts.failed == 2 - count


@pytest.mark.parametrize(
    "matching",
    [{"error_reason": "BUSY"}, {"item_ids": ("i0",)}, {"user_id": "ada"}],
    ids=lambda matching: next(iter(matching)),
)
async def test_a_filter_that_names_nothing_that_failed_changes_nothing(
    worker: Worker, matching: dict[str, Any]
):
    worker.work.on("i1", bad())
    batch = await worker.finish(await worker.submit(["i0", "i1"]))

    with pytest.raises(NothingMatches):
        await worker.retry(batch, **matching)

    assert await worker.until(batch, lambda batch: True) == batch


async def test_the_history_of_attempts_goes_on_with_a_new_budget_of_retries(worker: Worker):
    worker.work.on("i0", busy(), busy(), busy(), busy())
    batch = await worker.submit(["i0"], options=RequestedOptions(retry_limit=1))
    first = await worker.finish(batch)

    await worker.retry(batch)
    second = await worker.finish(batch)
    item = await worker.store.batches.get_item(batch, "i0")

    assert (first.state, second.state) == (BatchState.FAILED, BatchState.FAILED)
    assert (first.counts.retries, second.counts.retries) == (1, 3)
    assert item.attempt_count == 4
    assert [attempt.number for attempt in item.attempts] == [1, 2, 3, 4]
    assert {attempt.error.reason for attempt in item.attempts} == {"BUSY"}
    assert [call.attempt for call in worker.work.calls] == [1, 2, 3, 4]
    assert len({call.idempotency_key for call in worker.work.calls}) == 1


async def test_a_batch_can_be_tried_again_more_than_once(worker: Worker):
    worker.work.on("i0", bad(), bad())
    worker.work.on("i1", bad(), bad(), bad())
    batch = await worker.finish(await worker.submit(["i0", "i1", "i2"]))

    second, second_count = await worker.retry(batch)
    after_second = await worker.finish(batch)
    third, third_count = await worker.retry(batch)
    after_third = await worker.finish(batch)
    fourth, fourth_count = await worker.retry(batch)
    done = await worker.finish(batch)

    assert [each.attempt_number for each in (second, third, fourth)] == [2, 3, 4]
    assert [second_count, third_count, fourth_count] == [2, 2, 1]
    assert after_second.counts == Counts(total=3, succeeded=1, failed=2, retries=2)
    assert after_third.counts == Counts(total=3, succeeded=2, failed=1, retries=4)
    assert done.counts == Counts(total=3, succeeded=3, retries=5)
    assert done.state is BatchState.SUCCEEDED


async def test_what_a_cancellation_left_can_be_processed_later(start_worker: StartWorker):
    work = FakeProcessor()
    worker = await start_worker(work, slots=2)
    async with gated(work):
        batch = await worker.submit([f"i{n}" for n in range(25)])
        await calls_of(work, 2)
        await worker.cancel(batch)
    cancelled = await worker.finish(batch)

    reopened, count = await worker.retry(batch, states=(ItemState.CANCELLED,))
    done = await worker.finish(batch)

    assert cancelled.state is BatchState.CANCELLED
    assert count == cancelled.counts.cancelled == 23
    assert (reopened.state_reason, reopened.closing, reopened.stop_in_flight) == ("", None, False)
    assert done.counts == Counts(total=25, succeeded=25)
    assert len(work.calls) == 25


async def test_a_batch_that_was_stopped_in_flight_can_be_stopped_again(start_worker: StartWorker):
    work = FakeProcessor()
    worker = await start_worker(work, slots=2)
    async with gated(work):
        batch = await worker.submit(["i0", "i1", "i2"])
        for attempt in range(1, 4):
            await calls_of(work, 2 * attempt)
            await worker.cancel(batch, stop_in_flight=True)
            cancelled = await worker.finish(batch)
            assert cancelled.counts == Counts(total=3, cancelled=3)
            await worker.retry(batch, states=(ItemState.CANCELLED,))
    done = await worker.finish(batch)

    assert done.counts == Counts(total=3, succeeded=3)
    assert {item.attempt_count for item in await worker.items(done)} == {1}


async def test_an_expired_batch_that_is_tried_again_has_its_whole_time_again(
    start_worker: StartWorker, clock: FakeClock
):
    work = FakeProcessor()
    worker = await start_worker(work, slots=1, clock=clock)
    async with gated(work):
        batch = await worker.submit(
            ["i0", "i1", "i2"],
            options=RequestedOptions(
                chunk_size=1, batch_timeout=MINUTE, item_timeout=timedelta(hours=1)
            ),
        )
        await calls_of(work, 1)
        clock.advance(MINUTE)
        await worker.deadlines.run_once()
        await worker.until(batch, lambda batch: batch.counts.expired == 2)
    expired = await worker.end_of(batch)

    reopened, count = await worker.retry(batch, states=(ItemState.EXPIRED,))
    done = await worker.end_of(batch)

    assert (expired.state, expired.expire_time) == (BatchState.EXPIRED, None)
    assert count == 2
    assert reopened.expire_time == clock.now() + MINUTE
    assert done.counts == Counts(total=3, succeeded=3)


async def test_many_scattered_items_are_told_of_in_events_of_bounded_size(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(events, "MOST_RANGES", 3)
    scattered = range(0, 16, 2)
    for n in scattered:
        worker.work.on(f"i{n}", bad())
    batch = await worker.finish(await worker.submit([f"i{n}" for n in range(16)]))

    reopened, count = await worker.retry(batch)
    done = await worker.finish(batch)

    told = await worker.store.batches.events(batch.key, after=batch.sequence, limit=3)
    assert count == 8
    assert [(event.kind, event.event_type) for event in told] == [
        ("STATE_CHANGED", "batch:retried"),
        ("PROGRESS", "batch:retried"),
        ("PROGRESS", "batch:retried"),
    ]
    assert reopened.sequence == told[-1].sequence == batch.sequence + 3
    assert [first for event in told for first, _ in event.reopened] == list(scattered)
    assert [len(event.reopened) for event in told] == [3, 3, 2]
    assert done.state is BatchState.SUCCEEDED


async def test_pauses_of_an_earlier_attempt_do_not_make_later_ones_longer(
    start_worker: StartWorker, clock: FakeClock
):
    """A batch that was tried again went on to double the pauses that it had had before."""
    away = ProviderUnavailable("NO_ANSWER")
    work = FakeProcessor({"i0": [away, away, bad(), away]})
    worker = await start_worker(work, slots=1, clock=clock)
    batch = await worker.submit(["i0"])
    for pause in (30, 60):
        await worker.until(batch, lambda batch: batch.resume_time is not None)
        clock.advance(timedelta(seconds=pause))
        await worker.deadlines.run_once()
    failed = await worker.end_of(batch)

    reopened, _ = await worker.retry(failed)
    paused = await worker.until(batch, lambda batch: batch.resume_time is not None)

    assert reopened.provider_pauses == 0
    assert paused.resume_time == clock.now() + timedelta(seconds=30)
