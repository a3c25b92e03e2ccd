"""The steps of a batch from state to state: each one conditional statement, with its event.

A step takes the batch's row first and skips open chunks that another transaction has in hand. That
one touches chunks first, the row second, and then brings its chunks in line with the state that it
found there (``conform``): whoever comes second sees what the first one did, and nobody waits in a
circle.

A chunk that is held is waited for. Whoever has it in hand came too late to claim it, so that it
will bring nothing in line and may never look at the batch: a held chunk that was skipped would
stay held for ever. Should the two wait for each other, the database ends one of them, which tries
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from batchwork_server.domain import event_types
from batchwork_server.domain.batch import (
    Batch,
    BatchState,
    StateReason,
    dispatch_time,
    final_state,
)
from batchwork_server.domain.failure import FailureAction
from batchwork_server.domain.reference import deliveries_of
from batchwork_server.domain.transition import APPLIES, Verb
from batchwork_server.store import events
from batchwork_server.store.own_items import count_served
from batchwork_server.store.rows import BATCH_COLUMNS, batch_from
from batchwork_server.store.statements import Column, Row, dialect_of, run, update_rows
from batchwork_server.store.times import duration_to_micros, to_micros


def _in_states(verb: Verb) -> str:
    return "state IN (" + ", ".join(f"'{state}'" for state in sorted(APPLIES[verb])) + ")"


_STEP = "event_sequence = event_sequence + 1, update_time = ?"
_RETURNING = f"RETURNING {BATCH_COLUMNS}, open_chunks"

_PAUSE = f"""
UPDATE batches SET state = 'PAUSED', state_reason = ?, state_message = ?, resume_time = ?, {_STEP}
WHERE batch_key = ? AND {_in_states(Verb.PAUSE)} {_RETURNING}
"""
# The provider may be away again and again; only what was done in between counts as progress.
_PAUSE_FOR_PROVIDER = f"""
UPDATE batches SET state = 'PAUSED', state_reason = ?, state_message = ?, resume_time = ?, {_STEP},
  provider_pauses = CASE WHEN total - pending - running > paused_at_done THEN 1
    ELSE provider_pauses + 1 END,
  paused_at_done = total - pending - running
WHERE batch_key = ? AND {_in_states(Verb.PAUSE)} {_RETURNING}
"""
_STAY_PAUSED = f"""
UPDATE batches SET state_reason = ?, state_message = ?, resume_time = NULL, {_STEP}
WHERE batch_key = ? AND state = 'PAUSED'
  AND (resume_time IS NOT NULL OR state_reason = 'USERS_UNAVAILABLE') {_RETURNING}
"""
_RESUME = f"""
UPDATE batches SET state = CASE WHEN start_time IS NULL THEN 'PENDING' ELSE 'RUNNING' END,
  failed_before = CASE WHEN state_reason = 'FAILURE_POLICY' THEN failed ELSE failed_before END,
  tried_before = CASE WHEN state_reason = 'FAILURE_POLICY' THEN failed + succeeded
    ELSE tried_before END,
  state_reason = '', state_message = '', resume_time = NULL, {_STEP}
WHERE batch_key = ? AND {_in_states(Verb.RESUME)}{{condition}} {_RETURNING}
"""
_CLOSE = f"""
UPDATE batches SET state = 'CANCELLING', closing = ?, state_reason = ?, state_message = ?,
  stop_in_flight = ?, resume_time = NULL, expire_time = NULL, {_STEP}
WHERE batch_key = ? AND {_in_states(Verb.CANCEL)}{{condition}} {_RETURNING}
"""
_STOP_IN_FLIGHT = f"""
UPDATE batches SET stop_in_flight = ?, {_STEP}
WHERE batch_key = ? AND state = 'CANCELLING' AND NOT stop_in_flight {_RETURNING}
"""
_SEAL = f"""
UPDATE batches SET state = 'PENDING', expire_time = ?, {_STEP}
WHERE batch_key = ? AND {_in_states(Verb.SEAL)} {_RETURNING}
"""
_NOTE = f"""
UPDATE batches SET state_reason = ?, state_message = ?, {_STEP}
WHERE batch_key = ? AND state_reason = '' {_RETURNING}
"""
_END = f"""
UPDATE batches SET state = ?, start_time = COALESCE(start_time, ?), end_time = ?,
  state_reason = ?, state_message = ?, closing = '', resume_time = NULL, expire_time = NULL,
  event_sequence = event_sequence + ?, update_time = ?
WHERE batch_key = ? AND end_time IS NULL {_RETURNING}
"""


async def pause(
    connection: AsyncConnection,
    batch_key: int,
    *,
    reason: StateReason,
    message: str,
    resume_time: datetime | None,
    now: datetime,
) -> Batch | None:
    """Puts a batch into PAUSED; returns none when its state did not allow it."""
    is_provider = reason in (StateReason.PROVIDER_DOWN, StateReason.PROVIDER_RATE_LIMITED)
    statement = _PAUSE_FOR_PROVIDER if is_provider else _PAUSE
    parameters = (reason, message, to_micros(resume_time), to_micros(now), batch_key)
    batch = await _step(connection, statement, parameters, now=now)
    if batch is not None:
        await _move_chunks(connection, batch_key, "OPEN", "HELD")
    return batch


async def stay_paused(
    connection: AsyncConnection,
    batch_key: int,
    *,
    reason: StateReason,
    message: str,
    now: datetime,
) -> Batch | None:
    """Keeps a batch paused that would have resumed by itself; returns none for any other."""
    parameters = (reason, message, to_micros(now), batch_key)
    return await _step(connection, _STAY_PAUSED, parameters, now=now)


async def resume(
    connection: AsyncConnection, batch_key: int, *, now: datetime, only_if_due: bool = False
) -> Batch | None:
    """Goes on with a paused batch; returns none when it is not paused, or not due."""
    condition = " AND resume_time <= ?" if only_if_due else ""
    more = (to_micros(now),) if only_if_due else ()
    batch = await _step(
        connection,
        _RESUME.format(condition=condition),
        (to_micros(now), batch_key, *more),
        event_type=event_types.RESUMED,
        now=now,
    )
    if batch is not None:
        await _move_chunks(connection, batch_key, "HELD", "OPEN")
    return batch


async def close(
    connection: AsyncConnection,
    batch_key: int,
    *,
    closing: BatchState,
    reason: StateReason,
    message: str,
    stop_in_flight: bool,
    now: datetime,
    only_if_due: bool = False,
) -> Batch | None:
    """Puts a batch into CANCELLING, on its way to ``closing``; ends one that has nothing open.

    Args:
        only_if_due: Only when its time is over.

    Returns:
        The batch; none when its state did not allow it, or it is not due.
    """
    condition = " AND expire_time <= ?" if only_if_due else ""
    more = (to_micros(now),) if only_if_due else ()
    parameters = (closing, reason, message, stop_in_flight, to_micros(now), batch_key, *more)
    rows = await run(connection, _CLOSE.format(condition=condition), parameters)
    if not rows:
        return None
    batch, open_chunks = batch_from(rows[0]), rows[0][-1]
    await events.insert(connection, [events.state_changed(batch, now=now)])
    await _move_chunks(connection, batch_key, "OPEN", "CLOSING")
    await _move_chunks(connection, batch_key, "HELD", "CLOSING")
    if open_chunks:
        return batch
    # A draft in which nothing is to be done: no item of it can say what it ended for.
    return await end(connection, batch, now=now, state=closing)


async def stop_in_flight(
    connection: AsyncConnection, batch_key: int, *, now: datetime
) -> Batch | None:
    """Has the items in flight of a batch stopped that is being cancelled already."""
    return await _step(connection, _STOP_IN_FLIGHT, (True, to_micros(now), batch_key), now=now)


async def seal(connection: AsyncConnection, batch: Batch, *, now: datetime) -> Batch | None:
    """Starts a draft; ends one at once that has nothing to do.

    Returns:
        The batch; none when it is no draft.
    """
    options = batch.request.options
    expire_time = None if options.batch_timeout is None else now + options.batch_timeout
    rows = await run(connection, _SEAL, (to_micros(expire_time), to_micros(now), batch.key))
    if not rows:
        return None
    sealed, open_chunks = batch_from(rows[0]), rows[0][-1]
    fact = events.state_changed(sealed, now=now, event_type=event_types.SEALED)
    await events.insert(connection, [fact])
    if not open_chunks:
        return await end(connection, sealed, now=now)
    first = dispatch_time(due=now, handicap=options.handicap, place=0)
    await run(
        connection,
        "UPDATE chunks SET state = 'OPEN', due_time = ?,"
        " dispatch_time = ? + first_index / ? * ? WHERE batch_key = ? AND state = 'HELD'",
        (
            *(to_micros(now), to_micros(first), options.chunk_size),
            *(duration_to_micros(options.chunk_duration), batch.key),
        ),
    )
    return sealed


async def note(
    connection: AsyncConnection,
    batch_key: int,
    *,
    reason: StateReason,
    message: str,
    now: datetime,
) -> Batch | None:
    """Says something of a batch that goes on; once."""
    parameters = (reason, message, to_micros(now), batch_key)
    return await _step(connection, _NOTE, parameters, event_type=event_types.FAILING, now=now)


async def end(
    connection: AsyncConnection, batch: Batch, *, now: datetime, state: BatchState | None = None
) -> Batch:
    """Ends a batch that has nothing open, in a state, or in the one that its counts say.

    What it delivers is delivered with it, and told before its end.
    """
    state, reason, message = _end_of(batch, state)
    moment = to_micros(now)
    distributes = bool(batch.request.distribution)
    rows = await run(
        connection,
        _END,
        (state, moment, moment, reason, message, 1 + distributes, moment, batch.key),
    )
    if not rows:
        return batch
    ended = batch_from(rows[0])
    facts = [events.state_changed(ended, now=now)]
    if distributes:
        served = await count_served(connection, ended)
        facts.insert(0, events.delivered(ended, deliveries_of(ended, served=served), now=now))
    await events.insert(connection, facts)
    return ended


def _end_of(batch: Batch, state: BatchState | None) -> tuple[BatchState, str, str]:
    """Returns the state in which a batch ends, the reason for it, and more about that.

    When too many items failed, that counts however late it turned out: with the last items there
    is nothing left to be stopped, and no other word of it.
    """
    state = state or final_state(batch.counts, closing=batch.closing)
    if batch.closing is state:
        return state, batch.state_reason, batch.state_message
    policy = batch.request.options.failure_policy
    if policy is None or policy.action is FailureAction.PAUSE or not batch.breaks_failure_policy():
        return state, "", ""
    if policy.action is FailureAction.FAIL:
        state = BatchState.FAILED
    return state, StateReason.FAILURE_POLICY, batch.failure_message


async def conform(connection: AsyncConnection, batch: Batch, chunk_keys: Sequence[int]) -> None:
    """Brings chunks that were opened in this transaction in line with the state of their batch."""
    state = {BatchState.PAUSED: "HELD", BatchState.CANCELLING: "CLOSING"}.get(batch.state)
    if state is None or not chunk_keys:
        return
    await update_rows(
        connection,
        f"UPDATE chunks SET state = '{state}' FROM {{rows}}"
        " WHERE chunks.chunk_key = v.chunk_key AND chunks.state = 'OPEN'"
        " RETURNING chunks.chunk_key",
        (Column("chunk_key"),),
        [(key,) for key in chunk_keys],
    )


async def _step(
    connection: AsyncConnection,
    statement: str,
    parameters: Row,
    *,
    now: datetime,
    event_type: str = "",
) -> Batch | None:
    rows = await run(connection, statement, parameters)
    if not rows:
        return None
    batch = batch_from(rows[0])
    await events.insert(connection, [events.state_changed(batch, now=now, event_type=event_type)])
    return batch


async def _move_chunks(connection: AsyncConnection, batch_key: int, old: str, new: str) -> None:
    """Moves chunks from state to state, but open ones that another transaction has in hand."""
    chosen = f"batch_key = ? AND state = '{old}'"
    if old == "OPEN" and dialect_of(connection) == "postgresql":
        chosen = (
            f"chunk_key IN (SELECT chunk_key FROM chunks WHERE {chosen} FOR UPDATE SKIP LOCKED)"
        )
    await run(connection, f"UPDATE chunks SET state = '{new}' WHERE {chosen}", (batch_key,))
