"""What became of the items for a user: of their own, and of those for several users together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from batchwork_server.domain.batch import Batch
from batchwork_server.domain.item import ItemState
from batchwork_server.domain.reference import OwnItem
from batchwork_server.store.rows import BATCH_COLUMNS, batch_from
from batchwork_server.store.statements import Row, dialect_of, one_of, run
from batchwork_server.store.tables import batches, item_users, items
from batchwork_server.store.times import from_micros

# The sum in place of the key keeps the planner from starting at a batch that is named and reading
# all of it: the user has few items, and the batch may have a million.
ALONE = """
SELECT i.batch_key, i.item_index, i.user_id, i.item_id, COALESCE(o.state, 'PENDING'),
  COALESCE(o.error_reason, o.skip_reason, ''), o.end_time
FROM items i JOIN batches b ON b.batch_key = i.batch_key + 0
LEFT JOIN outcomes o ON o.batch_key = i.batch_key AND o.item_index = i.item_index
WHERE {conditions} ORDER BY i.batch_key DESC, i.item_index LIMIT ?
"""
# Who is in none of the items was skipped.
TOGETHER = """
SELECT u.batch_key, u.place, u.user_id, COALESCE(i.item_id, ''),
  CASE WHEN u.item_index IS NULL THEN 'SKIPPED' ELSE COALESCE(o.state, 'PENDING') END,
  COALESCE(o.error_reason, o.skip_reason, u.skip_reason), o.end_time
FROM item_users u JOIN batches b ON b.batch_key = u.batch_key + 0
LEFT JOIN items i ON i.batch_key = u.batch_key AND i.item_index = u.item_index
LEFT JOIN outcomes o ON o.batch_key = u.batch_key AND o.item_index = u.item_index
WHERE {conditions} ORDER BY u.batch_key DESC, u.place LIMIT ?
"""
# A range, or SQLite would read all users of the batch for the order in which they are stored.
_SHARED_WITH = """
i.item_index IN (SELECT u.item_index FROM item_users u
  WHERE u.tenant_id = ? AND u.user_id = ? AND u.batch_key BETWEEN ? AND ?)
"""
_SERVED = """
SELECT COUNT(*) FROM item_users u
JOIN outcomes o ON o.batch_key = u.batch_key AND o.item_index = u.item_index
WHERE u.batch_key = ? AND o.state = 'SUCCEEDED'
"""


def names_users_apart(batch: Batch) -> bool:
    """Tells whether the items of a batch are for several users, who stand in their own table."""
    return batch.request.batch_type.removeprefix("PREFERENCE_").startswith("BATCH_")


def has_part_in(user_id: str, *, tenant_id: str | None) -> sa.ColumnElement[bool]:
    """Returns what holds of the batches that have something for a user, if only why not.

    Args:
        tenant_id: Whose batches they are; None means anybody's.
    """
    alone: sa.Select[Any] = sa.select(items.c.batch_key).where(items.c.user_id == user_id)
    together = sa.select(item_users.c.batch_key).where(
        item_users.c.user_id == user_id, of_tenant(item_users.c.tenant_id, tenant_id)
    )
    return batches.c.batch_key.in_(alone.union_all(together))


def of_tenant(column: sa.Column[str], tenant_id: str | None) -> sa.ColumnElement[bool]:
    """Returns what holds of the rows of a tenant, or of all, whose index begins with the tenant."""
    if tenant_id is not None:
        return column == tenant_id
    # The index is asked tenant by tenant; else all of it would be read.
    return column.in_(sa.select(batches.c.tenant_id).distinct())


def is_for(user_id: str, batch: Batch) -> sa.ColumnElement[bool]:
    """Returns what holds of the items of a batch that are for a user, alone or with others."""
    if not names_users_apart(batch):
        return items.c.user_id == user_id
    return items.c.item_index.in_(
        sa.select(item_users.c.item_index).where(
            item_users.c.tenant_id == batch.tenant_id,
            item_users.c.user_id == user_id,
            item_users.c.batch_key.between(batch.key, batch.key),
        )
    )


def condition_of_user(user_id: str, batch: Batch) -> tuple[str, Row]:
    """Returns what ``is_for`` does as text, of items that are called ``i``."""
    if not names_users_apart(batch):
        return "i.user_id = ?", (user_id,)
    return _SHARED_WITH, (batch.tenant_id, user_id, batch.key, batch.key)


def own_item_from(row: Row) -> OwnItem:
    """Reads a row of ``ALONE`` or ``TOGETHER``."""
    _, _, _, item_id, state, reason, end_time = row
    return OwnItem(
        item_id=item_id, state=ItemState(state), reason=reason, end_time=from_micros(end_time)
    )


async def count_served(connection: AsyncConnection, batch: Batch) -> int:
    """Counts the users whose item succeeded, of a batch that gives each user their own."""
    succeeded = batch.counts.succeeded
    if not succeeded or not batch.request.distribution.own or not names_users_apart(batch):
        return succeeded
    [(served,)] = await run(connection, _SERVED, (batch.key,))
    return int(served)


async def batches_of(connection: AsyncConnection, keys: Iterable[int]) -> dict[int, Batch]:
    """Returns batches by key, for a page of items."""
    distinct = tuple(dict.fromkeys(keys))
    if not distinct:
        return {}
    named, parameters = one_of("batch_key", distinct, dialect_of(connection))
    rows = await run(connection, f"SELECT {BATCH_COLUMNS} FROM batches WHERE {named}", parameters)
    return {batch.key: batch for batch in map(batch_from, rows)}
