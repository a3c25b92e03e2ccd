"""The first answer to each request id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
import sqlalchemy as sa

from batchwork_server.errors import RequestIdReused
from batchwork_server.store.database import Database
from batchwork_server.store.statements import run
from batchwork_server.store.store import Transaction
from batchwork_server.store.tables import requests
from batchwork_server.store.times import to_micros

# The row is written before the work, so that of two requests at the same time the second waits
# for the first one's transaction, and then finds its answer.
_RESERVE = """
INSERT INTO requests (tenant_id, method, request_id, request_hash, answer_json, create_time)
VALUES (?, ?, ?, ?, '{}', ?) ON CONFLICT DO NOTHING RETURNING request_id
"""


_FIND = """
SELECT request_hash, answer_json FROM requests
WHERE tenant_id = ? AND method = ? AND request_id = ?
"""


class SqlRequests:
    """Implements ``RequestStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(
        self, *, tenant_id: str, method: str, request_id: str, request_hash: str
    ) -> dict[str, Any] | None:
        row = await self._database.fetch_row(_FIND, (tenant_id, method, request_id))
        return None if row is None else _answer(row, request_id, request_hash)

    async def replay(
        self,
        tx: Transaction,
        *,
        tenant_id: str,
        method: str,
        request_id: str,
        request_hash: str,
        now: datetime,
    ) -> dict[str, Any] | None:
        parameters = (tenant_id, method, request_id, request_hash, to_micros(now))
        if await run(tx.connection, _RESERVE, parameters):
            return None
        [row] = await run(tx.connection, _FIND, (tenant_id, method, request_id))
        return _answer(row, request_id, request_hash)

    async def remember(
        self,
        tx: Transaction,
        *,
        tenant_id: str,
        method: str,
        request_id: str,
        answer: Mapping[str, Any],
    ) -> None:
        await run(
            tx.connection,
            "UPDATE requests SET answer_json = ?"
            " WHERE tenant_id = ? AND method = ? AND request_id = ?",
            (orjson.dumps(answer).decode(), tenant_id, method, request_id),
        )

    async def forget(self, *, before: datetime, limit: int) -> int:
        key = (requests.c.tenant_id, requests.c.method, requests.c.request_id)
        oldest = (
            sa.select(*key)
            .where(requests.c.create_time < to_micros(before))
            .order_by(requests.c.create_time)
            .limit(limit)
        )
        async with self._database.transaction() as tx:
            result = await tx.connection.execute(
                sa.delete(requests).where(sa.tuple_(*key).in_(oldest))
            )
            return int(result.rowcount)


def _answer(row: Sequence[Any], request_id: str, request_hash: str) -> dict[str, Any]:
    known_hash, answer = row
    if known_hash != request_hash:
        raise RequestIdReused(request_id)
    loaded: dict[str, Any] = orjson.loads(answer)
    return loaded
