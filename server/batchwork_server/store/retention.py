"""The end of what is kept: deleted batches, their rows, and events that are old enough."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from batchwork_server.domain.batch import BatchState
from batchwork_server.domain.filters import PurgeFilter
from batchwork_server.domain.transition import APPLIES, Verb
from batchwork_server.store.database import Database
from batchwork_server.store.locks import lock_until_commit
from batchwork_server.store.statements import (
    Column,
    Row,
    dialect_of,
    for_driver,
    run,
    update_rows,
)
from batchwork_server.store.store import (
    DeletedBatch,
    ForgottenEvents,
    OverBatches,
    RemovedRows,
    Transaction,
)
from batchwork_server.store.times import from_micros, to_micros


def _among(states: Iterable[BatchState]) -> str:
    return "state IN (" + ", ".join(f"'{state}'" for state in states) + ")"


_IS_OVER = _among(sorted(APPLIES[Verb.DELETE]))

# No id of a caller has a tilde, so nobody can name the batch any more, and its id is free. Without
# an end it is in no index by which batches that are over are found.
_DELETE = f"""
UPDATE batches SET state = 'DELETED',
  batch_id = batch_id || '~' || CAST(batches.batch_key AS TEXT),
  resume_time = NULL, expire_time = NULL, end_time = NULL
FROM {{rows}} WHERE batches.batch_key = v.batch_key AND {_IS_OVER}
RETURNING batches.batch_key
"""
_DELETED = "SELECT batch_key FROM batches WHERE state = 'DELETED' ORDER BY batch_key LIMIT 1"

# What hangs on a batch in any number, and by which number of its rows it is cut into slices.
_LONG_TABLES = (
    ("outcomes", "item_index"),
    ("attempts", "item_index"),
    ("items", "item_index"),
    ("chunks", "first_index"),
    ("events", "sequence"),
    ("invalid_references", "number"),
    ("item_users", "place"),
)
# The last row of the slice is looked up in the key; without one the slice is all that is left. One
# bound, not two: SQLite would search with the first and read all that is left for the second.
_DELETE_SLICE = """
DELETE FROM {table} WHERE batch_key = ? AND {number} <= COALESCE(
  (SELECT {number} FROM {table} WHERE batch_key = ? AND {number} < ?
   ORDER BY {number} LIMIT 1 OFFSET ?), ?)
"""
_LARGEST = 2**63 - 1

_WITH_EVENTS = """
SELECT b.batch_key, b.end_time, b.event_sequence FROM batches b
WHERE b.end_time >= ? AND b.end_time <= ? AND EXISTS
  (SELECT 1 FROM events e WHERE e.batch_key = b.batch_key AND e.sequence < b.event_sequence)
ORDER BY b.end_time, b.batch_key LIMIT ?
"""
_BATCHES_AT_ONCE = 100


class SqlRetention:
    """Implements ``RetentionStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def delete(self, tx: Transaction, batch_key: int) -> bool:
        return bool(await _delete(tx.connection, [batch_key]))

    async def lock_purges(self, tx: Transaction, *, tenant_id: str) -> None:
        await lock_until_commit(tx.connection, "purge", tenant_id)

    async def delete_some(
        self,
        tx: Transaction,
        matching: PurgeFilter,
        *,
        limit: int,
        after: tuple[datetime, int] | None = None,
    ) -> Sequence[DeletedBatch]:
        condition, parameters = _condition(matching)
        if after is not None:
            condition += " AND end_time >= ? AND (end_time, batch_key) > (?, ?)"
            parameters += (to_micros(after[0]), to_micros(after[0]), after[1])
        chosen = await run(
            tx.connection,
            "SELECT batch_key, batch_id, total, end_time FROM batches"
            f" WHERE {condition} ORDER BY end_time, batch_key LIMIT ?{_skip(tx.connection)}",
            (*parameters, limit),
        )
        deleted = await _delete(tx.connection, [key for key, *_ in chosen])
        return [
            DeletedBatch(batch_id=batch_id, item_count=total, place=(from_micros(end_time), key))
            for key, batch_id, total, end_time in chosen
            if key in deleted
        ]

    async def count_over(self, matching: PurgeFilter, *, sample_size: int) -> OverBatches:
        condition, parameters = _condition(matching)
        async with self._database.reading() as connection:
            [(batch_count, item_count)] = await run(
                connection,
                f"SELECT COUNT(*), COALESCE(SUM(total), 0) FROM batches WHERE {condition}",
                parameters,
            )
            sample = await run(
                connection,
                f"SELECT batch_id FROM batches WHERE {condition}"
                " ORDER BY end_time, batch_key LIMIT ?",
                (*parameters, sample_size),
            )
        return OverBatches(
            batch_count=batch_count,
            item_count=int(item_count),
            batch_ids=tuple(batch_id for (batch_id,) in sample),
        )

    async def remove_some(self, *, limit: int) -> RemovedRows:
        rows = batches = 0
        async with self._database.transaction() as tx:
            while rows < limit:
                chosen = await run(tx.connection, _DELETED + _skip(tx.connection))
                if not chosen:
                    break
                removed = await _remove(tx.connection, chosen[0][0], limit=limit - rows)
                rows += removed.row_count
                batches += removed.batch_count
        return RemovedRows(row_count=rows, batch_count=batches)

    async def forget_events(
        self, *, ended_from: datetime | None, ended_until: datetime, limit: int
    ) -> ForgottenEvents:
        first = 0 if ended_from is None else to_micros(ended_from)
        rows, reached = 0, ended_until
        async with self._database.transaction() as tx:
            # Whoever opens one of them again comes first, or waits.
            lock = _skip(tx.connection, "OF b ")
            parameters = (first, to_micros(ended_until), _BATCHES_AT_ONCE)
            for key, end_time, newest in await run(tx.connection, _WITH_EVENTS + lock, parameters):
                reached = from_micros(end_time)
                rows += await _delete_slice(
                    tx.connection, "events", "sequence", key, before=newest, limit=limit - rows
                )
                if rows >= limit:
                    break
        return ForgottenEvents(row_count=rows, reached=reached)


async def _delete(connection: AsyncConnection, batch_keys: Sequence[int]) -> frozenset[int]:
    rows = [(key,) for key in batch_keys]
    deleted = await update_rows(connection, _DELETE, (Column("batch_key"),), rows)
    return frozenset(key for (key,) in deleted)


def _condition(matching: PurgeFilter) -> tuple[str, Row]:
    states = _among(matching.states) if matching.states else _IS_OVER
    condition = f"end_time <= ? AND {_IS_OVER} AND {states}"
    parameters: Row = (to_micros(matching.ended_until),)
    if matching.tenant_id is None:
        return condition, parameters
    # The index by end, not the one by tenant: pages in the order of the end, without sorting all.
    return f"{condition} AND tenant_id || '' = ?", (*parameters, matching.tenant_id)


def _skip(connection: AsyncConnection, of: str = "") -> str:
    """Locks the rows of a query, and leaves those out that another transaction has in hand."""
    return f" FOR UPDATE {of}SKIP LOCKED" if dialect_of(connection) == "postgresql" else ""


async def _remove(connection: AsyncConnection, batch_key: int, *, limit: int) -> RemovedRows:
    """Removes rows of one batch, and the batch itself when nothing else is left of it."""
    rows = 0
    for table, number in _LONG_TABLES:
        rows += await _delete_slice(connection, table, number, batch_key, limit=limit - rows)
        if rows >= limit:
            return RemovedRows(row_count=rows, batch_count=0)
    for table in ("batch_labels", "batch_references", "notifications", "batches"):
        rows += await _delete_rows(
            connection, f"DELETE FROM {table} WHERE batch_key = ?", (batch_key,)
        )
    return RemovedRows(row_count=rows, batch_count=1)


async def _delete_slice(
    connection: AsyncConnection,
    table: str,
    number: str,
    batch_key: int,
    *,
    before: int = _LARGEST,
    limit: int,
) -> int:
    """Deletes the first ``limit`` rows of a batch, and those with the same number as the last."""
    statement = _DELETE_SLICE.format(table=table, number=number)
    parameters = (batch_key, batch_key, before, limit - 1, before - 1)
    return await _delete_rows(connection, statement, parameters)


async def _delete_rows(connection: AsyncConnection, statement: str, parameters: Row) -> int:
    sql = for_driver(statement, dialect_of(connection))
    return (await connection.exec_driver_sql(sql, parameters)).rowcount
