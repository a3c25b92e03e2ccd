"""What the users of a tenant wish for features.

Whoever writes holds the row of the tenant's feed, and takes it before anything else of the
preferences: so two writers never wait for each other in a ring, whatever groups they touch, and the
changes of a tenant become visible in the order of their numbers.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles

from batchwork_server.domain.filters import PreferenceFilter
from batchwork_server.domain.preference import DefaultPreference, Preference
from batchwork_server.domain.preference_groups import (
    ChangeKind,
    PreferenceChange,
    schedule_of_text,
    schedule_text,
)
from batchwork_server.store.database import Database
from batchwork_server.store.inactive_users import IS_ACTIVE
from batchwork_server.store.pages import first_page, follows
from batchwork_server.store.preference_changes import append_changes, lock_feed
from batchwork_server.store.statements import Column, dialect_of, insert_rows, update_rows
from batchwork_server.store.store import PreferenceKey, PreferencePlace, Transaction
from batchwork_server.store.tables import preference_defaults, preferences
from batchwork_server.store.times import from_micros, to_micros

_COLUMNS = (
    Column("tenant_id", "text"),
    Column("feature_type", "text"),
    Column("user_id", "text"),
    Column("enabled", "boolean"),
    Column("schedule_json", "text"),
    Column("overrides_json", "text"),
    Column("revision", "integer"),
    Column("create_time"),
    Column("update_time"),
    Column("group_key"),
    Column("change_sequence"),
    Column("active", "boolean"),
)
_REPLACE = """
ON CONFLICT (tenant_id, feature_type, user_id) DO UPDATE SET
  enabled = excluded.enabled, schedule_json = excluded.schedule_json,
  overrides_json = excluded.overrides_json, revision = excluded.revision,
  update_time = excluded.update_time, group_key = excluded.group_key,
  change_sequence = excluded.change_sequence, active = excluded.active
"""
_KEY_COLUMNS = (Column("feature", "text"), Column("member", "text"), Column("tenant", "text"))
# A cross join is read from left to right by SQLite: it must not go through all preferences.
_FIND = """
FROM {rows} CROSS JOIN preferences
WHERE tenant_id = v.tenant AND feature_type = v.feature AND user_id = v.member
"""
_GROUPS_OF = f"SELECT feature_type, user_id, group_key {_FIND}"
_READ = f"{', '.join(column.name for column in _COLUMNS[:-1])}, {IS_ACTIVE}"
_FETCH = f"SELECT {_READ} {_FIND}"
_USER_COLUMNS = (Column("member", "text"), Column("tenant", "text"))
_FETCH_OF_USERS = f"""
SELECT {_READ} FROM {{rows}} CROSS JOIN preferences
WHERE tenant_id = v.tenant AND user_id = v.member
"""
_BY_USER = "ix_preferences_tenant_id_user_id_feature_type"
# Without statistics SQLite takes a tenant for ten rows, and would go through all of it each time.
FETCH_OF_USERS = {
    "sqlite": _FETCH_OF_USERS.replace(
        "JOIN preferences", f"JOIN preferences INDEXED BY {_BY_USER}"
    ),
    "postgresql": _FETCH_OF_USERS,
}
_DELETE = """
DELETE FROM preferences WHERE (tenant_id, feature_type, user_id) IN
  (SELECT v.tenant, v.feature, v.member FROM {rows})
"""
_GROUP_COLUMNS = (
    *(Column("tenant", "text"), Column("feature", "text"), Column("schedule", "text")),
    Column("moment"),
)
# The condition keeps SQLite from taking the conflict for a join.
_CREATE_GROUPS = """
INSERT INTO preference_groups (tenant_id, feature_type, schedule_json, create_time, populate_time)
SELECT tenant, feature, schedule, moment, moment FROM {rows} WHERE true ON CONFLICT DO NOTHING
"""
_FIND_GROUPS = """
SELECT feature_type, schedule_json, group_key FROM {rows} CROSS JOIN preference_groups
WHERE tenant_id = v.tenant AND feature_type = v.feature AND schedule_json = v.schedule
"""
_COUNT_COLUMNS = (Column("number"), Column("difference"), Column("moment"))
_COUNT = """
UPDATE preference_groups SET member_count = member_count + v.difference,
  populate_time =
    CASE WHEN member_count = 0 AND v.difference > 0 THEN v.moment ELSE populate_time END
FROM {rows} WHERE group_key = v.number
"""
_DEFAULT_COLUMNS = (
    Column("tenant_id", "text"),
    Column("feature_type", "text"),
    *_COLUMNS[3:9],
)
_REPLACE_DEFAULT = """
ON CONFLICT (tenant_id, feature_type) DO UPDATE SET
  enabled = excluded.enabled, schedule_json = excluded.schedule_json,
  overrides_json = excluded.overrides_json, revision = excluded.revision,
  update_time = excluded.update_time
"""


class SqlPreferences:
    """Implements ``PreferenceStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def lock(
        self, tx: Transaction, keys: Collection[PreferenceKey], *, tenant_id: str
    ) -> dict[PreferenceKey, Preference]:
        await lock_feed(tx.connection, tenant_id)
        rows = await update_rows(tx.connection, _FETCH, _KEY_COLUMNS, _named(keys, tenant_id))
        return _by_key(rows)

    async def lock_users(
        self, tx: Transaction, user_ids: Collection[str], *, tenant_id: str
    ) -> dict[PreferenceKey, Preference]:
        await lock_feed(tx.connection, tenant_id)
        return await _fetch_of_users(tx.connection, user_ids, tenant_id=tenant_id)

    async def of_users(
        self, user_ids: Collection[str], *, tenant_id: str
    ) -> dict[PreferenceKey, Preference]:
        async with self._database.reading() as connection:
            return await _fetch_of_users(connection, user_ids, tenant_id=tenant_id)

    async def put(
        self, tx: Transaction, stored: Sequence[Preference], *, tenant_id: str, now: datetime
    ) -> list[PreferenceChange]:
        if not stored:
            return []
        keys = [(each.feature_type, each.user_id) for each in stored]
        before = await _groups_of(tx.connection, keys, tenant_id=tenant_id)
        groups = await _ensure_groups(tx.connection, stored, tenant_id=tenant_id, now=now)
        after = {
            key: groups[_wished(each)] if each.enabled else None
            for key, each in zip(keys, stored, strict=True)
        }
        await _count_members(tx.connection, before, after, now=now)
        changes = await append_changes(
            tx.connection,
            [
                _change_of(each, ChangeKind.SET, before.get(key), after[key], now=now)
                for key, each in zip(keys, stored, strict=True)
            ],
            tenant_id=tenant_id,
        )
        rows = [
            _row_of(each, change, tenant_id=tenant_id, group_key=after[key])
            for key, each, change in zip(keys, stored, changes, strict=True)
        ]
        await insert_rows(tx.connection, "preferences", _COLUMNS, rows, on_conflict=_REPLACE)
        return changes

    async def delete(
        self, tx: Transaction, stored: Sequence[Preference], *, tenant_id: str, now: datetime
    ) -> list[PreferenceChange]:
        if not stored:
            return []
        keys = [(each.feature_type, each.user_id) for each in stored]
        before = await _groups_of(tx.connection, keys, tenant_id=tenant_id)
        await _count_members(tx.connection, before, {}, now=now)
        await update_rows(tx.connection, _DELETE, _KEY_COLUMNS, _named(keys, tenant_id))
        changes = [
            _change_of(each, ChangeKind.DELETED, before.get(key), None, now=now)
            for key, each in zip(keys, stored, strict=True)
        ]
        return await append_changes(tx.connection, changes, tenant_id=tenant_id)

    async def get(self, *, user_id: str, feature_type: str, tenant_id: str) -> Preference | None:
        query = select_preferences().where(
            preferences.c.tenant_id == tenant_id,
            preferences.c.feature_type == feature_type,
            preferences.c.user_id == user_id,
        )
        async with self._database.reading() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else preference_from(row)

    async def list_members(
        self, group_key: int, *, tenant_id: str, page_size: int, after: str | None
    ) -> tuple[list[Preference], str | None]:
        query = select_preferences().where(
            preferences.c.group_key == group_key, preferences.c.tenant_id == tenant_id
        )
        if after is not None:
            query = query.where(preferences.c.user_id > after)
        query = query.order_by(preferences.c.user_id)
        async with self._database.reading() as connection:
            rows = (await connection.execute(query.limit(page_size + 1))).all()
        page, more_follow = first_page(
            rows, page_size=page_size, weight=lambda row: len(row.overrides_json)
        )
        return [preference_from(row) for row in page], page[-1].user_id if more_follow else None

    async def get_default(self, feature_type: str, *, tenant_id: str) -> DefaultPreference | None:
        async with self._database.reading() as connection:
            return await _fetch_default(connection, feature_type, tenant_id)

    async def lock_default(
        self, tx: Transaction, feature_type: str, *, tenant_id: str
    ) -> DefaultPreference | None:
        await lock_feed(tx.connection, tenant_id)
        return await _fetch_default(tx.connection, feature_type, tenant_id)

    async def put_default(
        self, tx: Transaction, default: DefaultPreference, *, tenant_id: str, now: datetime
    ) -> PreferenceChange:
        row = (
            *(tenant_id, default.feature_type, default.enabled),
            _schedule_json(default),
            *(json.dumps(default.template_overrides), default.revision),
            *(to_micros(default.create_time), to_micros(default.update_time)),
        )
        await insert_rows(
            tx.connection,
            "preference_defaults",
            _DEFAULT_COLUMNS,
            [row],
            on_conflict=_REPLACE_DEFAULT,
        )
        change = PreferenceChange(
            tenant_id=tenant_id,
            sequence=0,
            change_time=now,
            kind=ChangeKind.DEFAULT_SET,
            feature_type=default.feature_type,
            user_id="",
            revision=default.revision,
            enabled=default.enabled,
        )
        return (await append_changes(tx.connection, [change], tenant_id=tenant_id))[0]

    async def list(
        self, wanted: PreferenceFilter, *, page_size: int, after: PreferencePlace | None
    ) -> tuple[list[Preference], PreferencePlace | None]:
        query = select_page(wanted, after=after).limit(page_size + 1)
        async with self._database.reading() as connection:
            rows = (await connection.execute(query)).all()
        page, more_follow = first_page(
            rows, page_size=page_size, weight=lambda row: len(row.overrides_json)
        )
        found = [preference_from(row) for row in page]
        if not more_follow:
            return found, None
        last = found[-1]
        return found, (last.tenant_id, last.feature_type, last.user_id)


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of preferences, in the order of ``_COLUMNS``."""

    tenant_id: str
    feature_type: str
    user_id: str
    enabled: bool
    schedule_json: str | None
    overrides_json: str
    revision: int
    create_time: int
    update_time: int
    group_key: int | None
    change_sequence: int
    active: bool


def _by_key(rows: Sequence[tuple[Any, ...]]) -> dict[PreferenceKey, Preference]:
    found = [preference_from(_Row(*row)) for row in rows]
    return {(each.feature_type, each.user_id): each for each in found}


def _named(keys: Collection[PreferenceKey], tenant_id: str) -> list[tuple[Any, ...]]:
    return [(feature_type, user_id, tenant_id) for feature_type, user_id in sorted(keys)]


async def _groups_of(
    connection: AsyncConnection, keys: Collection[PreferenceKey], *, tenant_id: str
) -> dict[PreferenceKey, int | None]:
    rows = await update_rows(connection, _GROUPS_OF, _KEY_COLUMNS, _named(keys, tenant_id))
    return {(feature_type, user_id): group_key for feature_type, user_id, group_key in rows}


def _wished(preference: Preference) -> tuple[str, str]:
    return preference.feature_type, schedule_text(preference.schedule)


async def _ensure_groups(
    connection: AsyncConnection, stored: Sequence[Preference], *, tenant_id: str, now: datetime
) -> dict[tuple[str, str], int]:
    """Returns the groups of the preferences by feature and schedule, and makes those missing."""
    wished = sorted({_wished(each) for each in stored if each.enabled})
    rows = [(tenant_id, *each, to_micros(now)) for each in wished]
    found = await update_rows(connection, _FIND_GROUPS, _GROUP_COLUMNS, rows)
    if len(found) < len(wished):
        known = {(feature_type, text) for feature_type, text, _ in found}
        missing = [row for row in rows if row[1:3] not in known]
        await update_rows(connection, _CREATE_GROUPS, _GROUP_COLUMNS, missing)
        found += await update_rows(connection, _FIND_GROUPS, _GROUP_COLUMNS, missing)
    return {(feature_type, text): group_key for feature_type, text, group_key in found}


async def _count_members(
    connection: AsyncConnection,
    before: Mapping[PreferenceKey, int | None],
    after: Mapping[PreferenceKey, int | None],
    *,
    now: datetime,
) -> None:
    differences: Counter[int] = Counter()
    for group_key in before.values():
        if group_key is not None:
            differences[group_key] -= 1
    for group_key in after.values():
        if group_key is not None:
            differences[group_key] += 1
    rows = [
        (group_key, change, to_micros(now))
        for group_key, change in sorted(differences.items())
        if change
    ]
    await update_rows(connection, _COUNT, _COUNT_COLUMNS, rows)


def _change_of(
    preference: Preference, kind: ChangeKind, left: int | None, joined: int | None, *, now: datetime
) -> PreferenceChange:
    moved = left != joined
    return PreferenceChange(
        tenant_id=preference.tenant_id,
        sequence=0,
        change_time=now,
        kind=kind,
        feature_type=preference.feature_type,
        user_id=preference.user_id,
        revision=preference.revision,
        enabled=preference.enabled and kind is ChangeKind.SET,
        group_left=left if moved else None,
        group_joined=joined if moved else None,
    )


async def _fetch_of_users(
    connection: AsyncConnection, user_ids: Collection[str], *, tenant_id: str
) -> dict[PreferenceKey, Preference]:
    users = [(user_id, tenant_id) for user_id in sorted(set(user_ids))]
    statement = FETCH_OF_USERS[dialect_of(connection)]
    return _by_key(await update_rows(connection, statement, _USER_COLUMNS, users))


class _PreferencesByUser(sa.TableClause):
    """The preferences, which SQLite is to find by their users."""

    inherit_cache = True


@compiles(_PreferencesByUser, "sqlite")
def _with_index(table: _PreferencesByUser, compiler: Any, **options: Any) -> str:
    hint = f" INDEXED BY {_BY_USER}" if options.get("asfrom") else ""
    return f"{compiler.visit_table(table, **options)}{hint}"


_preferences_by_user = _PreferencesByUser(
    preferences.name, *(sa.column(column.name, column.type) for column in preferences.columns)
)


def select_page(wanted: PreferenceFilter, *, after: PreferencePlace | None) -> sa.Select[Any]:
    """Returns what reads the preferences of a filter after a place, in their order."""
    table = _preferences_by_user if wanted.user_id else preferences
    key = (table.c.tenant_id, table.c.feature_type, table.c.user_id)
    query = select_preferences(table).where(*_conditions(wanted, table))
    if after is not None:
        query = query.where(follows(key, after, tenant_id=wanted.tenant_id))
    return query.order_by(*key)


def _conditions(
    wanted: PreferenceFilter, table: sa.TableClause
) -> Iterator[sa.ColumnElement[bool]]:
    if wanted.tenant_id is not None:
        yield table.c.tenant_id == wanted.tenant_id
    elif wanted.user_id:
        # The index is asked tenant by tenant; else all preferences would be read.
        yield table.c.tenant_id.in_(_tenants())
    if wanted.user_id:
        yield table.c.user_id == wanted.user_id
    if wanted.feature_type:
        yield table.c.feature_type == wanted.feature_type
    if wanted.enabled is not None:
        yield table.c.enabled == wanted.enabled


def _tenants() -> sa.Select[tuple[str]]:
    """Returns what reads the tenants who have preferences, each by one look into the index."""
    tenant_id = preferences.c.tenant_id
    tenants = sa.select(sa.func.min(tenant_id).label("tenant_id")).cte(recursive=True)
    following = sa.select(sa.func.min(tenant_id)).where(tenant_id > tenants.c.tenant_id)
    tenants = tenants.union_all(
        sa.select(following.scalar_subquery()).where(tenants.c.tenant_id.is_not(None))
    )
    return sa.select(tenants.c.tenant_id)


async def _fetch_default(
    connection: AsyncConnection, feature_type: str, tenant_id: str
) -> DefaultPreference | None:
    query = sa.select(preference_defaults).where(
        preference_defaults.c.tenant_id == tenant_id,
        preference_defaults.c.feature_type == feature_type,
    )
    row = (await connection.execute(query)).first()
    if row is None:
        return None
    return DefaultPreference(
        tenant_id=row.tenant_id,
        feature_type=row.feature_type,
        enabled=row.enabled,
        schedule=schedule_of_text(row.schedule_json or ""),
        template_overrides=json.loads(row.overrides_json),
        revision=row.revision,
        create_time=from_micros(row.create_time),
        update_time=from_micros(row.update_time),
    )


def _schedule_json(preference: Preference | DefaultPreference) -> str | None:
    return schedule_text(preference.schedule) or None


def _row_of(
    preference: Preference, change: PreferenceChange, *, tenant_id: str, group_key: int | None
) -> tuple[Any, ...]:
    return (
        *(tenant_id, preference.feature_type, preference.user_id, preference.enabled),
        _schedule_json(preference),
        json.dumps(preference.template_overrides),
        *(preference.revision, to_micros(preference.create_time)),
        *(to_micros(preference.update_time), group_key, change.sequence, preference.active),
    )


def select_preferences(table: sa.TableClause = preferences) -> sa.Select[Any]:
    """Returns what reads the rows that ``preference_from`` takes."""
    columns = [column for column in table.columns if column.name != "active"]
    return sa.select(*columns, sa.literal_column(IS_ACTIVE, sa.Boolean).label("active"))


def preference_from(row: Any) -> Preference:
    return Preference(
        tenant_id=row.tenant_id,
        user_id=row.user_id,
        feature_type=row.feature_type,
        enabled=bool(row.enabled),
        schedule=schedule_of_text(row.schedule_json or ""),
        template_overrides=json.loads(row.overrides_json),
        revision=row.revision,
        create_time=from_micros(row.create_time),
        update_time=from_micros(row.update_time),
        active=bool(row.active),
        change_sequence=row.change_sequence,
    )
