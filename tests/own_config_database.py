"""Our own preferences, read as if they were a Config Database: the port beside the HTTP adapter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

import sqlalchemy as sa
from batchwork_server.domain.config_source import (
    Answer,
    UserWishes,
    WishChanges,
    WishGroup,
    WishPage,
)
from batchwork_server.domain.preference import Preference
from batchwork_server.domain.preference_groups import schedule_of_text
from batchwork_server.store.database import Database
from batchwork_server.store.preference_changes import SqlPreferenceChanges
from batchwork_server.store.preferences import SqlPreferences
from batchwork_server.store.tables import preference_groups, preferences

_USERS_AT_ONCE = 1000
_CHANGES_AT_ONCE = 1000
_LONGEST_ID = 19


class SqlConfigDatabase:
    """Implements ``ConfigDatabase`` over the preferences of one tenant; no answer is ever old."""

    def __init__(self, database: Database, *, tenant_id: str) -> None:
        self._database = database
        self._preferences = SqlPreferences(database)
        self._changes = SqlPreferenceChanges(database)
        self._tenant_id = tenant_id

    async def all_users(self, *, page_token: str = "") -> WishPage:
        query = (
            sa.select(preferences.c.user_id)
            .where(preferences.c.tenant_id == self._tenant_id, preferences.c.user_id > page_token)
            .group_by(preferences.c.user_id)
            .order_by(preferences.c.user_id)
            .limit(_USERS_AT_ONCE + 1)
        )
        async with self._database.reading() as connection:
            user_ids = [row.user_id for row in await connection.execute(query)]
        page = user_ids[:_USERS_AT_ONCE]
        return WishPage(
            users=await self._users(page),
            next_page_token=page[-1] if len(user_ids) > _USERS_AT_ONCE else "",
        )

    async def user(
        self, user_id: str, *, max_age: timedelta | None = None
    ) -> Answer[UserWishes | None]:
        [user] = await self._users([user_id])
        return Answer(value=user if user.wishes else None)

    async def groups(
        self, feature_type: str, *, max_age: timedelta | None = None
    ) -> Answer[Sequence[WishGroup] | None]:
        query = sa.select(
            preference_groups.c.schedule_json, preference_groups.c.member_count
        ).where(
            preference_groups.c.tenant_id == self._tenant_id,
            preference_groups.c.feature_type == feature_type,
            preference_groups.c.member_count > 0,
        )
        async with self._database.reading() as connection:
            rows = (await connection.execute(query)).all()
        groups = [
            WishGroup(
                feature_type=feature_type,
                schedule=schedule_of_text(row.schedule_json),
                user_count=row.member_count,
            )
            for row in rows
        ]
        return Answer(value=groups)

    async def newest_change(self) -> str:
        return str(await self._changes.newest(tenant_id=self._tenant_id))

    async def changes(self, since_id: str) -> WishChanges | None:
        since = int(since_id) if since_id.isdecimal() and len(since_id) < _LONGEST_ID else -1
        newest = int(await self.newest_change())
        found = await self._changes.after(since, tenant_id=self._tenant_id, limit=_CHANGES_AT_ONCE)
        has_gap = found[0].sequence != since + 1 if found else newest > since
        if since < 0 or since > newest or has_gap:
            return None
        # A change of a default is one of no user.
        user_ids = list(dict.fromkeys(change.user_id for change in found if change.user_id))
        last = found[-1].sequence if found else since
        return WishChanges(
            users=await self._users(user_ids),
            last_id=str(last),
            more_follow=len(found) == _CHANGES_AT_ONCE,
        )

    async def _users(self, user_ids: Sequence[str]) -> list[UserWishes]:
        """Returns each of the users; who has no preference wishes nothing."""
        found = await self._preferences.of_users(user_ids, tenant_id=self._tenant_id)
        of_user: dict[str, list[Preference]] = {user_id: [] for user_id in user_ids}
        for preference in found.values():
            of_user[preference.user_id].append(preference)
        return [_wishes_of(user_id, stored) for user_id, stored in of_user.items()]


def _wishes_of(user_id: str, stored: Iterable[Preference]) -> UserWishes:
    stored = list(stored)
    return UserWishes(
        user_id=user_id,
        wishes={preference.feature_type: preference.wish for preference in stored},
        active=all(preference.active for preference in stored),
    )
