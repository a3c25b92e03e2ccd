"""Whom a run of a group is for, besides its members."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from batchwork_server.domain.preference import Preference
from batchwork_server.store.database import Database
from batchwork_server.store.pages import first_page
from batchwork_server.store.preferences import preference_from, select_preferences
from batchwork_server.store.tables import (
    inactive_users,
    preference_changes,
    preferences,
    system_users,
)
from batchwork_server.store.times import to_micros


class SqlGroupMembers:
    """Implements ``GroupMemberStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def moved_from(
        self,
        group_key: int,
        *,
        tenant_id: str,
        feature_type: str,
        since: datetime,
        page_size: int,
        after: str,
    ) -> tuple[list[Preference], str | None]:
        changes, own = preference_changes.c, preferences.c
        left = sa.select(changes.user_id).where(
            changes.group_left == group_key,
            sa.text("preference_changes.enabled"),
            changes.change_time >= to_micros(since),
            changes.tenant_id == tenant_id,
            changes.user_id > after,
        )
        query = (
            select_preferences()
            .where(
                own.tenant_id == tenant_id,
                own.feature_type == feature_type,
                own.user_id.in_(left),
                own.group_key.is_not(None),
                own.group_key != group_key,
            )
            .order_by(own.user_id)
            .limit(page_size + 1)
        )
        async with self._database.reading() as connection:
            rows = (await connection.execute(query)).all()
        page, more_follow = first_page(
            rows, page_size=page_size, weight=lambda row: len(row.overrides_json)
        )
        return [preference_from(row) for row in page], page[-1].user_id if more_follow else None

    async def without_preference(
        self, feature_type: str, *, tenant_id: str, page_size: int, after: str
    ) -> tuple[list[str], str | None]:
        own = sa.exists().where(
            preferences.c.tenant_id == tenant_id,
            preferences.c.feature_type == feature_type,
            preferences.c.user_id == system_users.c.user_id,
        )
        is_inactive = sa.exists().where(
            inactive_users.c.tenant_id == tenant_id,
            inactive_users.c.user_id == system_users.c.user_id,
        )
        query = (
            sa.select(system_users.c.user_id)
            .where(
                system_users.c.tenant_id == tenant_id,
                system_users.c.user_id > after,
                system_users.c.active,
                ~own,
                ~is_inactive,
            )
            .order_by(system_users.c.user_id)
            .limit(page_size + 1)
        )
        async with self._database.reading() as connection:
            found = list((await connection.execute(query)).scalars())
        page = found[:page_size]
        return page, page[-1] if len(found) > page_size else None
