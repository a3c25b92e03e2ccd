"""The groups of users who wish the same schedule, from the readers' side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from batchwork_server.domain.preference_groups import (
    PreferenceGroup,
    schedule_of_text,
    schedule_text,
)
from batchwork_server.domain.schedule import Schedule
from batchwork_server.store.database import Database
from batchwork_server.store.pages import first_page, follows
from batchwork_server.store.preference_changes import lock_feed
from batchwork_server.store.statements import run
from batchwork_server.store.store import GroupPlace, Transaction
from batchwork_server.store.tables import preference_groups
from batchwork_server.store.times import from_micros, to_micros

_KEY_OF = """
SELECT group_key FROM preference_groups
WHERE tenant_id = ? AND feature_type = ? AND schedule_json = ?
"""
_FEATURE_TYPES = """
SELECT DISTINCT feature_type FROM preference_groups
WHERE tenant_id = ? AND member_count > 0 ORDER BY feature_type
"""
_RESTING = """
SELECT p.group_key, COUNT(*) FROM inactive_users n CROSS JOIN preferences p
WHERE n.tenant_id = ? AND p.tenant_id = n.tenant_id AND p.user_id = n.user_id
  AND p.group_key IS NOT NULL
"""
# All but those with a preference, who are few where many say nothing, and those who rest. A cross
# join is read from left to right by SQLite: it must not go through all users once more.
_SILENT = """
SELECT (SELECT COUNT(*) FROM system_users WHERE tenant_id = ? AND active) -
  (SELECT COUNT(*) FROM preferences p CROSS JOIN system_users u
    WHERE p.tenant_id = ? AND p.feature_type = ?
      AND u.tenant_id = p.tenant_id AND u.user_id = p.user_id AND u.active) -
  (SELECT COUNT(*) FROM inactive_users n CROSS JOIN system_users u
    WHERE n.tenant_id = ? AND u.tenant_id = n.tenant_id AND u.user_id = n.user_id AND u.active
      AND NOT EXISTS (SELECT 1 FROM preferences p WHERE p.tenant_id = n.tenant_id
        AND p.feature_type = ? AND p.user_id = n.user_id))
"""
_EMPTY = """
SELECT tenant_id, group_key FROM preference_groups g
WHERE member_count = 0 AND populate_time < ? AND schedule_json <> ''
  AND NOT EXISTS (SELECT 1 FROM preference_changes c
    WHERE c.group_left = g.group_key AND c.enabled AND c.change_time >= ?)
  AND group_key NOT IN (SELECT f.group_key FROM group_fillings f)
ORDER BY populate_time LIMIT ?
"""
_FORGET = """
DELETE FROM preference_groups
WHERE tenant_id = ? AND group_key = ? AND member_count = 0 AND populate_time < ?
RETURNING group_key
"""
_FORGET_SCHEDULES = "DELETE FROM group_schedules WHERE tenant_id = ? AND group_key = ?"
_columns = preference_groups.c


class SqlPreferenceGroups:
    """Implements ``PreferenceGroupStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, group_key: int, *, tenant_id: str) -> PreferenceGroup | None:
        query = sa.select(preference_groups).where(
            _columns.group_key == group_key, _columns.tenant_id == tenant_id
        )
        async with self._database.reading() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else group_from(row)

    async def lock(
        self, tx: Transaction, group_key: int, *, tenant_id: str
    ) -> PreferenceGroup | None:
        query = sa.select(preference_groups).where(
            _columns.group_key == group_key, _columns.tenant_id == tenant_id
        )
        row = (await tx.connection.execute(query.with_for_update())).first()
        return None if row is None else group_from(row)

    async def forget_empty(self, *, before: datetime, limit: int) -> int:
        moment = to_micros(before)
        async with self._database.reading() as connection:
            rows = await run(connection, _EMPTY, (moment, moment, limit))
        by_tenant: dict[str, list[int]] = {}
        for tenant_id, group_key in rows:
            by_tenant.setdefault(tenant_id, []).append(group_key)
        forgotten = 0
        for tenant_id, group_keys in by_tenant.items():
            async with self._database.transaction() as tx:
                await lock_feed(tx.connection, tenant_id)  # nobody joins one meanwhile
                for group_key in group_keys:
                    if await run(tx.connection, _FORGET, (tenant_id, group_key, moment)):
                        await run(tx.connection, _FORGET_SCHEDULES, (tenant_id, group_key))
                        forgotten += 1
        return forgotten

    async def key_of(
        self, feature_type: str, schedule: Schedule | None, *, tenant_id: str
    ) -> int | None:
        row = await self._database.fetch_row(
            _KEY_OF, (tenant_id, feature_type, schedule_text(schedule))
        )
        return None if row is None else int(row[0])

    async def list(
        self,
        *,
        tenant_id: str | None,
        feature_type: str,
        with_empty: bool,
        page_size: int,
        after: GroupPlace | None,
    ) -> tuple[list[PreferenceGroup], GroupPlace | None]:
        key = (_columns.tenant_id, _columns.feature_type, _columns.group_key)
        query = sa.select(preference_groups)
        if tenant_id is not None:
            query = query.where(_columns.tenant_id == tenant_id)
        if feature_type:
            query = query.where(_columns.feature_type == feature_type)
        if not with_empty:
            query = query.where(_columns.member_count > 0)
        if after is not None:
            query = query.where(follows(key, after, tenant_id=tenant_id))
        query = query.order_by(*key)
        async with self._database.reading() as connection:
            rows = (await connection.execute(query.limit(page_size + 1))).all()
        page, more_follow = first_page(
            rows, page_size=page_size, weight=lambda row: len(row.schedule_json)
        )
        found = [group_from(row) for row in page]
        if not more_follow:
            return found, None
        last = found[-1]
        return found, (last.tenant_id, last.feature_type, last.group_key)

    async def feature_types(self, *, tenant_id: str) -> Sequence[str]:
        async with self._database.reading() as connection:
            rows = await run(connection, _FEATURE_TYPES, (tenant_id,))
        return [feature_type for (feature_type,) in rows]

    async def resting_counts(self, *, tenant_id: str, feature_type: str) -> Mapping[int, int]:
        sql, values = _RESTING, [tenant_id]
        if feature_type:
            sql += " AND p.feature_type = ?"
            values.append(feature_type)
        async with self._database.reading() as connection:
            rows = await run(connection, f"{sql} GROUP BY p.group_key", tuple(values))
        return {group_key: int(count) for group_key, count in rows}

    async def silent_count(self, feature_type: str, *, tenant_id: str) -> int:
        parameters = (tenant_id, tenant_id, feature_type, tenant_id, feature_type)
        async with self._database.reading() as connection:
            [(count,)] = await run(connection, _SILENT, parameters)
        return int(count)


def group_from(row: Any) -> PreferenceGroup:
    return PreferenceGroup(
        group_key=row.group_key,
        tenant_id=row.tenant_id,
        feature_type=row.feature_type,
        schedule=schedule_of_text(row.schedule_json),
        member_count=row.member_count,
        create_time=from_micros(row.create_time),
        # A server of the release before leaves it out.
        populate_time=from_micros(max(row.populate_time, row.create_time)),
    )
