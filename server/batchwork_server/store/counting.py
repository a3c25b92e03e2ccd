"""The counts of batches: changed only together with what they count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from batchwork_server.domain.batch import Batch, BatchState, StateReason
from batchwork_server.domain.failure import FailureAction
from batchwork_server.store import events, transitions
from batchwork_server.store.rows import BATCH_COLUMNS, COUNT_NAMES, batch_from
from batchwork_server.store.statements import Row, run
from batchwork_server.store.times import to_micros

_UPDATE_BATCH = f"""
UPDATE batches SET
  pending = pending + ?, running = running + ?, succeeded = succeeded + ?, failed = failed + ?,
  skipped = skipped + ?, cancelled = cancelled + ?, expired = expired + ?, retries = retries + ?,
  open_chunks = open_chunks - ?, event_sequence = event_sequence + ?, update_time = ?
WHERE batch_key = ?
RETURNING {BATCH_COLUMNS}, open_chunks
"""


@dataclass(slots=True)
class Change:
    """What one transaction adds to the counts of one batch.

    Attributes:
        closed_chunks: Chunks of which nothing is left.
        finished: Items that reached their final state.
        progress: Watchers are to be told.
    """

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNT_NAMES, 0))
    closed_chunks: int = 0
    finished: list[int] = field(default_factory=list)
    progress: bool = False


async def update_batches(
    connection: AsyncConnection, changes: Mapping[int, Change], *, now: datetime
) -> dict[int, Batch]:
    """Adds the changes to the counts, writes the events, and ends or stops batches.

    Returns:
        The batches, by their keys, as they are then.
    """
    written: dict[int, Batch] = {}
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
            fact: Row = events.progress(batch, change.finished, now=now)
            await events.insert(connection, [fact])
        if open_chunks == 0 and change.closed_chunks:
            batch = await transitions.end(connection, batch, now=now)
        elif (c["failed"] or c["succeeded"]) and batch.breaks_failure_policy():
            # A success can be what makes the smallest sample full.
            batch = await _stop_failing(connection, batch, now=now) or batch
        written[key] = batch
    return written


async def _stop_failing(
    connection: AsyncConnection, batch: Batch, *, now: datetime
) -> Batch | None:
    """Does what the failure policy says; returns none when it was done before."""
    policy = batch.request.options.failure_policy
    if policy is None or batch.state is not BatchState.RUNNING:
        return None
    reason, message = StateReason.FAILURE_POLICY, batch.failure_message
    if policy.action is FailureAction.CONTINUE:
        if batch.state_reason:
            return None
        return await transitions.note(
            connection, batch.key, reason=reason, message=message, now=now
        )
    if policy.action is FailureAction.FAIL:
        return await transitions.close(
            connection,
            batch.key,
            closing=BatchState.FAILED,
            reason=reason,
            message=message,
            stop_in_flight=False,
            now=now,
        )
    return await transitions.pause(
        connection, batch.key, reason=reason, message=message, resume_time=None, now=now
    )
