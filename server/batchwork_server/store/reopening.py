"""Items of a batch that is over, open again as a new attempt at the same batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from batchwork_server.domain.batch import Batch, dispatch_time
from batchwork_server.domain.filters import RetryFilter
from batchwork_server.domain.transition import APPLIES, Verb
from batchwork_server.store import events
from batchwork_server.store.own_items import condition_of_user
from batchwork_server.store.rows import BATCH_COLUMNS, batch_from
from batchwork_server.store.statements import Column, Dialect, dialect_of, one_of, run, update_rows
from batchwork_server.store.times import to_micros

_LOCK_BATCH = f"""
UPDATE batches SET update_time = ? WHERE batch_key = ?
  AND state IN ({", ".join(f"'{state}'" for state in sorted(APPLIES[Verb.RETRY]))})
RETURNING {BATCH_COLUMNS}
"""
# The last attempt stood in the outcome; its place is among the earlier ones now.
_KEEP_ATTEMPTS = """
INSERT INTO attempts (batch_key, item_index, number, start_time, duration, error_reason,
  error_message, error_retryable)
SELECT batch_key, item_index, attempt_count, COALESCE(start_time, end_time),
  COALESCE(duration, 0), error_reason, error_message, error_retryable
FROM outcomes o WHERE {condition} AND state = 'FAILED'
"""
_CHOSEN = "SELECT item_index, state FROM outcomes o WHERE {condition}"
_REOPEN = """
UPDATE outcomes AS o SET state = 'PENDING', attempts_before = attempt_count,
  next_attempt_time = NULL, end_time = NULL
WHERE {condition}
"""
_REOPEN_CHUNKS = """
UPDATE chunks SET state = 'OPEN', taken = 0, crashes = 0, suspect_index = NULL,
  due_time = v.due_time, dispatch_time = v.dispatch_time
FROM {rows} WHERE chunks.chunk_key = v.chunk_key
RETURNING chunks.chunk_key
"""
_REOPEN_BATCH = f"""
UPDATE batches SET state = 'PENDING', pending = pending + ?, failed = failed - ?,
  cancelled = cancelled - ?, expired = expired - ?, retries = retries + ?, open_chunks = ?,
  failed_before = failed - ?, tried_before = failed - ? + succeeded,
  attempt_number = attempt_number + 1, state_reason = '', state_message = '', closing = '',
  stop_in_flight = ?, end_time = NULL, expire_time = ?, event_sequence = event_sequence + ?,
  update_time = ?, provider_pauses = 0, paused_at_done = 0
WHERE batch_key = ?
RETURNING {BATCH_COLUMNS}
"""


async def reopen(
    connection: AsyncConnection, batch: Batch, matching: RetryFilter, *, now: datetime
) -> tuple[Batch | None, int]:
    """Opens the items that match again.

    Returns:
        The batch, and how many items; no batch when its state did not allow it.
    """
    locked = await run(connection, _LOCK_BATCH, (to_micros(now), batch.key))
    if not locked:
        return None, 0
    condition, parameters = _condition(batch, matching, dialect_of(connection))
    chosen = await run(connection, _CHOSEN.format(condition=condition), parameters)
    if not chosen:
        return batch_from(locked[0]), 0
    indexes = [index for index, _ in chosen]
    ranges = events.ranges_of(indexes)
    by_state = Counter(state for _, state in chosen)
    await run(connection, _KEEP_ATTEMPTS.format(condition=condition), parameters)
    await run(connection, _REOPEN.format(condition=condition), parameters)
    open_chunks = await _reopen_chunks(connection, batch, indexes, now=now)
    timeout = batch.request.options.batch_timeout
    failed = by_state["FAILED"]
    rows = await run(
        connection,
        _REOPEN_BATCH,
        (
            *(len(indexes), failed, by_state["CANCELLED"], by_state["EXPIRED"], failed),
            *(open_chunks, failed, failed, False),
            *(None if timeout is None else to_micros(now + timeout), events.retried_events(ranges)),
            *(to_micros(now), batch.key),
        ),
    )
    reopened = batch_from(rows[0])
    await events.insert(connection, events.retried(reopened, ranges, now=now))
    return reopened, len(indexes)


def _condition(
    batch: Batch, matching: RetryFilter, dialect: Dialect
) -> tuple[str, tuple[Any, ...]]:
    states = [str(state) for state in matching.states]
    of_states, named = one_of("o.state", states, dialect, key_type="text")
    conditions = ["o.batch_key = ?", of_states, "o.state <> 'SUCCEEDED'"]
    parameters: list[Any] = [batch.key, *named]
    if matching.error_reason:
        conditions.append("o.error_reason = ?")
        parameters.append(matching.error_reason)
    item_conditions: list[str] = []
    if matching.user_id:
        of_user, named = condition_of_user(matching.user_id, batch)
        item_conditions.append(of_user)
        parameters += named
    if matching.item_ids:
        of_items, named = one_of("i.item_id", matching.item_ids, dialect, key_type="text")
        item_conditions.append(of_items)
        parameters += named
    if item_conditions:
        conditions.append(
            "EXISTS (SELECT 1 FROM items i WHERE i.batch_key = o.batch_key"
            f" AND i.item_index = o.item_index AND {' AND '.join(item_conditions)})"
        )
    return " AND ".join(conditions), tuple(parameters)


async def _reopen_chunks(
    connection: AsyncConnection, batch: Batch, indexes: Sequence[int], *, now: datetime
) -> int:
    """Opens the chunks in which the items lie, and returns how many those are."""
    ranges = await run(
        connection,
        "SELECT chunk_key, first_index, item_count FROM chunks WHERE batch_key = ?"
        " ORDER BY first_index",
        (batch.key,),
    )
    keys = _chunks_with(sorted(indexes), [(key, first, count) for key, first, count in ranges])
    options = batch.request.options
    times = (
        dispatch_time(
            due=now,
            handicap=options.handicap,
            place=place,
            chunk_duration=options.chunk_duration,
        )
        for place in range(len(keys))
    )
    rows = [(key, to_micros(now), to_micros(time)) for key, time in zip(keys, times, strict=True)]
    columns = (Column("chunk_key"), Column("due_time"), Column("dispatch_time"))
    await update_rows(connection, _REOPEN_CHUNKS, columns, rows)
    return len(keys)


def _chunks_with(indexes: Sequence[int], ranges: Iterable[tuple[int, int, int]]) -> list[int]:
    """Returns the keys of the ranges in which an index lies; both are sorted."""
    keys: list[int] = []
    place = 0
    for key, first, count in ranges:
        while place < len(indexes) and indexes[place] < first:
            place += 1
        if place == len(indexes):
            break
        if indexes[place] < first + count:
            keys.append(key)
    return keys
