"""Batches and their items, from the callers' side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from batchwork_server.domain import event_types
from batchwork_server.domain.batch import (
    Batch,
    BatchRequest,
    BatchState,
    Counts,
    StateReason,
    final_state,
)
from batchwork_server.domain.filters import BatchFilter, ItemFilter
from batchwork_server.domain.item import Attempt, Item, ItemState, NewItem
from batchwork_server.domain.reference import deliveries_of
from batchwork_server.domain.waiting import OpenWork
from batchwork_server.errors import AlreadyExists
from batchwork_server.store import events
from batchwork_server.store.database import Database
from batchwork_server.store.own_items import has_part_in, is_for
from batchwork_server.store.rows import (
    BATCH_COLUMNS,
    batch_from,
    error_from,
    item_from,
    request_to,
)
from batchwork_server.store.statements import Column, insert_rows, run
from batchwork_server.store.store import Event, NewChunk, Transaction
from batchwork_server.store.tables import (
    attempts,
    batch_labels,
    batches,
    chunks,
    items,
    outcomes,
)
from batchwork_server.store.times import duration_from_micros, from_micros, to_micros

LARGEST_CHUNK = 1000
"""The most items that a chunk may hold; a lookup of an item's chunk relies on it."""

PAGE_BYTES = 3 * 1024 * 1024
"""A page of items ends when it holds so much, so that it fits into a message of 4 MiB."""

_WAITING = (BatchState.DRAFT, BatchState.PAUSED)
"""The states in which nothing of a new batch is handed out."""

_ROWS_AT_ONCE = 2048
"""Items become rows in so many steps that the rows of a large batch are never all in memory."""

_ITEM_COLUMNS = (
    Column("batch_key"),
    Column("item_index"),
    Column("item_id", "text"),
    Column("user_id", "text"),
    Column("data_json", "text"),
)
_SKIP_COLUMNS = (
    Column("batch_key"),
    Column("item_index"),
    Column("state", "text"),
    Column("attempt_count"),
    Column("skip_reason", "text"),
    Column("end_time"),
)
_CHUNK_COLUMNS = (
    Column("batch_key"),
    Column("first_index"),
    Column("item_count"),
    Column("state", "text"),
    Column("due_time"),
    Column("dispatch_time"),
)
_LABEL_COLUMNS = (Column("batch_key"), Column("name", "text"), Column("value", "text"))

_INSERT_BATCH = f"""
INSERT INTO batches (tenant_id, batch_id, state, total, pending, skipped, open_chunks,
  event_sequence, source, operation, template_id, job_id, feature_type, request_json,
  create_time, update_time, start_time, end_time, expire_time, upload_offset, distribution,
  state_reason)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant_id, batch_id) DO NOTHING
RETURNING {BATCH_COLUMNS}
"""
_GET_BATCH_OF_ANY = f"SELECT {BATCH_COLUMNS} FROM batches WHERE batch_id = ?"
_GET_BATCH = f"{_GET_BATCH_OF_ANY} AND tenant_id = ?"


# A batch that has not changed is the same object again, for which its message is made already.
_same_batch_from = lru_cache(maxsize=64)(batch_from)


class SqlBatches:
    """Implements ``BatchStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(
        self,
        tx: Transaction,
        *,
        tenant_id: str,
        batch_id: str,
        request: BatchRequest,
        items: Sequence[NewItem],
        chunks: Sequence[NewChunk],
        now: datetime,
        expire_time: datetime | None = None,
        is_draft: bool = False,
        is_deferred: bool = False,
    ) -> Batch:
        connection = tx.connection
        skipped = sum(1 for item in items if item.skip_reason is not None)
        counts = Counts(total=len(items), pending=len(items) - skipped, skipped=skipped)
        state = _first_state(
            counts, is_draft=is_draft, is_deferred=is_deferred, has_work=bool(chunks)
        )
        reason = StateReason.USERS_UNAVAILABLE if state is BatchState.PAUSED else ""
        moment = to_micros(now)
        over = moment if state.is_final else None
        rows = await run(
            connection,
            _INSERT_BATCH,
            (
                *(tenant_id, batch_id, state, counts.total, counts.pending, skipped, len(chunks)),
                *(_first_sequence(request, state), request.source, request.operation),
                *(request.template.template_id, request.job_id, request.feature_type),
                *(request_to(request), moment, moment, over, over),
                *(None if over else to_micros(expire_time), len(items) if is_draft else 0),
                _distribution_of(request),
                reason,
            ),
        )
        if not rows:
            raise AlreadyExists("batch", batch_id)
        batch = batch_from(rows[0])
        await _insert_parts(connection, batch, items, chunks)
        skips = (n for n, item in enumerate(items) if item.skip_reason is not None)
        await events.insert(connection, _first_events(batch, skips, now=now))
        return batch

    async def get(self, batch_id: str, *, tenant_id: str | None) -> Batch | None:
        if tenant_id is None:
            row = await self._database.fetch_row(_GET_BATCH_OF_ANY, (batch_id,))
        else:
            row = await self._database.fetch_row(_GET_BATCH, (batch_id, tenant_id))
        return None if row is None else _same_batch_from(row)

    async def get_by_key(self, batch_key: int) -> Batch | None:
        row = await self._database.fetch_row(
            f"SELECT {BATCH_COLUMNS} FROM batches WHERE batch_key = ? AND state <> 'DELETED'",
            (batch_key,),
        )
        return None if row is None else batch_from(row)

    async def list(
        self, matching: BatchFilter, *, page_size: int, after: int | None, skip: int = 0
    ) -> tuple[Sequence[Batch], int | None]:
        query = (
            sa.select(sa.text(BATCH_COLUMNS))
            .select_from(batches)
            .where(*batch_conditions(matching))
            .order_by(batches.c.batch_key.desc())
            .limit(page_size + 1)
            .offset(skip)
        )
        if after is not None:
            query = query.where(batches.c.batch_key < after)
        async with self._database.reading() as connection:
            rows = (await connection.execute(query)).fetchall()
        page = [batch_from(row) for row in rows[:page_size]]
        return page, page[-1].key if len(rows) > page_size else None

    async def open_work(self, batch_key: int, *, now: datetime) -> OpenWork:
        moment = to_micros(now)
        row = await self._database.fetch_row(
            "SELECT COUNT(CASE WHEN due_time <= ? THEN 1 END),"
            " MIN(CASE WHEN due_time > ? THEN due_time END)"
            " FROM chunks WHERE batch_key = ? AND state = 'OPEN'",
            (moment, moment, batch_key),
        )
        due, next_due_time = row or (0, None)
        return OpenWork(due=due, next_due_time=from_micros(next_due_time))

    async def get_item(self, batch: Batch, item_id: str) -> Item | None:
        query = (
            sa.select(*_item_columns(batch))
            .select_from(_items_and_outcomes())
            .where(items.c.batch_key == batch.key, items.c.item_id == item_id)
        )
        async with self._database.reading() as connection:
            row = (await connection.execute(query)).first()
            if row is None:
                return None
            earlier = await _attempts(connection, batch.key, row.item_index)
        item = item_from(row, batch_id=batch.batch_id)
        return item_from(row, batch_id=batch.batch_id, attempts=(*earlier, *_last_attempt(item)))

    async def list_items(
        self, batch: Batch, matching: ItemFilter, *, page_size: int, after: int | None
    ) -> tuple[Sequence[Item], int | None]:
        query = _item_query(batch, matching).limit(page_size + 1)
        if after is not None:
            query = query.where(items.c.item_index > after)
        async with self._database.reading() as connection:
            rows = (await connection.execute(query)).fetchall()
        page = [item_from(row, batch_id=batch.batch_id) for row in rows[:page_size]]
        page = page[: _fitting(page)]
        return page, page[-1].index if len(rows) > len(page) else None

    async def events(self, batch_key: int, *, after: int, limit: int) -> Sequence[Event]:
        async with self._database.reading() as connection:
            rows = await run(
                connection,
                "SELECT sequence, kind, event_type, event_time, payload_json FROM events"
                " WHERE batch_key = ? AND sequence > ? ORDER BY sequence LIMIT ?",
                (batch_key, after, limit),
            )
        return [events.event_from(row) for row in rows]

    async def finished_items(
        self, batch: Batch, ranges: Sequence[tuple[int, int]], *, only_failed: bool
    ) -> Sequence[Item]:
        found: list[Item] = []
        condition = outcomes.c.state == "FAILED" if only_failed else outcomes.c.state != "PENDING"
        async with self._database.reading() as connection:
            for first, last in ranges:
                query = (
                    sa.select(*_item_columns(batch, with_data=False))
                    .select_from(_items_and_outcomes())
                    .where(
                        items.c.batch_key == batch.key,
                        items.c.item_index.between(first, last),
                        condition,
                    )
                    .order_by(items.c.item_index)
                )
                rows = (await connection.execute(query)).fetchall()
                found += [item_from(row, batch_id=batch.batch_id) for row in rows]
        return found


def _distribution_of(request: BatchRequest) -> str:
    if request.distribution.own:
        return "OWN"
    return "NAMED" if request.distribution else ""


def _first_state(
    counts: Counts, *, is_draft: bool, is_deferred: bool, has_work: bool
) -> BatchState:
    if is_draft:
        return BatchState.DRAFT
    if not has_work:
        return final_state(counts)
    return BatchState.PAUSED if is_deferred else BatchState.PENDING


async def _insert_parts(
    connection: AsyncConnection, batch: Batch, new: Sequence[NewItem], parts: Sequence[NewChunk]
) -> None:
    await insert_items(connection, batch.key, new, first=0, now=batch.create_time)
    await insert_chunks(
        connection, batch.key, parts, state="HELD" if batch.state in _WAITING else "OPEN"
    )
    labels = [(batch.key, name, value) for name, value in batch.request.labels.items()]
    await insert_rows(connection, "batch_labels", _LABEL_COLUMNS, labels)


async def insert_items(
    connection: AsyncConnection, key: int, new: Sequence[NewItem], *, first: int, now: datetime
) -> None:
    """Stores the input of items from the place ``first`` on, and the outcomes of skipped ones."""
    for start in range(0, len(new), _ROWS_AT_ONCE):
        part = enumerate(new[start : start + _ROWS_AT_ONCE], first + start)
        rows = [(key, n, item.item_id, item.user_id, item.data_json) for n, item in part]
        await insert_rows(connection, "items", _ITEM_COLUMNS, rows)
    skips = {n: item.skip_reason for n, item in enumerate(new, first) if item.skip_reason}
    await insert_skips(connection, key, skips, now=now)


async def insert_skips(
    connection: AsyncConnection, key: int, skips: Mapping[int, str], *, now: datetime
) -> None:
    """Stores the outcomes of items that are skipped before anybody takes them, by their places."""
    moment = to_micros(now)
    rows = [(key, n, "SKIPPED", 0, reason, moment) for n, reason in skips.items()]
    await insert_rows(connection, "outcomes", _SKIP_COLUMNS, rows)


async def insert_chunks(
    connection: AsyncConnection, key: int, parts: Sequence[NewChunk], *, state: str
) -> None:
    await insert_rows(
        connection,
        "chunks",
        _CHUNK_COLUMNS,
        [
            (
                *(key, chunk.first_index, chunk.item_count, state),
                *(to_micros(chunk.due_time), to_micros(chunk.dispatch_time)),
            )
            for chunk in parts
        ],
    )


def _first_sequence(request: BatchRequest, state: BatchState) -> int:
    """Returns the sequence of the last of ``_first_events``."""
    delivers = state.is_final and bool(request.distribution)
    return 1 + request.has_validated + state.is_final + delivers


def _first_events(batch: Batch, skipped: Iterable[int], *, now: datetime) -> list[tuple[Any, ...]]:
    """A batch is created PENDING; one that has nothing to do is over in the same moment."""
    state = batch.state if batch.state in _WAITING else BatchState.PENDING
    created = replace(batch, state=state, sequence=1)
    first = [
        events.state_changed(created, now=now, event_type=event_types.CREATED, finished=skipped)
    ]
    if batch.request.has_validated:
        first.append(events.validated(replace(created, sequence=2), now=now))
    if batch.state.is_final:
        if batch.request.distribution:
            counts = deliveries_of(batch, served=0)  # it has nothing that could have succeeded
            first.append(events.delivered(batch, counts, now=now))
        first.append(events.state_changed(batch, now=now))
    return first


def batch_conditions(matching: BatchFilter) -> list[sa.ColumnElement[bool]]:
    """Returns what holds of the batches that match, and that are not deleted."""
    c = batches.c
    conditions: list[sa.ColumnElement[bool]] = [c.state != "DELETED"]
    if matching.tenant_id is not None:
        conditions.append(c.tenant_id == matching.tenant_id)
    if matching.states:
        conditions.append(c.state.in_([str(state) for state in matching.states]))
    for column, value in (
        (c.operation, matching.operation),
        (c.job_id, matching.job_id),
        (c.feature_type, matching.feature_type),
    ):
        if value:
            conditions.append(column == value)
    if matching.created_after is not None:
        conditions.append(c.create_time >= to_micros(matching.created_after))
    if matching.created_before is not None:
        conditions.append(c.create_time < to_micros(matching.created_before))
    if matching.user_id:
        conditions.append(has_part_in(matching.user_id, tenant_id=matching.tenant_id))
    for name, value in matching.labels.items():
        label = batch_labels.alias()
        conditions.append(
            sa.exists().where(
                label.c.batch_key == c.batch_key, label.c.name == name, label.c.value == value
            )
        )
    return conditions


def _items_and_outcomes() -> sa.Join:
    return items.outerjoin(
        outcomes,
        sa.and_(
            outcomes.c.batch_key == items.c.batch_key, outcomes.c.item_index == items.c.item_index
        ),
    )


def _state_of(batch: Batch) -> sa.ColumnElement[str]:
    """An item is RUNNING while a worker holds its chunk and the item was due when it was taken."""
    if batch.state.is_final:
        return outcomes.c.state
    taken = sa.exists().where(
        chunks.c.batch_key == items.c.batch_key,
        chunks.c.state == "CLAIMED",
        chunks.c.first_index.between(items.c.item_index - (LARGEST_CHUNK - 1), items.c.item_index),
        items.c.item_index < chunks.c.first_index + chunks.c.item_count,
        sa.or_(
            outcomes.c.next_attempt_time.is_(None),
            outcomes.c.next_attempt_time <= chunks.c.claim_time,
        ),
    )
    return sa.case(
        (sa.func.coalesce(outcomes.c.state, "PENDING") != "PENDING", outcomes.c.state),
        (taken, "RUNNING"),
        else_="PENDING",
    )


def _item_columns(batch: Batch, *, with_data: bool = True) -> list[sa.ColumnElement[Any]]:
    o = outcomes.c
    data = items.c.data_json if with_data else sa.literal("").label("data_json")
    return [
        items.c.item_index,
        items.c.item_id,
        items.c.user_id,
        data,
        _state_of(batch).label("state"),
        *(o.attempt_count, o.result_json, o.error_reason, o.error_message, o.error_retryable),
        *(o.skip_reason, o.next_attempt_time, o.start_time, o.end_time, o.duration),
        o.quality_score,
    ]


def _item_query(batch: Batch, matching: ItemFilter) -> sa.Select[Any]:
    query = (
        sa.select(*_item_columns(batch))
        .select_from(_items_and_outcomes())
        .where(items.c.batch_key == batch.key)
        .order_by(items.c.item_index)
    )
    if matching.states:
        query = query.where(_state_of(batch).in_([str(state) for state in matching.states]))
        if not {ItemState.SUCCEEDED, ItemState.PENDING, ItemState.RUNNING} & set(matching.states):
            # Said in the words of the partial index, so that both databases use it.
            query = query.where(sa.text("outcomes.state <> 'SUCCEEDED'"))
    if matching.user_id:
        query = query.where(is_for(matching.user_id, batch))
    for column, value in (
        (outcomes.c.error_reason, matching.error_reason),
        (outcomes.c.skip_reason, matching.skip_reason),
    ):
        if value:
            query = query.where(column == value)
    if matching.error_reason:
        query = query.where(outcomes.c.state == "FAILED")
    if matching.min_quality_score is not None:
        query = query.where(outcomes.c.quality_score >= matching.min_quality_score)
    if matching.max_quality_score is not None:
        query = query.where(outcomes.c.quality_score <= matching.max_quality_score)
    return query


def _fitting(page: Sequence[Item]) -> int:
    """Returns how many of the items fit into a page; always at least one."""
    size = 0
    for place, item in enumerate(page):
        size += len(item.data_json) + len(item.result_json or "") + 500
        if size > PAGE_BYTES and place:
            return place
    return len(page)


async def _attempts(connection: AsyncConnection, batch_key: int, index: int) -> list[Attempt]:
    query = (
        sa.select(attempts)
        .where(attempts.c.batch_key == batch_key, attempts.c.item_index == index)
        .order_by(attempts.c.number)
    )
    return [
        Attempt(
            number=row.number,
            start_time=from_micros(row.start_time),
            duration=duration_from_micros(row.duration),
            error=error_from(row.error_reason, row.error_message, row.error_retryable),
        )
        for row in (await connection.execute(query)).fetchall()
    ]


def _last_attempt(item: Item) -> tuple[Attempt, ...]:
    """The attempt that decided is kept in the outcome, not a second time among the attempts."""
    decided = item.state in (ItemState.SUCCEEDED, ItemState.FAILED) or (
        item.state is ItemState.SKIPPED and item.attempt_count > 0
    )
    if not decided or item.start_time is None or item.duration is None:
        return ()
    return (
        Attempt(
            number=item.attempt_count,
            start_time=item.start_time,
            duration=item.duration,
            error=item.error,
        ),
    )
