"""Batches that begin when their users are validated: found, and begun."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from batchwork_server.domain.batch import Batch, BatchRequest
from batchwork_server.store import events, transitions
from batchwork_server.store.batches import insert_skips
from batchwork_server.store.database import Database
from batchwork_server.store.rows import BATCH_COLUMNS, batch_from, request_to
from batchwork_server.store.statements import Column, run, update_rows
from batchwork_server.store.store import Transaction
from batchwork_server.store.times import to_micros

_IS_WAITING = "state = 'PAUSED' AND state_reason = 'USERS_UNAVAILABLE'"

_WAITING = f"""
SELECT {BATCH_COLUMNS} FROM batches WHERE {_IS_WAITING} AND batch_key > ?
ORDER BY batch_key LIMIT ?
"""
_UNVALIDATED = """
SELECT i.item_index, i.user_id FROM items i
LEFT JOIN outcomes o ON o.batch_key = i.batch_key AND o.item_index = i.item_index
WHERE i.batch_key = ? AND i.item_index > ? AND i.user_id IS NOT NULL AND o.batch_key IS NULL
ORDER BY i.item_index LIMIT ?
"""
_RECIPIENTS = """
SELECT user_id FROM batch_references WHERE batch_key = ? AND problem = '' AND user_id > ?
ORDER BY user_id LIMIT ?
"""
_ADD_PROBLEMS = """
UPDATE batch_references SET problem = v.problem FROM {rows}
WHERE batch_references.batch_key = v.batch_key AND batch_references.user_id = v.user_id
RETURNING batch_references.user_id
"""
_PROBLEM_COLUMNS = (Column("batch_key"), Column("user_id", "text"), Column("problem", "text"))
_COUNT = f"""
UPDATE batches SET skipped = skipped + ?, pending = pending - ?, request_json = ?,
  event_sequence = event_sequence + ?, update_time = ?
WHERE batch_key = ? AND {_IS_WAITING} RETURNING {BATCH_COLUMNS}
"""
# As of a batch that is stored with items to skip: a range without anything to do is no chunk.
_LEAVE_OUT = """
DELETE FROM chunks WHERE batch_key = ? AND state = 'HELD' AND item_count = (
  SELECT COUNT(*) FROM outcomes o WHERE o.batch_key = chunks.batch_key
    AND o.item_index BETWEEN chunks.first_index AND chunks.first_index + chunks.item_count - 1
    AND o.state = 'SKIPPED')
RETURNING chunk_key
"""


class SqlDeferrals:
    """Implements ``DeferralStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def waiting(self, *, after: int, limit: int) -> Sequence[Batch]:
        async with self._database.reading() as connection:
            rows = await run(connection, _WAITING, (after, limit))
        return [batch_from(row) for row in rows]

    async def unvalidated(
        self, batch: Batch, *, after: int, limit: int
    ) -> Sequence[tuple[int, str]]:
        async with self._database.reading() as connection:
            rows = await run(connection, _UNVALIDATED, (batch.key, after, limit))
        return [(index, user_id) for index, user_id in rows]

    async def recipients(self, batch: Batch, *, after: str, limit: int) -> Sequence[str]:
        async with self._database.reading() as connection:
            rows = await run(connection, _RECIPIENTS, (batch.key, after, limit))
        return [user_id for (user_id,) in rows]

    async def begin(
        self,
        tx: Transaction,
        batch: Batch,
        *,
        request: BatchRequest,
        skips: Mapping[int, str],
        problems: Mapping[str, str],
        now: datetime,
    ) -> Batch | None:
        connection = tx.connection
        facts = request.has_validated + bool(skips)
        rows = await run(
            connection,
            _COUNT,
            (
                *(len(skips), len(skips), request_to(request), facts, to_micros(now)),
                batch.key,
            ),
        )
        if not rows:
            return None
        counted = batch_from(rows[0])
        told = [events.validated(counted, now=now)] if request.has_validated else []
        if skips:
            before = replace(counted, sequence=counted.sequence - 1)
            told.insert(0, events.progress(before, skips, now=now))
            await insert_skips(connection, batch.key, skips, now=now)
        await events.insert(connection, told)
        rows = [(batch.key, user_id, problem) for user_id, problem in problems.items()]
        await update_rows(connection, _ADD_PROBLEMS, _PROBLEM_COLUMNS, rows)
        if await _leave_out(connection, counted):
            return await transitions.resume(connection, batch.key, now=now)
        return await transitions.end(connection, counted, now=now)


async def _leave_out(connection: AsyncConnection, batch: Batch) -> int:
    """Takes away the chunks that have nothing to do, and returns how many are left."""
    left_out = await run(connection, _LEAVE_OUT, (batch.key,))
    rows = await run(
        connection,
        "UPDATE batches SET open_chunks = open_chunks - ? WHERE batch_key = ?"
        " RETURNING open_chunks",
        (len(left_out), batch.key),
    )
    return int(rows[0][0])
