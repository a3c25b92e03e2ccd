"""Facts about batches, numbered in the batch's own row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from batchwork_server.domain import event_types
from batchwork_server.domain.batch import Batch, BatchState
from batchwork_server.domain.distribution import DeliveryCounts
from batchwork_server.store.rows import counts_from, counts_to
from batchwork_server.store.statements import Column, Row, insert_rows
from batchwork_server.store.store import Event
from batchwork_server.store.times import from_micros, to_micros

STATE_CHANGED = "STATE_CHANGED"
PROGRESS = "PROGRESS"
VALIDATION = "VALIDATION"
DELIVERY = "DELIVERY"

MOST_RANGES = 5000
"""How many ranges of items that are open again one event tells of."""

_COLUMNS = (
    Column("batch_key"),
    Column("sequence"),
    Column("kind", "text"),
    Column("event_type", "text"),
    Column("event_time"),
    Column("payload_json", "text"),
)


def state_changed(
    batch: Batch, *, now: datetime, event_type: str = "", finished: Iterable[int] = ()
) -> Row:
    """Returns the row that tells of the state in which ``batch`` is now.

    Args:
        finished: Items that are final with it, such as those that were skipped from the start.
    """
    feature_type = batch.request.feature_type
    event_type = event_type or event_types.of_state(batch.state, feature_type=feature_type)
    return _row(batch, STATE_CHANGED, event_type, ranges_of(finished), now=now)


def retried(batch: Batch, ranges: Sequence[tuple[int, int]], *, now: datetime) -> list[Row]:
    """Returns the rows that tell of items that are open again: ``retried_events`` of them.

    ``batch`` has the sequence of the last one. The first tells of the state, and the others only
    of the items that did not fit: whoever reads one has to hold it.
    """
    parts = [ranges[place : place + MOST_RANGES] for place in range(0, len(ranges), MOST_RANGES)]
    first = batch.sequence - len(parts) + 1
    return [
        _row(
            replace(batch, sequence=first + place),
            PROGRESS if place else STATE_CHANGED,
            event_types.RETRIED,
            (),
            now=now,
            reopened=part,
        )
        for place, part in enumerate(parts)
    ]


def retried_events(ranges: Sequence[tuple[int, int]]) -> int:
    """Returns in how many events so many ranges are told."""
    return -(-len(ranges) // MOST_RANGES)


def validated(batch: Batch, *, now: datetime) -> Row:
    """Returns the row that tells of what the validation of users found."""
    return _row(batch, VALIDATION, event_types.VALIDATED, (), now=now)


def delivered(batch: Batch, counts: DeliveryCounts, *, now: datetime) -> Row:
    """Returns the row that tells what became of the references of a batch that ends with it.

    It stands before the one of the end, so that whoever watches hears of it.
    """
    before = replace(batch, sequence=batch.sequence - 1)
    event_type = event_types.of_delivery(feature_type=batch.request.feature_type)
    told = (counts.delivered, counts.failed)
    return _row(before, DELIVERY, event_type, (), now=now, delivery=told)


def progress(batch: Batch, indexes: Iterable[int], *, now: datetime) -> Row:
    """Returns the row that tells of the counts of ``batch`` and the items that became final."""
    return _row(batch, PROGRESS, event_types.PROGRESS, ranges_of(indexes), now=now)


def _row(
    batch: Batch,
    kind: str,
    event_type: str,
    finished: Sequence[tuple[int, int]],
    *,
    now: datetime,
    reopened: Sequence[tuple[int, int]] = (),
    delivery: tuple[int, int] | None = None,
) -> Row:
    payload: dict[str, Any] = {
        "state": batch.state,
        "reason": batch.state_reason,
        "counts": counts_to(batch.counts),
        "finished": finished,
        "reopened": reopened,
    }
    if delivery is not None:
        payload["delivery"] = delivery
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
        reopened=tuple((first, last) for first, last in payload.get("reopened", ())),
        state_reason=payload.get("reason", ""),
        delivery=_delivery_from(payload.get("delivery")),
    )


def _delivery_from(told: Sequence[int] | None) -> DeliveryCounts | None:
    if told is None:
        return None
    delivered, failed = told
    return DeliveryCounts(delivered=delivered, failed=failed)


def ranges_of(indexes: Iterable[int]) -> list[tuple[int, int]]:
    """Returns the indexes as ranges, first and last: a chunk that went well is one."""
    ranges: list[tuple[int, int]] = []
    for index in sorted(indexes):
        if ranges and ranges[-1][1] == index - 1:
            ranges[-1] = (ranges[-1][0], index)
        else:
            ranges.append((index, index))
    return ranges
