"""What the users of a tenant wish for features."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from batchwork_server.domain.filters import PreferenceFilter
from batchwork_server.domain.preference import Preference
from batchwork_server.domain.schedule import Schedule, parse_schedule, render_schedule
from batchwork_server.store.database import Database
from batchwork_server.store.locks import lock_until_commit
from batchwork_server.store.pages import first_page
from batchwork_server.store.statements import Column, insert_rows
from batchwork_server.store.store import Transaction
from batchwork_server.store.tables import preferences
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
)
_IS_ENABLED = """
SELECT enabled FROM preferences WHERE tenant_id = ? AND feature_type = ? AND user_id = ?
"""
_REPLACE = """
ON CONFLICT (tenant_id, feature_type, user_id) DO UPDATE SET
  enabled = excluded.enabled, schedule_json = excluded.schedule_json,
  overrides_json = excluded.overrides_json, revision = excluded.revision,
  update_time = excluded.update_time
"""


class SqlPreferences:
    """Implements ``PreferenceStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def lock(
        self, tx: Transaction, *, user_id: str, feature_type: str, tenant_id: str
    ) -> Preference | None:
        await lock_until_commit(tx.connection, "preferences", tenant_id, feature_type, user_id)
        return await _fetch(
            tx.connection, user_id=user_id, feature_type=feature_type, tenant_id=tenant_id
        )

    async def put(self, tx: Transaction, preference: Preference, *, tenant_id: str) -> None:
        row = _row_of(preference, tenant_id=tenant_id)
        await insert_rows(tx.connection, "preferences", _COLUMNS, [row], on_conflict=_REPLACE)

    async def get(self, *, user_id: str, feature_type: str, tenant_id: str) -> Preference | None:
        async with self._database.reading() as connection:
            return await _fetch(
                connection, user_id=user_id, feature_type=feature_type, tenant_id=tenant_id
            )

    async def is_disabled(self, *, user_id: str, feature_type: str, tenant_id: str) -> bool:
        row = await self._database.fetch_row(_IS_ENABLED, (tenant_id, feature_type, user_id))
        return row is not None and not row[0]

    async def list(
        self, wanted: PreferenceFilter, *, page_size: int, after: tuple[str, str] | None
    ) -> tuple[list[Preference], tuple[str, str] | None]:
        key = sa.tuple_(preferences.c.feature_type, preferences.c.user_id)
        query = sa.select(preferences).where(*_conditions(wanted))
        if after is not None:
            query = query.where(key > sa.tuple_(*after))
        query = query.order_by(preferences.c.feature_type, preferences.c.user_id)
        async with self._database.reading() as connection:
            rows = (await connection.execute(query.limit(page_size + 1))).all()
        page, more_follow = first_page(
            rows, page_size=page_size, weight=lambda row: len(row.overrides_json)
        )
        found = [_preference_from(row) for row in page]
        return found, (page[-1].feature_type, page[-1].user_id) if more_follow else None


def _conditions(wanted: PreferenceFilter) -> Iterator[sa.ColumnElement[bool]]:
    yield preferences.c.tenant_id == wanted.tenant_id
    if wanted.user_id:
        yield preferences.c.user_id == wanted.user_id
    if wanted.feature_type:
        yield preferences.c.feature_type == wanted.feature_type
    if wanted.enabled is not None:
        yield preferences.c.enabled == wanted.enabled


async def _fetch(
    connection: AsyncConnection, *, user_id: str, feature_type: str, tenant_id: str
) -> Preference | None:
    query = sa.select(preferences).where(
        preferences.c.tenant_id == tenant_id,
        preferences.c.feature_type == feature_type,
        preferences.c.user_id == user_id,
    )
    row = (await connection.execute(query)).first()
    return None if row is None else _preference_from(row)


def _row_of(preference: Preference, *, tenant_id: str) -> tuple[Any, ...]:
    schedule = preference.schedule
    return (
        *(tenant_id, preference.feature_type, preference.user_id, preference.enabled),
        None if schedule is None else json.dumps(render_schedule(schedule)),
        json.dumps(preference.template_overrides),
        *(preference.revision, to_micros(preference.create_time)),
        to_micros(preference.update_time),
    )


def _preference_from(row: Any) -> Preference:
    return Preference(
        user_id=row.user_id,
        feature_type=row.feature_type,
        enabled=row.enabled,
        schedule=None if row.schedule_json is None else _schedule_from(row.schedule_json),
        template_overrides=json.loads(row.overrides_json),
        revision=row.revision,
        create_time=from_micros(row.create_time),
        update_time=from_micros(row.update_time),
    )


def _schedule_from(text: str) -> Schedule:
    schedule, violations = parse_schedule(json.loads(text), path="schedule")
    if schedule is None:
        raise ValueError(f"A stored schedule cannot be read: {violations}")
    return schedule
