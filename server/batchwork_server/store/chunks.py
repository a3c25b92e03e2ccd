"""The ledger of dispatch: claims, records, leases. The only way to an outcome.

Every transaction touches chunks first, then batches by their key, then events: two of them never
wait for each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from batchwork_server.domain.batch import Batch, BatchState, Counts
from batchwork_server.domain.item import ItemState, Outcome, PendingItem
from batchwork_server.store import events, transitions
from batchwork_server.store.counting import Change, update_batches
from batchwork_server.store.database import Database
from batchwork_server.store.rows import BATCH_COLUMNS, COUNT_NAMES, batch_from, counts_from
from batchwork_server.store.statements import (
    Column,
    Dialect,
    Row,
    dialect_of,
    insert_rows,
    none_of,
    one_of,
    run,
    run_for_many,
    update_rows,
)
from batchwork_server.store.store import (
    ChunkRecord,
    Claimed,
    ClaimedChunk,
    Extended,
    OpenChunk,
    Recorded,
    Reopened,
)
from batchwork_server.store.times import duration_to_micros, from_micros, to_micros

_RECORD_COLUMNS = (
    Column("chunk_key"),
    Column("epoch"),
    Column("state", "text"),
    Column("taken"),
    Column("recorded"),
    Column("due_time"),
    Column("dispatch_time"),
)
# The epoch is the fence: a worker that lost its chunk gets no row back, and writes nothing. Nobody
# lets go of a chunk without an account of every item that was taken; and nobody goes on with one
# whose last record was written although its answer was lost, or its outcomes would count twice.
_RECORD_CHUNKS = """
UPDATE chunks SET
  state = v.state,
  taken = CASE WHEN v.state = 'CLAIMED' THEN chunks.taken - v.recorded ELSE 0 END,
  crashes = CASE WHEN v.state = 'CLAIMED' THEN chunks.crashes ELSE 0 END,
  suspect_index = CASE WHEN v.state = 'CLAIMED' THEN chunks.suspect_index END,
  due_time = COALESCE(v.due_time, chunks.due_time),
  dispatch_time = COALESCE(v.dispatch_time, chunks.dispatch_time)
FROM {rows}
WHERE chunks.chunk_key = v.chunk_key AND chunks.epoch = v.epoch AND chunks.state = 'CLAIMED'
  AND chunks.taken = v.taken AND (v.state = 'CLAIMED' OR v.taken = v.recorded)
RETURNING chunks.chunk_key
"""

_OUTCOME_COLUMNS = (
    Column("batch_key"),
    Column("item_index"),
    Column("state", "text"),
    Column("attempt_count"),
    Column("result_json", "text"),
    Column("error_reason", "text"),
    Column("error_message", "text"),
    Column("error_retryable", "boolean"),
    Column("skip_reason", "text"),
    Column("next_attempt_time"),
    Column("start_time"),
    Column("end_time"),
    Column("duration"),
    Column("quality_score", "double precision"),
)
_SUCCESS_COLUMNS = (
    Column("batch_key"),
    Column("item_index"),
    Column("state", "text"),
    Column("attempt_count"),
    Column("result_json", "text"),
    Column("start_time"),
    Column("end_time"),
    Column("duration"),
    Column("quality_score", "double precision"),
)
# Only a row that waits for a retry gives way; a second final outcome changes nothing.
_OUTCOME_CONFLICT = (
    "ON CONFLICT (batch_key, item_index) DO UPDATE SET "
    + ", ".join(f"{column.name} = excluded.{column.name}" for column in _OUTCOME_COLUMNS[2:])
    + " WHERE outcomes.state = 'PENDING'"
)

_ATTEMPT_COLUMNS = (
    Column("batch_key"),
    Column("item_index"),
    Column("number"),
    Column("start_time"),
    Column("duration"),
    Column("error_reason", "text"),
    Column("error_message", "text"),
    Column("error_retryable", "boolean"),
)

_START_BATCH = f"""
UPDATE batches SET state = 'RUNNING', start_time = COALESCE(start_time, ?),
  event_sequence = event_sequence + 1
WHERE batch_key = ? AND state = 'PENDING'
RETURNING {BATCH_COLUMNS}
"""
_ITEM_COLUMNS = (
    "item_index",
    "item_id",
    "user_id",
    "data_json",
    "attempt_count",
    "next_attempt_time",
    "attempts_before",
)
_SELECT_ITEMS = """
SELECT i.item_index, i.item_id, i.user_id, i.data_json, o.attempt_count, o.next_attempt_time,
  o.attempts_before
FROM items i LEFT JOIN outcomes o ON o.batch_key = i.batch_key AND o.item_index = i.item_index
WHERE i.batch_key = ? AND i.item_index >= ? AND i.item_index < ?
  AND (o.state IS NULL OR o.state = 'PENDING')
ORDER BY i.item_index
"""


def next_chunks_sql(
    dialect: Dialect, *, now: datetime, limit: int, without: Collection[int]
) -> tuple[str, Row]:
    """Returns what finds the next chunks, but those of some batches, by the index of order."""
    others, keys = none_of("batch_key", without, dialect) if without else ("1 = 1", ())
    return (
        "SELECT chunk_key, item_count, batch_key FROM chunks"
        f" WHERE state = 'OPEN' AND due_time <= ? AND {others}"
        " ORDER BY dispatch_time, chunk_key LIMIT ?",
        (to_micros(now), *keys, limit),
    )


class SqlChunks:
    """Implements ``ChunkStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def next_chunks(
        self, *, now: datetime, limit: int, without: Collection[int] = ()
    ) -> list[OpenChunk]:
        async with self._database.reading() as connection:
            sql, parameters = next_chunks_sql(
                dialect_of(connection), now=now, limit=limit, without=without
            )
            rows = await run(connection, sql, parameters)
        return [OpenChunk(*row) for row in rows]

    async def next_due_time(self, *, after: datetime) -> datetime | None:
        async with self._database.reading() as connection:
            [(due,)] = await run(
                connection,
                "SELECT MIN(due_time) FROM chunks WHERE state = 'OPEN' AND due_time > ?",
                (to_micros(after),),
            )
        return from_micros(due)

    async def claim(
        self, chunk_keys: Sequence[int], *, owner: str, now: datetime, lease: timedelta
    ) -> Claimed:
        async with self._database.transaction() as tx:
            connection = tx.connection
            rows = await _take(connection, chunk_keys, owner=owner, now=now, lease=lease)
            claimed = [
                ClaimedChunk(
                    chunk_key=chunk_key,
                    epoch=epoch,
                    batch_key=batch_key,
                    dispatch_time=from_micros(dispatch_time),
                    items=[],
                    crashes=crashes,
                    suspect_index=suspect_index,
                )
                for chunk_key, epoch, batch_key, _, _, dispatch_time, crashes, suspect_index in rows
            ]
            await _load_items(connection, rows, claimed, now=now)
            await _count_taken(connection, claimed)
            written = await _start_batches(connection, claimed, now=now)
        order = {key: place for place, key in enumerate(chunk_keys)}
        claimed.sort(key=lambda chunk: order[chunk.chunk_key])
        return Claimed(chunks=claimed, batches=written)

    async def record(self, records: Sequence[ChunkRecord], *, now: datetime) -> Recorded:
        if len({record.chunk_key for record in records}) < len(records):
            raise ValueError("a chunk has two records in one transaction and would count twice")
        async with self._database.transaction() as tx:
            connection = tx.connection
            rows = await update_rows(
                connection,
                _RECORD_CHUNKS,
                _RECORD_COLUMNS,
                [_record_row(record) for record in sorted(records, key=lambda r: r.chunk_key)],
            )
            held = {key for (key,) in rows}
            kept = [record for record in records if record.chunk_key in held]
            await _insert_outcomes(connection, kept)
            written = await update_batches(connection, _changes(kept), now=now)
            await _conform_released(connection, kept, written)
        lost = frozenset(record.chunk_key for record in records) - held
        return Recorded(lost=lost, batches=written)

    async def extend(
        self, chunk_keys: Sequence[int], *, owner: str, now: datetime, lease: timedelta
    ) -> Extended:
        if not chunk_keys:
            return Extended(held=frozenset(), batches={})
        named, keys = one_of("chunk_key", sorted(chunk_keys), self._database.dialect)
        async with self._database.transaction() as tx:
            connection = tx.connection
            rows = await run(
                connection,
                f"UPDATE chunks SET lease_time = {_lease_clock(connection)} + ?"
                " WHERE owner = ? AND state = 'CLAIMED'"
                f" AND {named} RETURNING chunk_key, batch_key",
                (*_read_clock(connection, now), duration_to_micros(lease), owner, *keys),
            )
            batch_keys = sorted({batch_key for _, batch_key in rows})
            stopped = await _stopped_batches(connection, batch_keys)
        return Extended(held=frozenset(key for key, _ in rows), batches=stopped)

    async def stopped(self, batch_keys: Collection[int]) -> Mapping[int, Batch]:
        async with self._database.reading() as connection:
            return await _stopped_batches(connection, sorted(batch_keys))

    async def mark_suspect(self, chunk_key: int, *, epoch: int, item_index: int | None) -> bool:
        async with self._database.transaction() as tx:
            rows = await run(
                tx.connection,
                "UPDATE chunks SET suspect_index = ? WHERE chunk_key = ? AND epoch = ?"
                " AND state = 'CLAIMED' RETURNING chunk_key",
                (item_index, chunk_key, epoch),
            )
        return bool(rows)

    async def reopen_expired(self, *, now: datetime) -> Reopened:
        async with self._database.transaction() as tx:
            is_over = f"lease_time < {_lease_clock(tx.connection)}"
            return await _reopen(tx.connection, is_over, _read_clock(tx.connection, now), now=now)

    async def reopen_all(self, *, now: datetime) -> Reopened:
        async with self._database.transaction() as tx:
            return await _reopen(tx.connection, "1 = 1", (), now=now)

    async def reopen_unknown(self, known: Iterable[int], *, owner: str, now: datetime) -> Reopened:
        async with self._database.transaction() as tx:
            held = await run(
                tx.connection,
                "SELECT chunk_key FROM chunks WHERE owner = ? AND state = 'CLAIMED'",
                (owner,),
            )
            unknown = sorted({key for (key,) in held} - set(known))
            if not unknown:
                return Reopened(chunk_count=0, batches={})
            named, keys = one_of("chunk_key", unknown, self._database.dialect)
            return await _reopen(tx.connection, named, keys, now=now)

    async def check_counts(self, batch_key: int) -> tuple[Counts, Counts]:
        async with self._database.reading() as connection:
            [kept] = await run(
                connection,
                f"SELECT {', '.join(COUNT_NAMES)} FROM batches WHERE batch_key = ?",
                (batch_key,),
            )
            by_state: dict[str, int] = dict(
                await run(
                    connection,
                    "SELECT COALESCE(o.state, 'PENDING'), COUNT(*) FROM items i"
                    " LEFT JOIN outcomes o ON o.batch_key = i.batch_key"
                    " AND o.item_index = i.item_index WHERE i.batch_key = ? GROUP BY 1",
                    (batch_key,),
                )
            )
            [(taken,)] = await run(
                connection,
                "SELECT COALESCE(SUM(taken), 0) FROM chunks"
                " WHERE batch_key = ? AND state = 'CLAIMED'",
                (batch_key,),
            )
            [(retries,)] = await run(
                connection, "SELECT COUNT(*) FROM attempts WHERE batch_key = ?", (batch_key,)
            )
        counted = {state.lower(): count for state, count in by_state.items()}
        counted["total"] = sum(by_state.values())
        counted["running"] = int(taken)
        counted["pending"] = counted.get("pending", 0) - int(taken)
        counted["retries"] = retries
        return counts_from(kept), Counts(**counted)


def _lease_clock(connection: AsyncConnection) -> str:
    """Returns the time by which leases are measured, as SQL, with what ``_read_clock`` binds.

    On PostgreSQL it is the database's own, whatever the clocks of the workers say. On SQLite one
    process works, and nobody but it looks at its leases.
    """
    if dialect_of(connection) == "postgresql":
        return "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint"
    return "?"


def _read_clock(connection: AsyncConnection, now: datetime) -> tuple[int | None, ...]:
    return () if dialect_of(connection) == "postgresql" else (to_micros(now),)


async def _take(
    connection: AsyncConnection,
    chunk_keys: Sequence[int],
    *,
    owner: str,
    now: datetime,
    lease: timedelta,
) -> list[Row]:
    named, keys = one_of("chunk_key", sorted(chunk_keys), dialect_of(connection))
    return await run(
        connection,
        "UPDATE chunks SET state = 'CLAIMED', epoch = epoch + 1, owner = ?, claim_time = ?,"
        f" lease_time = {_lease_clock(connection)} + ?"
        f" WHERE state = 'OPEN' AND {named}"
        " RETURNING chunk_key, epoch, batch_key, first_index, item_count, dispatch_time, crashes,"
        " suspect_index",
        (
            *(owner, to_micros(now), *_read_clock(connection, now)),
            *(duration_to_micros(lease), *keys),
        ),
    )


async def _stopped_batches(
    connection: AsyncConnection, batch_keys: Sequence[int]
) -> dict[int, Batch]:
    """Returns those of the batches of which no further item is to start."""
    if not batch_keys:
        return {}
    named, keys = one_of("batch_key", batch_keys, dialect_of(connection))
    rows = await run(
        connection,
        f"SELECT {BATCH_COLUMNS} FROM batches WHERE state IN ('PAUSED', 'CANCELLING') AND {named}",
        keys,
    )
    batches = [batch_from(row) for row in rows]
    return {batch.key: batch for batch in batches}


async def _reopen(
    connection: AsyncConnection, condition: str, parameters: Row, *, now: datetime
) -> Reopened:
    """Opens chunks that are taken, gives their items back, and counts the crash."""
    rows = await run(
        connection,
        "UPDATE chunks SET state = 'OPEN', crashes = crashes + 1"
        f" WHERE state = 'CLAIMED' AND {condition} RETURNING batch_key, taken, chunk_key",
        parameters,
    )
    changes: dict[int, Change] = defaultdict(Change)
    keys: dict[int, list[int]] = defaultdict(list)
    for batch_key, taken, chunk_key in rows:
        changes[batch_key].counts["running"] -= taken
        changes[batch_key].counts["pending"] += taken
        keys[batch_key].append(chunk_key)
    written = await update_batches(connection, changes, now=now)
    for batch_key, batch in written.items():
        await transitions.conform(connection, batch, keys[batch_key])
    return Reopened(chunk_count=len(rows), batches=written)


async def _load_items(
    connection: AsyncConnection,
    rows: Sequence[Row],
    claimed: Sequence[ClaimedChunk],
    *,
    now: datetime,
) -> None:
    """Fills the chunks with their items that are due; neighbours are read together."""
    moment = to_micros(now)
    by_place = sorted(zip(rows, claimed, strict=True), key=lambda pair: (pair[0][2], pair[0][3]))
    spans: list[tuple[int, int, int, list[tuple[int, ClaimedChunk]]]] = []
    for (_, _, batch_key, first, count, *_), chunk in by_place:
        if spans and spans[-1][0] == batch_key and spans[-1][2] == first:
            start, members = spans[-1][1], spans[-1][3]
            members.append((first + count, chunk))
            spans[-1] = (batch_key, start, first + count, members)
        else:
            spans.append((batch_key, first, first + count, [(first + count, chunk)]))
    for batch_key, start, end, members in spans:
        found = await run_for_many(
            connection, _SELECT_ITEMS, _ITEM_COLUMNS, (batch_key, start, end)
        )
        _deal(found, members, moment)


def _deal(
    found: Sequence[Sequence[Any]],
    members: Sequence[tuple[int, ClaimedChunk]],
    moment: int,
) -> None:
    """Gives each row, in order, to the chunk in whose range it lies."""
    ends = iter(members)
    end, chunk = next(ends)
    for index, item_id, user_id, data_json, attempt_count, next_attempt_time, before in found:
        while index >= end:
            end, chunk = next(ends)
        if next_attempt_time is not None and next_attempt_time > moment:
            waits = from_micros(next_attempt_time)
            chunk.waiting_time = min(chunk.waiting_time or waits, waits)
            continue
        chunk.items.append(
            PendingItem(
                index,
                item_id,
                user_id,
                data_json,
                attempt_count or 0,
                before or 0,
                attempt_count is None,
            )
        )


async def _count_taken(connection: AsyncConnection, claimed: Sequence[ClaimedChunk]) -> None:
    await update_rows(
        connection,
        "UPDATE chunks SET taken = v.taken FROM {rows} WHERE chunks.chunk_key = v.chunk_key"
        " RETURNING chunks.chunk_key",
        (Column("chunk_key"), Column("taken")),
        [(chunk.chunk_key, len(chunk.items)) for chunk in claimed],
    )


async def _start_batches(
    connection: AsyncConnection, claimed: Sequence[ClaimedChunk], *, now: datetime
) -> dict[int, Batch]:
    """Counts what was taken, and puts batches into RUNNING at their first chunk."""
    changes: dict[int, Change] = defaultdict(Change)
    for chunk in claimed:
        counts = changes[chunk.batch_key].counts
        counts["pending"] -= len(chunk.items)
        counts["running"] += len(chunk.items)
    written = await update_batches(connection, changes, now=now)
    for key, batch in list(written.items()):
        if batch.state is BatchState.PENDING:
            rows = await run(connection, _START_BATCH, (to_micros(now), key))
            written[key] = batch_from(rows[0])
            await events.insert(connection, [events.state_changed(written[key], now=now)])
    return written


async def _conform_released(
    connection: AsyncConnection, records: Sequence[ChunkRecord], written: Mapping[int, Batch]
) -> None:
    """Keeps what was released just now from being claimed, where its batch was stopped."""
    released: dict[int, list[int]] = defaultdict(list)
    for record in records:
        if record.release:
            released[record.batch_key].append(record.chunk_key)
    for batch_key, chunk_keys in released.items():
        await transitions.conform(connection, written[batch_key], chunk_keys)


def _record_row(record: ChunkRecord) -> Row:
    state = "DONE" if record.done else "OPEN" if record.release else "CLAIMED"
    return (
        record.chunk_key,
        record.epoch,
        state,
        record.taken,
        len(record.outcomes) + record.returned,
        to_micros(record.due_time),
        to_micros(record.dispatch_time),
    )


def _changes(records: Sequence[ChunkRecord]) -> dict[int, Change]:
    changes: dict[int, Change] = defaultdict(Change)
    for record in records:
        change = changes[record.batch_key]
        counts = change.counts
        for outcome in record.outcomes:
            counts[_COUNT_OF[outcome.state]] += 1
            if outcome.state is ItemState.PENDING:
                counts["retries"] += 1
            else:
                change.finished.append(outcome.index)
        counts["pending"] += record.returned
        counts["running"] -= len(record.outcomes) + record.returned
        change.closed_chunks += record.done
        change.progress = change.progress or bool(record.outcomes)
    return changes


_COUNT_OF = {state: state.value.lower() for state in ItemState}


async def _insert_outcomes(connection: AsyncConnection, records: Sequence[ChunkRecord]) -> None:
    """Writes outcomes; only where an attempt went before can there be a row that gives way."""
    successes: list[Row] = []
    first: list[Row] = []
    later: list[Row] = []
    failures: list[Row] = []
    for record in records:
        key = record.batch_key
        for outcome in record.outcomes:
            if outcome.is_new and outcome.state is ItemState.SUCCEEDED:
                successes.append(_success_row(key, outcome))
                continue
            (first if outcome.is_new else later).append(_outcome_row(key, outcome))
            if outcome.state is ItemState.PENDING:
                failures.append(_attempt_row(key, outcome))
    await insert_rows(connection, "outcomes", _SUCCESS_COLUMNS, successes)
    await insert_rows(connection, "outcomes", _OUTCOME_COLUMNS, first)
    await insert_rows(
        connection, "outcomes", _OUTCOME_COLUMNS, later, on_conflict=_OUTCOME_CONFLICT
    )
    await insert_rows(connection, "attempts", _ATTEMPT_COLUMNS, failures)


def _success_row(batch_key: int, outcome: Outcome) -> Row:
    """Returns the columns that a success has, for most outcomes are successes."""
    start, end = outcome.start_micros, outcome.end_micros
    return (
        batch_key,
        outcome.index,
        "SUCCEEDED",
        outcome.attempts,
        outcome.result_json,
        start,
        end,
        _duration_of(outcome),
        outcome.quality_score,
    )


def _duration_of(outcome: Outcome) -> int | None:
    if outcome.start_micros is None or outcome.end_micros is None:
        return None
    return outcome.end_micros - outcome.start_micros


def _outcome_row(batch_key: int, outcome: Outcome) -> Row:
    error = outcome.error
    return (
        batch_key,
        outcome.index,
        outcome.state,
        outcome.attempts,
        outcome.result_json,
        error.reason if error else None,
        error.message if error else None,
        error.retryable if error else None,
        outcome.skip_reason,
        to_micros(outcome.next_attempt_time),
        outcome.start_micros,
        None if outcome.state is ItemState.PENDING else outcome.end_micros,
        _duration_of(outcome),
        outcome.quality_score,
    )


def _attempt_row(batch_key: int, outcome: Outcome) -> Row:
    error = outcome.error
    assert error is not None  # noqa: S101  a retry waits because an attempt failed
    return (
        batch_key,
        outcome.index,
        outcome.attempts,
        outcome.start_micros,
        _duration_of(outcome),
        error.reason,
        error.message,
        error.retryable,
    )
