"""The changes of the preferences of a tenant, in the order of their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from batchwork_server.domain.preference_groups import ChangeKind, PreferenceChange
from batchwork_server.store.database import Database
from batchwork_server.store.statements import Column, dialect_of, insert_rows, run
from batchwork_server.store.tables import preference_changes
from batchwork_server.store.times import from_micros, to_micros

_COLUMNS = (
    Column("tenant_id", "text"),
    Column("sequence"),
    Column("change_time"),
    Column("kind", "text"),
    Column("feature_type", "text"),
    Column("user_id", "text"),
    Column("revision", "integer"),
    Column("enabled", "boolean"),
    Column("group_left"),
    Column("group_joined"),
)
_FEED = "SELECT sequence, change_time FROM preference_feeds WHERE tenant_id = ?"
_LOCK = {"sqlite": _FEED, "postgresql": f"{_FEED} FOR UPDATE"}
_BEGIN = "INSERT INTO preference_feeds (tenant_id) VALUES (?) ON CONFLICT DO NOTHING"
_ADVANCE = "UPDATE preference_feeds SET sequence = ?, change_time = ? WHERE tenant_id = ?"

# Of one tenant, times are in the order of the numbers: what is older need not be read. The empty
# text keeps the planner from sorting all changes of the tenant to find the first one.
_OF_USER = f"""
SELECT {", ".join(column.name for column in _COLUMNS)} FROM preference_changes
WHERE tenant_id = ? AND sequence >= (
  SELECT sequence FROM preference_changes WHERE tenant_id || '' = ? AND change_time >= ?
  ORDER BY change_time, tenant_id, sequence LIMIT 1)
  AND feature_type = ? AND user_id = ?
ORDER BY sequence DESC LIMIT ?
"""


async def lock_feed(connection: AsyncConnection, tenant_id: str) -> tuple[int, int]:
    """Keeps everybody else from changing preferences of the tenant until the transaction ends.

    Returns:
        The number of the newest change, and its time.
    """
    lock = _LOCK[dialect_of(connection)]
    found = await run(connection, lock, (tenant_id,))
    if not found:
        await run(connection, _BEGIN, (tenant_id,))
        found = await run(connection, lock, (tenant_id,))
    [(sequence, change_time)] = found
    return sequence, change_time


async def append_changes(
    connection: AsyncConnection, changes: Sequence[PreferenceChange], *, tenant_id: str
) -> list[PreferenceChange]:
    """Numbers changes and stores them; returns them as they are stored.

    The caller holds the feed.
    """
    sequence, newest = await lock_feed(connection, tenant_id)
    moments = (max(newest, to_micros(change.change_time)) for change in changes)
    numbered = [
        replace(change, sequence=number, change_time=from_micros(moment))
        for number, (change, moment) in enumerate(zip(changes, moments, strict=True), sequence + 1)
    ]
    last = numbered[-1]
    await run(connection, _ADVANCE, (last.sequence, to_micros(last.change_time), tenant_id))
    rows = [_row_of(change, tenant_id) for change in numbered]
    await insert_rows(connection, "preference_changes", _COLUMNS, rows)
    return numbered


class SqlPreferenceChanges:
    """Implements ``PreferenceChangeStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self, *, tenant_id: str) -> int:
        row = await self._database.fetch_row(_FEED, (tenant_id,))
        return 0 if row is None else int(row[0])

    async def after(
        self, sequence: int, *, tenant_id: str, limit: int
    ) -> Sequence[PreferenceChange]:
        query = (
            sa.select(preference_changes)
            .where(
                preference_changes.c.tenant_id == tenant_id,
                preference_changes.c.sequence > sequence,
            )
            .order_by(preference_changes.c.sequence)
            .limit(limit)
        )
        async with self._database.reading() as connection:
            return [_change_from(row) for row in await connection.execute(query)]

    async def after_tenant(self, tenant_id: str, *, limit: int) -> Sequence[PreferenceChange]:
        query = (
            sa.select(preference_changes)
            .where(preference_changes.c.tenant_id > tenant_id)
            .order_by(preference_changes.c.tenant_id, preference_changes.c.sequence)
            .limit(limit)
        )
        async with self._database.reading() as connection:
            return [_change_from(row) for row in await connection.execute(query)]

    async def of_user(
        self, user_id: str, *, feature_type: str, tenant_id: str, since: datetime, limit: int
    ) -> Sequence[PreferenceChange]:
        parameters = (tenant_id, tenant_id, to_micros(since), feature_type, user_id, limit)
        async with self._database.reading() as connection:
            rows = await run(connection, _OF_USER, parameters)
        return [_change_from(_Row(*row)) for row in rows][::-1]

    async def forget(self, *, before: datetime, limit: int) -> int:
        key = (preference_changes.c.tenant_id, preference_changes.c.sequence)
        # Of one tenant, times are in the order of the numbers: what is left has no gap.
        oldest = (
            sa.select(*key)
            .where(preference_changes.c.change_time < to_micros(before))
            .order_by(preference_changes.c.change_time, preference_changes.c.sequence)
            .limit(limit)
        )
        async with self._database.transaction() as tx:
            result = await tx.connection.execute(
                sa.delete(preference_changes).where(sa.tuple_(*key).in_(oldest))
            )
            return int(result.rowcount)


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of preference_changes, in the order of ``_COLUMNS``."""

    tenant_id: str
    sequence: int
    change_time: int
    kind: str
    feature_type: str
    user_id: str
    revision: int
    enabled: bool
    group_left: int | None
    group_joined: int | None


def _row_of(change: PreferenceChange, tenant_id: str) -> tuple[Any, ...]:
    return (
        *(tenant_id, change.sequence, to_micros(change.change_time), change.kind.value),
        *(change.feature_type, change.user_id, change.revision, change.enabled),
        *(change.group_left, change.group_joined),
    )


def _change_from(row: Any) -> PreferenceChange:
    return PreferenceChange(
        tenant_id=row.tenant_id,
        sequence=row.sequence,
        change_time=from_micros(row.change_time),
        kind=ChangeKind(row.kind),
        feature_type=row.feature_type,
        user_id=row.user_id,
        revision=row.revision,
        enabled=bool(row.enabled),
        group_left=row.group_left,
        group_joined=row.group_joined,
    )
