"""Finished items, read by their places, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from batchwork_server.domain import event_types
from batchwork_server.domain.batch import Batch
from batchwork_server.domain.item import Item, ItemState
from batchwork_server.store import events
from batchwork_server.store.database import Database
from batchwork_server.store.own_items import condition_of_user
from batchwork_server.store.rows import item_from
from batchwork_server.store.statements import dialect_of, for_driver, run
from batchwork_server.store.store import Event

_WEIGHTS = """
SELECT o.item_index, {weight}
FROM outcomes o JOIN items i ON i.batch_key = o.batch_key AND i.item_index = o.item_index
WHERE o.batch_key = ? AND o.item_index {listed} AND o.state <> 'PENDING'{states}{user}
"""
_ITEMS = """
SELECT o.item_index, i.item_id, i.user_id, {data} AS data_json, o.state, o.attempt_count,
  o.result_json, o.error_reason, o.error_message, o.error_retryable, o.skip_reason,
  o.next_attempt_time, o.start_time, o.end_time, o.duration, o.quality_score
FROM outcomes o JOIN items i ON i.batch_key = o.batch_key AND i.item_index = o.item_index
WHERE o.batch_key = ? AND o.item_index {listed} AND o.state <> 'PENDING'
ORDER BY o.item_index
"""
_FINAL = """
SELECT item_index FROM outcomes
WHERE batch_key = ? AND item_index > ? AND state <> 'PENDING'{states}
ORDER BY item_index LIMIT ?
"""
_SELDOM = f"state <> '{ItemState.SUCCEEDED}'"  # in the words of the partial index


class SqlResults:
    """Implements ``ResultStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def first_sequence(self, batch_key: int) -> int | None:
        row = await self._database.fetch_row(
            "SELECT MIN(sequence) FROM events WHERE batch_key = ?", (batch_key,)
        )
        return None if row is None else row[0]

    async def retries(self, batch_key: int) -> Sequence[Event]:
        async with self._database.reading() as connection:
            rows = await run(
                connection,
                "SELECT sequence, kind, event_type, event_time, payload_json FROM events"
                " WHERE batch_key = ? AND event_type = ? ORDER BY sequence",
                (batch_key, event_types.RETRIED),
            )
        return [events.event_from(row) for row in rows]

    async def weights(
        self,
        batch: Batch,
        indexes: Sequence[int],
        *,
        states: Collection[ItemState],
        user_id: str,
        with_data: bool,
    ) -> dict[int, int]:
        async with self._database.reading() as connection:
            listed, places = _listed(connection, indexes)
            names = ["o.result_json", "o.error_message", *(["i.data_json"] if with_data else [])]
            weight = " + ".join(f"COALESCE({_size_of(connection, name)}, 0)" for name in names)
            of_user, named = condition_of_user(user_id, batch) if user_id else ("", ())
            sql = _WEIGHTS.format(
                weight=weight,
                listed=listed,
                states=_in_states("o.", states),
                user=of_user and f" AND {of_user}",
            )
            rows = await run(connection, sql, (batch.key, places, *map(str, states), *named))
        return dict(rows)

    async def items(
        self, batch: Batch, indexes: Sequence[int], *, with_data: bool
    ) -> Sequence[Item]:
        async with self._database.reading() as connection:
            listed, places = _listed(connection, indexes)
            sql = _ITEMS.format(data="i.data_json" if with_data else "''", listed=listed)
            result = await connection.exec_driver_sql(
                for_driver(sql, dialect_of(connection)), (batch.key, places)
            )
            return [item_from(row, batch_id=batch.batch_id) for row in result.fetchall()]

    async def final_indexes(
        self, batch_key: int, *, after: int, states: Collection[ItemState], limit: int
    ) -> Sequence[int]:
        condition = _in_states("", states)
        if states and ItemState.SUCCEEDED not in states:
            condition += f" AND {_SELDOM}"
        async with self._database.reading() as connection:
            rows = await run(
                connection,
                _FINAL.format(states=condition),
                (batch_key, after, *map(str, states), limit),
            )
        return [index for (index,) in rows]


def _listed(connection: AsyncConnection, indexes: Sequence[int]) -> tuple[str, Any]:
    """Returns a condition for a few hundred places, and its parameter."""
    if dialect_of(connection) == "sqlite":
        return "IN (SELECT value FROM json_each(?))", orjson.dumps(list(indexes)).decode()
    return "= ANY(?::bigint[])", list(indexes)


def _size_of(connection: AsyncConnection, name: str) -> str:
    if dialect_of(connection) == "sqlite":
        return f"LENGTH(CAST({name} AS BLOB))"
    return f"OCTET_LENGTH({name})"


def _in_states(prefix: str, states: Collection[ItemState]) -> str:
    return f" AND {prefix}state IN ({', '.join('?' for _ in states)})" if states else ""
