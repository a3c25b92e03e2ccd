"""The ledger of dispatch: claims, records, leases. The only way to an outcome.

Every transaction touches chunks first, then batches by their key, then events: two of them never
wait for each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from batchwork_server.domain.batch import Batch, BatchState, Counts, final_state
from batchwork_server.domain.item import ItemState, Outcome, PendingItem
from batchwork_server.store import events
from batchwork_server.store.database import Database
from batchwork_server.store.rows import BATCH_COLUMNS, COUNT_NAMES, batch_from, counts_from
from batchwork_server.store.statements import Column, Row, insert_rows, run, update_rows
from batchwork_server.store.store import (
    ChunkRecord,
    Claimed,
    ClaimedChunk,
    Recorded,
    Reopened,
)
from batchwork_server.store.times import duration_to_micros, from_micros, to_micros

EVERYTHING_DUE = 0
"""The due time of a chunk whose items do not wait for their retries: its batch was cancelled."""

_RECORD_COLUMNS = (
    Column("chunk_key"),
    Column("epoch"),
    Column("state", "text"),
    Column("recorded"),
    Column("due_time"),
    Column("dispatch_time"),
)
# The epoch is the fence: a worker that lost its chunk gets no row back, and writes nothing. And
# nobody lets go of a chunk without an account of every item that was taken.
_RECORD_CHUNKS = """
UPDATE chunks SET
  state = v.state,
  taken = CASE WHEN v.state = 'CLAIMED' THEN chunks.taken - v.recorded ELSE 0 END,
  due_time = COALESCE(v.due_time, chunks.due_time),
  dispatch_time = COALESCE(v.dispatch_time, chunks.dispatch_time)
FROM {rows}
WHERE chunks.chunk_key = v.chunk_key AND chunks.epoch = v.epoch AND chunks.state = 'CLAIMED'
  AND (v.state = 'CLAIMED' OR chunks.taken = v.recorded)
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

_UPDATE_BATCH = f"""
UPDATE batches SET
  pending = pending + ?, running = running + ?, succeeded = succeeded + ?, failed = failed + ?,
  skipped = skipped + ?, cancelled = cancelled + ?, expired = expired + ?, retries = retries + ?,
  open_chunks = open_chunks - ?, event_sequence = event_sequence + ?, update_time = ?
WHERE batch_key = ?
RETURNING {BATCH_COLUMNS}, open_chunks
"""
_START_BATCH = f"""
UPDATE batches SET state = 'RUNNING', start_time = ?, event_sequence = event_sequence + 1
WHERE batch_key = ? AND state = 'PENDING'
RETURNING {BATCH_COLUMNS}
"""
_END_BATCH = f"""
UPDATE batches SET state = ?, start_time = COALESCE(start_time, ?), end_time = ?,
  event_sequence = event_sequence + 1
WHERE batch_key = ? AND state IN ('PENDING', 'RUNNING', 'CANCELLING')
RETURNING {BATCH_COLUMNS}
"""

_SELECT_ITEMS = """
SELECT i.item_index, i.item_id, i.user_id, i.data_json, o.attempt_count, o.next_attempt_time
FROM items i LEFT JOIN outcomes o ON o.batch_key = i.batch_key AND o.item_index = i.item_index
WHERE i.batch_key = ? AND i.item_index >= ? AND i.item_index < ?
  AND (o.state IS NULL OR o.state = 'PENDING')
ORDER BY i.item_index
"""


@dataclass(slots=True)
class _Change:
    """What one transaction adds to the counts of one batch."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNT_NAMES, 0))
    closed_chunks: int = 0
    finished: list[int] = field(default_factory=list)
    progress: bool = False


class SqlChunks:
    """Implements ``ChunkStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def next_chunks(self, *, now: datetime, limit: int) -> list[tuple[int, int]]:
        async with self._database.reading() as connection:
            rows = await run(
                connection,
                "SELECT chunk_key, item_count FROM chunks WHERE state = 'OPEN' AND due_time <= ?"
                " ORDER BY dispatch_time, chunk_key LIMIT ?",
                (to_micros(now), limit),
            )
        return [(key, count) for key, count in rows]

    async def next_due_time(self, *, after: datetime) -> datetime | None:
        async with self._database.reading() as connection:
            [(due,)] = await run(
                connection,
                "SELECT MIN(due_time) FROM chunks WHERE state = 'OPEN' AND due_time > ?",
                (to_micros(after),),
            )
        return from_micros(due)

    async def claim(
        self, chunk_keys: Sequence[int], *, owner: str, now: datetime, lease_time: datetime
    ) -> Claimed:
        async with self._database.transaction() as tx:
            connection = tx.connection
            rows = await _take(connection, chunk_keys, owner=owner, now=now, lease_time=lease_time)
            claimed = [
                ClaimedChunk(
                    chunk_key=chunk_key,
                    epoch=epoch,
                    batch_key=batch_key,
                    items=[],
                )
                for chunk_key, epoch, batch_key, _, _, _ in rows
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
            written = await _update_batches(connection, _changes(kept), now=now)
            await _hurry_cancelled(connection, kept, written)
        lost = frozenset(record.chunk_key for record in records) - held
        return Recorded(lost=lost, batches=written)

    async def extend(
        self, chunk_keys: Sequence[int], *, owner: str, lease_time: datetime
    ) -> frozenset[int]:
        if not chunk_keys:
            return frozenset()
        marks = ", ".join("?" for _ in chunk_keys)
        async with self._database.transaction() as tx:
            rows = await run(
                tx.connection,
                "UPDATE chunks SET lease_time = ? WHERE owner = ? AND state = 'CLAIMED'"
                f" AND chunk_key IN ({marks}) RETURNING chunk_key",
                (to_micros(lease_time), owner, *sorted(chunk_keys)),
            )
        return frozenset(key for (key,) in rows)

    async def reopen_expired(self, *, now: datetime, owner_is_dead: bool = False) -> Reopened:
        condition = "" if owner_is_dead else " AND lease_time < ?"
        parameters = () if owner_is_dead else (to_micros(now),)
        async with self._database.transaction() as tx:
            rows = await run(
                tx.connection,
                "UPDATE chunks SET state = 'OPEN', crashes = crashes + 1"
                f" WHERE state = 'CLAIMED'{condition} RETURNING batch_key, taken",
                parameters,
            )
            changes: dict[int, _Change] = defaultdict(_Change)
            for batch_key, taken in rows:
                changes[batch_key].counts["running"] -= taken
                changes[batch_key].counts["pending"] += taken
            written = await _update_batches(tx.connection, changes, now=now)
        return Reopened(chunk_count=len(rows), batches=written)

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


async def _take(
    connection: AsyncConnection,
    chunk_keys: Sequence[int],
    *,
    owner: str,
    now: datetime,
    lease_time: datetime,
) -> list[Row]:
    marks = ", ".join("?" for _ in chunk_keys)
    return await run(
        connection,
        "UPDATE chunks SET state = 'CLAIMED', epoch = epoch + 1, owner = ?, claim_time = ?,"
        f" lease_time = ? WHERE state = 'OPEN' AND chunk_key IN ({marks})"
        " RETURNING chunk_key, epoch, batch_key, first_index, item_count, due_time",
        (owner, to_micros(now), to_micros(lease_time), *sorted(chunk_keys)),
    )


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
    everything_due = {chunk_key for chunk_key, *_, due_time in rows if due_time == EVERYTHING_DUE}
    for (_, _, batch_key, first, count, _), chunk in by_place:
        if spans and spans[-1][0] == batch_key and spans[-1][2] == first:
            start, members = spans[-1][1], spans[-1][3]
            members.append((first + count, chunk))
            spans[-1] = (batch_key, start, first + count, members)
        else:
            spans.append((batch_key, first, first + count, [(first + count, chunk)]))
    for batch_key, start, end, members in spans:
        found = await run(connection, _SELECT_ITEMS, (batch_key, start, end))
        _deal(found, members, moment, everything_due)


def _deal(
    found: Sequence[Row],
    members: Sequence[tuple[int, ClaimedChunk]],
    moment: int,
    everything_due: set[int],
) -> None:
    """Gives each row, in order, to the chunk in whose range it lies."""
    ends = iter(members)
    end, chunk = next(ends)
    for index, item_id, user_id, data_json, attempt_count, next_attempt_time in found:
        while index >= end:
            end, chunk = next(ends)
        is_due = next_attempt_time is None or next_attempt_time <= moment
        if not is_due and chunk.chunk_key not in everything_due:
            waits = from_micros(next_attempt_time)
            chunk.waiting_time = min(chunk.waiting_time or waits, waits)
            continue
        chunk.items.append(
            PendingItem(
                index=index,
                item_id=item_id,
                user_id=user_id,
                data_json=data_json,
                attempts=attempt_count or 0,
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
    changes: dict[int, _Change] = defaultdict(_Change)
    for chunk in claimed:
        counts = changes[chunk.batch_key].counts
        counts["pending"] -= len(chunk.items)
        counts["running"] += len(chunk.items)
    written = await _update_batches(connection, changes, now=now)
    for key, batch in list(written.items()):
        if batch.state is BatchState.PENDING:
            rows = await run(connection, _START_BATCH, (to_micros(now), key))
            written[key] = batch_from(rows[0])
            await events.insert(connection, [events.state_changed(written[key], now=now)])
    return written


async def _hurry_cancelled(
    connection: AsyncConnection, records: Sequence[ChunkRecord], written: Mapping[int, Batch]
) -> None:
    """Makes due what was released just now although its batch was cancelled meanwhile."""
    keys = [
        (record.chunk_key,)
        for record in records
        if record.release and written[record.batch_key].state is BatchState.CANCELLING
    ]
    await update_rows(
        connection,
        f"UPDATE chunks SET due_time = {EVERYTHING_DUE}, dispatch_time = 0 FROM {{rows}}"
        " WHERE chunks.chunk_key = v.chunk_key RETURNING chunks.chunk_key",
        (Column("chunk_key"),),
        keys,
    )


def _record_row(record: ChunkRecord) -> Row:
    state = "DONE" if record.done else "OPEN" if record.release else "CLAIMED"
    return (
        record.chunk_key,
        record.epoch,
        state,
        len(record.outcomes) + record.returned,
        to_micros(record.due_time),
        to_micros(record.dispatch_time),
    )


def _changes(records: Sequence[ChunkRecord]) -> dict[int, _Change]:
    changes: dict[int, _Change] = defaultdict(_Change)
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
    first: list[Row] = []
    later: list[Row] = []
    failures: list[Row] = []
    for record in records:
        for outcome in record.outcomes:
            row = _outcome_row(record.batch_key, outcome)
            (later if _went_before(outcome) else first).append(row)
            if outcome.state is ItemState.PENDING:
                failures.append(_attempt_row(record.batch_key, outcome))
    await insert_rows(connection, "outcomes", _OUTCOME_COLUMNS, first)
    await insert_rows(
        connection, "outcomes", _OUTCOME_COLUMNS, later, on_conflict=_OUTCOME_CONFLICT
    )
    await insert_rows(connection, "attempts", _ATTEMPT_COLUMNS, failures)


def _went_before(outcome: Outcome) -> int:
    """Returns how many attempts ended before this outcome came about."""
    was_attempt = outcome.state not in (ItemState.CANCELLED, ItemState.EXPIRED)
    return outcome.attempts - was_attempt


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
        to_micros(outcome.start_time),
        to_micros(outcome.end_time),
        duration_to_micros(outcome.duration),
        outcome.quality_score,
    )


def _attempt_row(batch_key: int, outcome: Outcome) -> Row:
    error = outcome.error
    assert error is not None  # noqa: S101  a retry waits because an attempt failed
    return (
        batch_key,
        outcome.index,
        outcome.attempts,
        to_micros(outcome.start_time),
        duration_to_micros(outcome.duration),
        error.reason,
        error.message,
        error.retryable,
    )


async def _update_batches(
    connection: AsyncConnection, changes: Mapping[int, _Change], *, now: datetime
) -> dict[int, Batch]:
    """Adds the changes to the counts, writes the events, and ends the batches that are done."""
    written: dict[int, Batch] = {}
    facts: list[Row] = []
    for key, change in sorted(changes.items()):
        c = change.counts
        [row] = await run(
            connection,
            _UPDATE_BATCH,
            (
                *(c["pending"], c["running"], c["succeeded"], c["failed"], c["skipped"]),
                *(c["cancelled"], c["expired"], c["retries"], change.closed_chunks),
                *(int(change.progress), to_micros(now), key),
            ),
        )
        batch, open_chunks = batch_from(row), row[-1]
        if change.progress:
            facts.append(events.progress(batch, change.finished, now=now))
        if open_chunks == 0 and change.closed_chunks:
            batch = await _end(connection, batch, now=now)
            facts.append(events.state_changed(batch, now=now))
        written[key] = batch
    await events.insert(connection, facts)
    return written


async def _end(connection: AsyncConnection, batch: Batch, *, now: datetime) -> Batch:
    state = final_state(batch.counts, cancelling=batch.state is BatchState.CANCELLING)
    moment = to_micros(now)
    [row] = await run(connection, _END_BATCH, (state, moment, moment, batch.key))
    return batch_from(row)
