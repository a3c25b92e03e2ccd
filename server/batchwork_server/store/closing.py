"""What is left of batches that are being cancelled: closed by ranges, not item by item."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from batchwork_server.domain.batch import Batch, BatchState
from batchwork_server.domain.item import ItemState
from batchwork_server.store.counting import Change, update_batches
from batchwork_server.store.statements import dialect_of, run
from batchwork_server.store.times import to_micros

ITEMS_AT_ONCE = 5000
"""About how many items one transaction closes; the writers of results wait so long at most."""

_CLOSE_CHUNKS = """
UPDATE chunks SET state = 'DONE', taken = 0 WHERE chunk_key IN (
  SELECT chunk_key FROM chunks WHERE batch_key = ? AND state = 'CLOSING'
  ORDER BY first_index LIMIT ?{skip})
RETURNING first_index, item_count
"""
_CLOSE_NEW = """
INSERT INTO outcomes (batch_key, item_index, state, attempt_count, end_time)
SELECT i.batch_key, i.item_index, CAST(? AS text), 0, CAST(? AS bigint) FROM items i
WHERE i.batch_key = ? AND i.item_index >= ? AND i.item_index < ? AND NOT EXISTS (
  SELECT 1 FROM outcomes o WHERE o.batch_key = i.batch_key AND o.item_index = i.item_index)
RETURNING item_index
"""
_CLOSE_WAITING = """
UPDATE outcomes SET state = ?, end_time = ?, next_attempt_time = NULL,
  error_reason = NULL, error_message = NULL, error_retryable = NULL
WHERE batch_key = ? AND item_index >= ? AND item_index < ? AND state = 'PENDING'
RETURNING item_index
"""


async def close_some(connection: AsyncConnection, *, now: datetime) -> Batch | None:
    """Closes some of the chunks of one batch that is being cancelled.

    Returns:
        The batch after it; none when nothing is left that nobody else is closing.
    """
    rows = await run(
        connection,
        # The size of the first chunk stands for that of all: it is found at once, and it is the
        # same one however the rows lie.
        "SELECT b.batch_key, b.closing, (SELECT f.item_count FROM chunks f"
        "  WHERE f.batch_key = b.batch_key ORDER BY f.first_index LIMIT 1)"
        " FROM chunks c JOIN batches b ON b.batch_key = c.batch_key WHERE c.state = 'CLOSING'"
        " ORDER BY c.batch_key LIMIT 1",
    )
    if not rows:
        return None
    batch_key, closing, item_count = rows[0]
    state = ItemState.EXPIRED if closing == BatchState.EXPIRED else ItemState.CANCELLED
    skip = " FOR UPDATE SKIP LOCKED" if dialect_of(connection) == "postgresql" else ""
    limit = max(1, ITEMS_AT_ONCE // item_count)
    ranges = await run(connection, _CLOSE_CHUNKS.format(skip=skip), (batch_key, limit))
    if not ranges:
        return None  # another server has them in hand, and tells of the batch
    change = Change(closed_chunks=len(ranges), progress=True)
    for first, end in _spans((first, count) for first, count in ranges):
        for statement in (_CLOSE_NEW, _CLOSE_WAITING):
            parameters = (state, to_micros(now), batch_key, first, end)
            closed = await run(connection, statement, parameters)
            change.finished += [index for (index,) in closed]
    change.counts["pending"] -= len(change.finished)
    change.counts[state.lower()] += len(change.finished)
    written = await update_batches(connection, {batch_key: change}, now=now)
    return written[batch_key]


def _spans(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Returns ranges, first and count, as few as possible, first and end."""
    spans: list[tuple[int, int]] = []
    for first, count in sorted(ranges):
        if spans and spans[-1][1] == first:
            spans[-1] = (spans[-1][0], first + count)
        else:
            spans.append((first, first + count))
    return spans
