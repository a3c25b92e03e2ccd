"""Batches that end before their items are done: cancelled or expired, on each database."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from batchwork_server.domain.batch import Batch, BatchState, Counts, StateReason
from batchwork_server.domain.filters import ItemFilter
from batchwork_server.domain.item import ItemState
from batchwork_server.store import closing
from batchwork_server.store.sql_store import SqlStore

from tests.fakes import START
from tests.store.test_chunks import SECOND, claim, current, failed, insert, record_of, succeeded


async def close(store: SqlStore, batch: Batch, **changes: Any) -> Batch | None:
    defaults: dict[str, Any] = {
        "closing": BatchState.CANCELLED,
        "reason": StateReason.CANCELLED_BY_CALLER,
        "message": "",
        "stop_in_flight": False,
        "now": START,
    }
    async with store.transaction() as tx:
        return await store.changes.close(tx, batch.key, **defaults | changes)


async def close_all(store: SqlStore, *, now=START) -> int:
    """Closes what is left, and returns in how many transactions."""
    count = 0
    while await store.changes.close_some(now=now):
        count += 1
    return count


async def states(store: SqlStore, batch: Batch) -> list[ItemState]:
    items, _ = await store.batches.list_items(batch, ItemFilter(), page_size=100, after=None)
    return [item.state for item in items]


@pytest.mark.arrow("batch Q", "batch T", "item M")
async def test_a_batch_that_has_not_begun_can_be_cancelled(store):
    batch = await insert(store, 20)

    cancelling = await close(store, batch, message="Wrong list.")
    nothing_to_take = await store.chunks.next_chunks(now=START, limit=10)
    await close_all(store)

    assert cancelling.state is BatchState.CANCELLING
    assert nothing_to_take == []
    batch = await current(store, batch)
    assert (batch.state, batch.state_message) == (BatchState.CANCELLED, "Wrong list.")
    assert batch.counts == Counts(total=20, cancelled=20)
    assert set(await states(store, batch)) == {ItemState.CANCELLED}


async def test_a_cancelled_batch_ends_when_its_items_in_flight_are_accounted_for(store):
    batch = await insert(store, 20)
    [running] = await claim(store, limit=1)

    await close(store, batch)
    await close_all(store)
    halfway = await current(store, batch)
    await store.chunks.record([record_of(running, [succeeded(n) for n in range(10)])], now=START)

    assert halfway.state is BatchState.CANCELLING
    assert halfway.counts == Counts(total=20, running=10, cancelled=10)
    batch = await current(store, batch)
    assert batch.state is BatchState.CANCELLED
    assert batch.counts == Counts(total=20, succeeded=10, cancelled=10)
    assert await close(store, batch) is None


async def test_what_is_given_back_after_a_cancellation_is_closed_too(store):
    batch = await insert(store, 10)
    [running] = await claim(store)
    await close(store, batch)

    given_back = record_of(
        running,
        [succeeded(0)],
        done=False,
        release=True,
        returned=9,
        due_time=START,
        dispatch_time=START,
    )
    await store.chunks.record([given_back], now=START)

    assert await claim(store) == []
    await close_all(store)
    batch = await current(store, batch)
    assert batch.state is BatchState.CANCELLED
    assert batch.counts == Counts(total=10, succeeded=1, cancelled=9)


async def test_a_cancelled_batch_does_not_wait_for_its_retries(store):
    batch = await insert(store, 1)
    [chunk] = await claim(store)
    due = START + timedelta(hours=1)
    retry = failed(0, state=ItemState.PENDING, next_attempt_time=due)
    record = record_of(chunk, [retry], done=False, release=True, due_time=due, dispatch_time=due)
    await store.chunks.record([record], now=START)

    await close(store, batch)
    await close_all(store)

    batch = await current(store, batch)
    assert batch.state is BatchState.CANCELLED
    item = await store.batches.get_item(batch, "item-0")
    assert (item.state, item.next_attempt_time, item.error) == (ItemState.CANCELLED, None, None)
    assert [attempt.error.reason for attempt in item.attempts] == ["BUSY"]


async def test_a_dead_worker_holds_up_no_cancellation(store):
    batch = await insert(store, 10)
    await claim(store)
    await close(store, batch)

    await store.chunks.reopen_all(now=START)
    await close_all(store)

    assert (await current(store, batch)).counts == Counts(total=10, cancelled=10)


async def test_a_batch_whose_time_is_over_keeps_its_results(store):
    batch = await insert(store, 20)
    [first, _] = await claim(store)
    await store.chunks.record([record_of(first, [succeeded(n) for n in range(10)])], now=START)
    await store.chunks.reopen_all(now=START)

    await close(
        store, batch, closing=BatchState.EXPIRED, reason=StateReason.BATCH_TIMEOUT, now=START
    )
    await close_all(store)

    batch = await current(store, batch)
    assert (batch.state, batch.state_reason) == (BatchState.EXPIRED, StateReason.BATCH_TIMEOUT)
    assert batch.counts == Counts(total=20, succeeded=10, expired=10)
    assert await states(store, batch) == [ItemState.SUCCEEDED] * 10 + [ItemState.EXPIRED] * 10


async def test_a_batch_does_not_expire_whose_last_items_were_in_flight(store):
    batch = await insert(store, 10)
    [chunk] = await claim(store)

    await close(store, batch, closing=BatchState.EXPIRED, reason=StateReason.BATCH_TIMEOUT)
    await store.chunks.record([record_of(chunk, [succeeded(n) for n in range(10)])], now=START)

    batch = await current(store, batch)
    assert (batch.state, batch.state_reason) == (BatchState.SUCCEEDED, "")


async def test_a_large_batch_is_closed_in_small_transactions(store, monkeypatch):
    monkeypatch.setattr(closing, "ITEMS_AT_ONCE", 50)
    batch = await insert(store, 200)

    await close(store, batch)
    transactions = await close_all(store, now=START + SECOND)

    assert transactions == 4
    batch = await current(store, batch)
    assert batch.counts == Counts(total=200, cancelled=200)
    assert batch.end_time == START + SECOND


async def test_every_item_that_was_closed_is_named_by_an_event(store):
    batch = await insert(store, 20)
    await close(store, batch)
    await close_all(store)

    events = await store.batches.events(batch.key, after=0, limit=100)

    assert [event.event_type for event in events] == [
        "batch:created",
        "batch:cancelling",
        "batch:progress",
        "batch:cancelled",
    ]
    assert events[2].finished == ((0, 19),)


async def test_a_batch_that_got_more_time_meanwhile_is_not_expired(store):
    # Whoever looks for what is due and whoever seals a draft, or tries a batch again, may overlap.
    batch = await insert(store, 10)

    expired = await close(store, batch, closing=BatchState.EXPIRED, only_if_due=True)

    assert expired is None
    assert (await current(store, batch)).state is BatchState.PENDING
