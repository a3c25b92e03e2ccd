"""Deleted batches and forgotten events, on each database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from batchwork_server.domain.batch import Batch, BatchState
from batchwork_server.domain.filters import BatchFilter, PurgeFilter, RetryFilter
from batchwork_server.domain.item import ItemError, ItemState, ItemUser
from batchwork_server.store import tables
from batchwork_server.store.database import Database
from batchwork_server.store.sql_store import SqlStore
from batchwork_server.store.store import ChunkRecord, NewChunk

from tests.factories import (
    TENANT,
    make_invalid_reference,
    make_items,
    make_outcome,
    make_request,
)
from tests.fakes import START

HOUR = timedelta(hours=1)
CHUNK = 10


async def insert(
    store: SqlStore, batch_id: str, *, items: int = 1, tenant_id: str = TENANT, now=START, **changes
) -> Batch:
    chunks = [
        NewChunk(
            first_index=first,
            item_count=min(CHUNK, items - first),
            due_time=now,
            dispatch_time=now,
        )
        for first in range(0, items, CHUNK)
    ]
    async with store.transaction() as tx:
        return await store.batches.insert(
            tx,
            tenant_id=tenant_id,
            batch_id=batch_id,
            request=make_request(labels={"team": "blue"}),
            items=make_items(items),
            chunks=chunks,
            now=now,
            **changes,
        )


async def over(store: SqlStore, batch_id: str, *, now: datetime = START, **changes: Any) -> Batch:
    """Makes a batch and does its work, each chunk with an event of its own."""
    batch = await insert(store, batch_id, now=now, **changes)
    await work_off(store, now=now)
    found = await store.batches.get_by_key(batch.key)
    assert found is not None
    assert found.state.is_final
    return found


async def work_off(store: SqlStore, *, now: datetime) -> None:
    keys = [key for key, *_ in await store.chunks.next_chunks(now=now, limit=1000)]
    claimed = await store.chunks.claim(keys, owner="worker", now=now, lease=HOUR)
    for chunk in claimed.chunks:
        outcomes = [
            make_outcome(item.index, attempts=item.attempts + 1, is_new=item.is_new)
            for item in chunk.items
        ]
        record = ChunkRecord(
            chunk_key=chunk.chunk_key,
            epoch=chunk.epoch,
            batch_key=chunk.batch_key,
            taken=len(chunk.items),
            outcomes=outcomes,
            done=True,
        )
        await store.chunks.record([record], now=now)


async def delete(store: SqlStore, batch: Batch) -> bool:
    async with store.transaction() as tx:
        return await store.retention.delete(tx, batch.key)


async def purge(store: SqlStore, *, limit: int = 100, after=None, **changes: Any) -> list[str]:
    defaults: dict[str, Any] = {"tenant_id": TENANT, "ended_until": START}
    async with store.transaction() as tx:
        deleted = await store.retention.delete_some(
            tx, PurgeFilter(**defaults | changes), limit=limit, after=after
        )
    return [batch.batch_id for batch in deleted]


async def rows_of(database: Database, batch: Batch) -> dict[str, int]:
    """Counts the rows that hang on a batch, and the batch's own."""
    names = (
        "outcomes",
        "attempts",
        "items",
        "chunks",
        "events",
        "batch_labels",
        "batch_references",
        "invalid_references",
        "item_users",
        "batches",
    )
    async with database.reading() as connection:
        return {
            name: await connection.scalar(
                sa.select(sa.func.count())
                .select_from(tables.metadata.tables[name])
                .where(tables.metadata.tables[name].c.batch_key == batch.key)
            )
            or 0
            for name in names
        }


async def sequences(store: SqlStore, batch: Batch) -> list[int]:
    events = await store.batches.events(batch.key, after=0, limit=1000)
    return [event.sequence for event in events]


async def listed(store: SqlStore) -> Sequence[str]:
    page, _ = await store.batches.list(BatchFilter(tenant_id=None), page_size=100, after=None)
    return sorted(batch.batch_id for batch in page)


# Deleting


async def test_a_deleted_batch_is_gone_at_once(store):
    batch = await over(store, "bat-1")

    assert await delete(store, batch)

    assert await store.batches.get("bat-1", tenant_id=TENANT) is None
    assert await store.batches.get("bat-1", tenant_id=None) is None
    assert await store.batches.get_by_key(batch.key) is None
    assert await listed(store) == []


async def test_the_id_of_a_deleted_batch_is_free_at_once(store):
    first = await over(store, "bat-1")
    await delete(store, first)

    second = await over(store, "bat-1")
    await delete(store, second)
    third = await insert(store, "bat-1")

    assert await store.batches.get("bat-1", tenant_id=TENANT) == third


async def test_a_batch_is_deleted_once(store):
    batch = await over(store, "bat-1")

    deleted = await asyncio.gather(*(delete(store, batch) for _ in range(5)))

    assert sorted(deleted) == [False, False, False, False, True]


@pytest.mark.parametrize("is_draft", [True, False], ids=["a draft", "one that waits"])
async def test_a_batch_that_is_not_over_is_not_deleted(store, is_draft):
    batch = await insert(store, "bat-1", is_draft=is_draft)

    assert not await delete(store, batch)
    assert await purge(store) == []

    assert await listed(store) == ["bat-1"]


async def test_a_deleted_batch_cannot_be_opened_again(store):
    batch = await over(store, "bat-1")
    await delete(store, batch)

    async with store.transaction() as tx:
        reopened = await store.changes.reopen(tx, batch, RetryFilter(), now=START)

    assert reopened == (None, 0)


# Purging


async def test_a_purge_takes_the_oldest_first_and_as_many_as_it_may(store):
    for hours, batch_id in ((2, "bat-3"), (0, "bat-1"), (1, "bat-2")):
        await over(store, batch_id, now=START + hours * HOUR)

    first = await purge(store, ended_until=START + 2 * HOUR, limit=2)
    second = await purge(store, ended_until=START + 2 * HOUR, limit=2)
    third = await purge(store, ended_until=START + 2 * HOUR, limit=2)

    assert (first, second, third) == (["bat-1", "bat-2"], ["bat-3"], [])


async def test_a_purge_leaves_what_ended_later_and_what_is_of_others(store):
    await over(store, "bat-old")
    await over(store, "bat-other", tenant_id="other")
    await over(store, "bat-new", now=START + HOUR)

    assert await purge(store) == ["bat-old"]
    assert await listed(store) == ["bat-new", "bat-other"]
    assert await purge(store, tenant_id=None) == ["bat-other"]


async def test_a_purge_takes_only_the_states_that_are_asked_for(store):
    await over(store, "bat-1")

    assert await purge(store, states=(BatchState.FAILED, BatchState.CANCELLED)) == []
    assert await purge(store, states=(BatchState.FAILED, BatchState.SUCCEEDED)) == ["bat-1"]


async def test_a_purge_goes_on_behind_a_place(store):
    await over(store, "bat-1")
    await over(store, "bat-2")
    matching = PurgeFilter(tenant_id=TENANT, ended_until=START)

    async with store.transaction() as tx:
        [first] = await store.retention.delete_some(tx, matching, limit=1)
        [second] = await store.retention.delete_some(tx, matching, limit=1, after=first.place)
        none = await store.retention.delete_some(tx, matching, limit=1, after=second.place)

    assert (first.batch_id, second.batch_id, list(none)) == ("bat-1", "bat-2", [])


async def test_two_purges_at_once_delete_each_batch_once(store):
    for number in range(6):
        await over(store, f"bat-{number}")

    found = await asyncio.gather(*(purge(store, limit=2) for _ in range(5)))

    deleted = [batch_id for batch_ids in found for batch_id in batch_ids]
    assert len(deleted) == len(set(deleted))
    while some := await purge(store):
        deleted += some
    assert sorted(deleted) == [f"bat-{number}" for number in range(6)]


async def test_counting_deletes_nothing(store):
    for number in range(3):
        await over(store, f"bat-{number}", items=2, now=START + number * HOUR)
    matching = PurgeFilter(tenant_id=TENANT, ended_until=START + 3 * HOUR)

    counted = await store.retention.count_over(matching, sample_size=2)

    assert (counted.batch_count, counted.item_count) == (3, 6)
    assert counted.batch_ids == ("bat-0", "bat-1")
    assert len(await listed(store)) == 3


async def test_where_nothing_matches_nothing_is_counted(store):
    matching = PurgeFilter(tenant_id=TENANT, ended_until=START)

    counted = await store.retention.count_over(matching, sample_size=2)

    assert (counted.batch_count, counted.item_count, counted.batch_ids) == (0, 0, ())


# Removing rows


async def test_nothing_is_left_of_a_deleted_batch_and_all_of_its_neighbours(store, database):
    batch = await over(store, "bat-1", items=25)
    kept = [await over(store, "bat-2", items=3), await insert(store, "bat-3", items=3)]
    before = [await rows_of(database, other) for other in kept]
    rows = sum((await rows_of(database, batch)).values())
    await delete(store, batch)

    removed = await store.retention.remove_some(limit=1000)

    assert (removed.row_count, removed.batch_count) == (rows, 1)
    assert set((await rows_of(database, batch)).values()) == {0}
    assert [await rows_of(database, other) for other in kept] == before


async def test_the_attempts_of_a_deleted_batch_are_removed_too(store, database):
    batch = await insert(store, "bat-1")
    [(key, *_)] = await store.chunks.next_chunks(now=START, limit=1)
    [chunk] = (await store.chunks.claim([key], owner="w", now=START, lease=HOUR)).chunks
    error = ItemError(reason="BUSY", message="Come back later.", retryable=True)
    waits = make_outcome(0, state=ItemState.PENDING, error=error, next_attempt_time=START)
    record = ChunkRecord(
        chunk_key=key,
        epoch=chunk.epoch,
        batch_key=batch.key,
        taken=len(chunk.items),
        outcomes=[waits],
        release=True,
        due_time=START,
        dispatch_time=START,
    )
    await store.chunks.record([record], now=START)
    await work_off(store, now=START)
    assert (await rows_of(database, batch))["attempts"] == 1
    await delete(store, batch)

    await store.retention.remove_some(limit=1000)

    assert set((await rows_of(database, batch)).values()) == {0}


async def test_a_large_batch_goes_slice_by_slice_and_the_batch_itself_last(store, database):
    batch = await over(store, "bat-1", items=25)
    async with store.transaction() as tx:
        await store.changes.lock(tx, batch.batch_id, tenant_id=TENANT)
        invalid = [make_invalid_reference(f"u{n}") for n in range(8)]
        await store.validation_reports.add(tx, batch, invalid)
        users = [ItemUser(user_id=f"u{n}", item_index=0) for n in range(5)]
        await store.contexts.add_users(tx, batch, users)
    await delete(store, batch)
    rows = sum((await rows_of(database, batch)).values())
    slices = 0

    while (removed := await store.retention.remove_some(limit=7)).row_count:
        slices += 1
        assert removed.row_count <= 7
        left = await rows_of(database, batch)
        rows -= removed.row_count
        assert sum(left.values()) == rows
        assert left["batches"] == (1 if rows else 0)

    assert rows == 0
    assert slices > 8


async def test_small_batches_go_many_in_one_transaction(store):
    for number in range(4):
        await delete(store, await over(store, f"bat-{number}"))

    removed = await store.retention.remove_some(limit=1000)

    assert removed.batch_count == 4


async def test_two_who_remove_at_once_do_no_harm(store, database):
    batches = [await over(store, f"bat-{number}", items=12) for number in range(4)]
    for batch in batches:
        await delete(store, batch)

    async def remove_all() -> int:
        rows = 0
        while (removed := await store.retention.remove_some(limit=5)).row_count:
            rows += removed.row_count
        return rows

    await asyncio.gather(*(remove_all() for _ in range(3)))
    await remove_all()

    for batch in batches:
        assert set((await rows_of(database, batch)).values()) == {0}


# Events


async def forget(store: SqlStore, *, ended_until=START, ended_from=None, limit=1000):
    return await store.retention.forget_events(
        ended_from=ended_from, ended_until=ended_until, limit=limit
    )


async def test_of_a_batch_that_is_over_for_long_the_newest_event_stays(store):
    batch = await over(store, "bat-1", items=25)
    before = await sequences(store, batch)

    forgotten = await forget(store)

    assert forgotten.row_count == len(before) - 1
    assert await sequences(store, batch) == [batch.sequence]
    [last] = await store.batches.events(batch.key, after=0, limit=10)
    assert (last.kind, last.state) == ("STATE_CHANGED", BatchState.SUCCEEDED)


async def test_events_of_batches_that_run_or_ended_later_stay(store):
    running = await insert(store, "bat-1")
    await work_off(store, now=START)
    later = await over(store, "bat-2", now=START + HOUR)
    open_batch = await insert(store, "bat-3")

    await forget(store)

    assert await sequences(store, running) == [later.sequence]
    assert await sequences(store, later) == list(range(1, later.sequence + 1))
    assert await sequences(store, open_batch) == [1]


async def test_of_one_batch_the_oldest_events_go_first(store):
    batch = await over(store, "bat-1", items=25)
    before = await sequences(store, batch)

    forgotten = await forget(store, limit=2)

    assert forgotten.row_count == 2
    assert await sequences(store, batch) == before[2:]
    assert forgotten.reached == START


async def test_forgetting_goes_on_where_it_stopped_until_it_has_reached_the_end(store):
    batches = [await over(store, f"bat-{n}", items=25, now=START + n * HOUR) for n in range(3)]
    until = START + 5 * HOUR
    reached, calls = None, 0

    while reached != until:
        forgotten = await forget(store, ended_from=reached, ended_until=until, limit=2)
        reached, calls = forgotten.reached, calls + 1

    assert calls > 3
    for batch in batches:
        assert await sequences(store, batch) == [batch.sequence]
    assert (await forget(store, ended_from=reached, ended_until=until)).row_count == 0
