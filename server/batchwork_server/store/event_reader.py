"""The events of all batches, in one order that nobody can slip into behind a reader.

On SQLite one transaction at a time writes, so positions become visible in their order. On
PostgreSQL a transaction can take a lower position and commit later. The number of the transaction
therefore goes before the position, and an event is settled when its transaction is older than every
one that still goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from batchwork_server.domain.feed_place import FeedPlace
from batchwork_server.store.database import Database
from batchwork_server.store.events import event_from
from batchwork_server.store.statements import Row, dialect_of, one_of, run
from batchwork_server.store.store import Event, UnreadEvent

_OLDEST_RUNNING = "((pg_snapshot_xmin(pg_current_snapshot()))::text)::bigint"

_NEWEST_IN_SQLITE = "SELECT seq FROM sqlite_sequence WHERE name = 'events'"
_NEWEST_IN_POSTGRESQL = f"SELECT {_OLDEST_RUNNING}"

# Transactions that overlap can write to one batch after each other, the one with the higher number
# first; so where the event before stands is looked up for each.
_BEFORE = """
(SELECT (b.transaction_number, b.position) > (e.transaction_number, e.position) FROM events b
 WHERE b.batch_key = e.batch_key AND b.sequence = e.sequence - 1)
"""
_COLUMNS = f"""
e.transaction_number, e.position, e.batch_key, {_BEFORE},
e.sequence, e.kind, e.event_type, e.event_time, e.payload_json
"""
_CONTENT = 5  # where the columns begin that ``event_from`` reads

_AFTER_IN_SQLITE = f"""
SELECT 1, {_COLUMNS} FROM events e WHERE e.position > ? ORDER BY e.position LIMIT ?
"""
_AFTER_IN_POSTGRESQL = f"""
SELECT e.transaction_number < {_OLDEST_RUNNING}, {_COLUMNS} FROM events e
WHERE (e.transaction_number, e.position) > (?, ?)
ORDER BY e.transaction_number, e.position LIMIT ?
"""
_OF_BATCH = f"""
SELECT 1, {_COLUMNS} FROM events e WHERE e.batch_key = ? AND e.sequence > ?
ORDER BY e.sequence LIMIT ?
"""


class SqlEvents:
    """Implements ``EventStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self) -> FeedPlace:
        if self._database.dialect == "sqlite":
            row = await self._database.fetch_row(_NEWEST_IN_SQLITE, ())
            return FeedPlace(0, row[0] if row else 0)
        row = await self._database.fetch_row(_NEWEST_IN_POSTGRESQL, ())
        return FeedPlace(row[0] if row else 0, 0)

    async def after(self, place: FeedPlace, *, limit: int) -> Sequence[UnreadEvent]:
        async with self._database.reading() as connection:
            rows = await _rows_after(connection, place, limit)
        return [_unread(row) for row in rows]

    async def of_batch(self, batch_key: int, *, after: int, limit: int) -> Sequence[UnreadEvent]:
        async with self._database.reading() as connection:
            rows = await run(connection, _OF_BATCH, (batch_key, after, limit))
        return [_unread(row) for row in rows]

    async def newest_of(self, batch_keys: Sequence[int]) -> Mapping[int, int]:
        if not batch_keys:
            return {}
        named, parameters = one_of("batch_key", batch_keys, self._database.dialect)
        async with self._database.reading() as connection:
            rows = await run(
                connection,
                f"SELECT batch_key, event_sequence FROM batches WHERE {named}",
                parameters,
            )
        return dict(rows)

    def read(self, unread: UnreadEvent) -> Event:
        return event_from(unread.content)


async def _rows_after(connection: AsyncConnection, place: FeedPlace, limit: int) -> list[Row]:
    if dialect_of(connection) == "sqlite":
        return await run(connection, _AFTER_IN_SQLITE, (place.position, limit))
    parameters = (place.transaction_number, place.position, limit)
    return await run(connection, _AFTER_IN_POSTGRESQL, parameters)


def _unread(row: Row) -> UnreadEvent:
    is_settled, transaction_number, position, batch_key, before_is_later, sequence, *_ = row
    return UnreadEvent(
        place=FeedPlace(transaction_number, position),
        batch_key=batch_key,
        sequence=sequence,
        is_settled=bool(is_settled),
        is_early=bool(before_is_later),
        is_cut_off=before_is_later is None and sequence > 1,
        content=row[_CONTENT:],
    )
