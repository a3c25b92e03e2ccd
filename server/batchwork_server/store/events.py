"""Facts about batches, numbered in the batch's own row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from batchwork_server.domain.batch import Batch, BatchState
from batchwork_server.store.rows import counts_from, counts_to
from batchwork_server.store.statements import Column, Row, insert_rows
from batchwork_server.store.store import Event
from batchwork_server.store.times import from_micros, to_micros

STATE_CHANGED = "STATE_CHANGED"
PROGRESS = "PROGRESS"
PROGRESS_TYPE = "batch:progress"

# The requirement documents' names of events.
_STATE_TYPES = {
    BatchState.PENDING: "batch:created",
    BatchState.RUNNING: "batch:started",
    BatchState.SUCCEEDED: "batch:completed",
    BatchState.PARTIALLY_SUCCEEDED: "batch:completed",
    BatchState.FAILED: "batch:failed",
    BatchState.CANCELLING: "batch:cancelling",
    BatchState.CANCELLED: "batch:cancelled",
    BatchState.EXPIRED: "batch:expired",
}

_COLUMNS = (
    Column("batch_key"),
    Column("sequence"),
    Column("kind", "text"),
    Column("event_type", "text"),
    Column("event_time"),
    Column("payload_json", "text"),
)


def state_changed(batch: Batch, *, now: datetime) -> Row:
    """Returns the row that tells of the state in which ``batch`` is now."""
    return _row(batch, STATE_CHANGED, _STATE_TYPES[batch.state], (), now=now)


def progress(batch: Batch, indexes: Iterable[int], *, now: datetime) -> Row:
    """Returns the row that tells of the counts of ``batch`` and the items that became final."""
    return _row(batch, PROGRESS, PROGRESS_TYPE, ranges_of(indexes), now=now)


def _row(
    batch: Batch,
    kind: str,
    event_type: str,
    finished: Sequence[tuple[int, int]],
    *,
    now: datetime,
) -> Row:
    payload = {"state": batch.state, "counts": counts_to(batch.counts), "finished": finished}
    text = orjson.dumps(payload).decode()
    return (batch.key, batch.sequence, kind, event_type, to_micros(now), text)


async def insert(connection: AsyncConnection, rows: Sequence[Row]) -> None:
    await insert_rows(connection, "events", _COLUMNS, rows)


def event_from(row: Sequence[Any]) -> Event:
    """Reads sequence, kind, event_type, event_time, payload_json."""
    payload = orjson.loads(row[4])
    return Event(
        sequence=row[0],
        kind=row[1],
        event_type=row[2],
        event_time=from_micros(row[3]),
        state=BatchState(payload["state"]),
        counts=counts_from(payload["counts"]),
        finished=tuple((first, last) for first, last in payload["finished"]),
    )


def ranges_of(indexes: Iterable[int]) -> list[tuple[int, int]]:
    """Returns the indexes as ranges, first and last: a chunk that went well is one."""
    ranges: list[tuple[int, int]] = []
    for index in sorted(indexes):
        if ranges and ranges[-1][1] == index - 1:
            ranges[-1] = (ranges[-1][0], index)
        else:
            ranges.append((index, index))
    return ranges
