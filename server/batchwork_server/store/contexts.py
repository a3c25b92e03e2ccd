"""Who and what is in batches, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from batchwork_server.domain.batch import Batch
from batchwork_server.domain.context import (
    ContextEntry,
    ContextItems,
    is_by_categories,
)
from batchwork_server.domain.item import ItemUser
from batchwork_server.store.database import Database
from batchwork_server.store.own_items import names_users_apart
from batchwork_server.store.statements import Column, Row, dialect_of, insert_rows, run
from batchwork_server.store.store import Transaction

_USER_COLUMNS = (
    Column("batch_key"),
    Column("place"),
    Column("tenant_id", "text"),
    Column("user_id", "text"),
    Column("item_index"),
    Column("skip_reason", "text"),
)

# An item is repeated when an earlier one of the batch is for the same user: the index of the items
# of a user finds it at once.
_OF_ITEMS = """
SELECT i.item_index, i.item_id, i.user_id, COALESCE(o.skip_reason, ''),
  CASE WHEN EXISTS (SELECT 1 FROM items e WHERE e.user_id = i.user_id
    AND e.batch_key = i.batch_key AND e.item_index < i.item_index) THEN 1 ELSE 0 END
FROM items i LEFT JOIN outcomes o ON o.batch_key = i.batch_key AND o.item_index = i.item_index
WHERE i.batch_key = ? AND i.item_index > ?
ORDER BY i.item_index LIMIT ?
"""
_OF_USERS = """
SELECT place, NULL, user_id, skip_reason, 0 FROM item_users
WHERE batch_key = ? AND place > ? ORDER BY place LIMIT ?
"""
# Each name is looked up in each batch. The order of the joins, and the sum in place of the key,
# keep SQLite from reading whole batches instead.
_LISTED_USERS = """
SELECT DISTINCT i.user_id, COALESCE(o.skip_reason, '')
FROM {names} CROSS JOIN {keys} CROSS JOIN items i
LEFT JOIN outcomes o ON o.batch_key = i.batch_key AND o.item_index = i.item_index
WHERE i.user_id = names.value AND i.batch_key = keys.value
UNION
SELECT DISTINCT u.user_id, u.skip_reason
FROM {tenants} CROSS JOIN {names} CROSS JOIN {keys} CROSS JOIN item_users u
WHERE u.tenant_id = tenants.value AND u.user_id = names.value AND u.batch_key + 0 = keys.value
"""
_LISTED_CATEGORIES = """
SELECT DISTINCT i.item_id, COALESCE(o.skip_reason, '')
FROM {names} CROSS JOIN {keys} CROSS JOIN items i
LEFT JOIN outcomes o ON o.batch_key = i.batch_key AND o.item_index = i.item_index
WHERE i.item_id = names.value AND i.batch_key = keys.value
"""


class SqlContexts:
    """Implements ``ContextStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_users(
        self,
        tx: Transaction,
        batch: Batch,
        users: Sequence[ItemUser],
        *,
        first_index: int = 0,
        first_place: int = 0,
    ) -> None:
        rows = [
            (
                *(batch.key, place, batch.tenant_id, each.user_id),
                None if each.item_index is None else first_index + each.item_index,
                each.skip_reason,
            )
            for place, each in enumerate(users, first_place)
        ]
        await insert_rows(tx.connection, "item_users", _USER_COLUMNS, rows)

    async def entries(
        self, batch: Batch, *, after: int, limit: int
    ) -> tuple[Sequence[ContextEntry], int | None]:
        sql = _OF_USERS if names_users_apart(batch) else _OF_ITEMS
        async with self._database.reading() as connection:
            rows = await run(connection, sql, (batch.key, after, limit + 1))
        page = [_entry_from(row) for row in rows[:limit]]
        return page, page[-1].place if len(rows) > limit else None

    async def listed_in(self, batches: Sequence[Batch], items: ContextItems) -> ContextItems:
        users = [*items.valid_users, *items.invalid_users]
        categories = [*items.valid_categories, *items.invalid_categories]
        by_categories = [batch for batch in batches if is_by_categories(batch)]
        found = ContextItems()
        async with self._database.reading() as connection:
            if users and batches:
                rows = await _listed(connection, _LISTED_USERS, users, batches)
                entries = [_listed_entry(user_id, reason, None) for user_id, reason in rows]
                found += ContextItems.of(entries, by_categories=False)
            if categories and by_categories:
                rows = await _listed(connection, _LISTED_CATEGORIES, categories, by_categories)
                entries = [_listed_entry(None, reason, item_id) for item_id, reason in rows]
                found += ContextItems.of(entries, by_categories=True)
        return found


def _entry_from(row: Row) -> ContextEntry:
    place, item_id, user_id, skip_reason, is_repeated = row
    return ContextEntry(
        place=place,
        item_id=item_id,
        user_id=user_id,
        skip_reason=skip_reason,
        is_repeated=bool(is_repeated),
    )


def _listed_entry(user_id: str | None, reason: str, item_id: str | None) -> ContextEntry:
    return ContextEntry(place=0, item_id=item_id, user_id=user_id, skip_reason=reason)


async def _listed(
    connection: AsyncConnection, sql: str, names: Sequence[str], batches: Sequence[Batch]
) -> list[Row]:
    lists: dict[str, tuple[str, Sequence[Any]]] = {
        "names": ("text", names),
        "keys": ("bigint", [batch.key for batch in batches]),
        "tenants": ("text", sorted({batch.tenant_id for batch in batches})),
    }
    for name, (kind, _) in lists.items():
        rows = (
            f"json_each(:{name}) AS {name}"
            if dialect_of(connection) == "sqlite"
            else f"unnest(CAST(:{name} AS {kind}[])) AS {name}(value)"
        )
        sql = sql.replace(f"{{{name}}}", rows)
    values = {
        name: orjson.dumps(list(each)).decode() if dialect_of(connection) == "sqlite" else each
        for name, (_, each) in lists.items()
        if f":{name}" in sql
    }
    result = await connection.execute(sa.text(sql), values)
    return [tuple(row) for row in result.fetchall()]
