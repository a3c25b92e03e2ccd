"""When the groups of preference-based jobs run, and which of them are being filled."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from batchwork_server.domain.firing import Decision
from batchwork_server.domain.group_schedules import (
    ASLEEP,
    Filling,
    GroupSchedule,
    start_of_run,
)
from batchwork_server.domain.job import StoredJob
from batchwork_server.domain.preference_groups import (
    PreferenceGroup,
    schedule_of_text,
    schedule_text,
)
from batchwork_server.store.database import Database
from batchwork_server.store.jobs import job_from
from batchwork_server.store.preference_groups import group_from
from batchwork_server.store.statements import Column, run, update_rows
from batchwork_server.store.store import DueGroup, GroupedJob, Transaction
from batchwork_server.store.tables import group_schedules, jobs, preference_groups
from batchwork_server.store.times import from_micros, to_micros

_rows = group_schedules.c

GROUPED_JOBS = """
SELECT j.tenant_id, j.job_id, j.revision, j.create_time, COALESCE(f.sequence, 0),
  (SELECT s.reset_time FROM group_schedules s
    WHERE s.tenant_id = j.tenant_id AND s.job_id = j.job_id ORDER BY s.group_key LIMIT 1)
FROM jobs j LEFT JOIN preference_feeds f ON f.tenant_id = j.tenant_id
WHERE j.preference_based AND j.pause_time IS NULL ORDER BY j.tenant_id, j.job_id
"""
_COLUMNS = (
    Column("tenant_id", "text"),
    Column("job_id", "text"),
    Column("group_key"),
    Column("job_revision", "integer"),
    Column("job_create_time"),
    Column("default_revision", "integer"),
    Column("schedule_json", "text"),
    Column("next_due_time"),
    Column("next_start_time"),
    Column("last_due_time"),
    Column("reset_time"),
    Column("queued_as", "text"),
)
_NAMES = ", ".join(column.name for column in _COLUMNS)
# The condition keeps SQLite from taking the conflict for a join.
_INSERT = f"""
INSERT INTO group_schedules ({_NAMES}) SELECT {_NAMES} FROM {{rows}} WHERE true
ON CONFLICT DO NOTHING RETURNING group_key
"""
_RENEW = """
UPDATE group_schedules SET
  job_revision = v.job_revision, job_create_time = v.job_create_time,
  default_revision = v.default_revision, schedule_json = v.schedule_json,
  next_due_time = v.next_due_time, last_due_time = v.last_due_time,
  reset_time = v.reset_time, queued_as = v.queued_as,
  next_start_time =
    CASE WHEN filling_batch_id = '' THEN v.next_start_time
    ELSE group_schedules.next_start_time END
FROM {rows}
WHERE group_schedules.tenant_id = v.tenant_id AND group_schedules.job_id = v.job_id
  AND group_schedules.group_key = v.group_key
  AND group_schedules.job_revision = v.old_job_revision
  AND group_schedules.default_revision = v.old_default_revision
  AND COALESCE(group_schedules.next_due_time, -1) = v.old_due_time
RETURNING group_schedules.group_key
"""
_RENEW_COLUMNS = (
    *_COLUMNS,
    Column("old_job_revision", "integer"),
    Column("old_default_revision", "integer"),
    Column("old_due_time"),
)
# A group that came while the job was paused has no row that could say since when it counts.
_INSERT_MISSING = """
INSERT INTO group_schedules (tenant_id, job_id, group_key, job_revision, job_create_time,
  default_revision, last_due_time)
SELECT g.tenant_id, j.job_id, g.group_key, 0, j.create_time, 0, g.populate_time
FROM jobs j JOIN preference_groups g
  ON g.tenant_id = j.tenant_id AND g.feature_type = j.feature_type
WHERE j.tenant_id = ? AND j.job_id = ? AND j.preference_based
ON CONFLICT DO NOTHING
"""
# What is being filled goes on: nobody looks at it before its filler has had time.
_RESET = f"""
UPDATE group_schedules SET reset_time = ?, queued_as = '',
  job_revision = CASE WHEN job_revision = {ASLEEP} THEN {ASLEEP} ELSE 0 END,
  next_due_time = CASE WHEN next_due_time > ? THEN next_due_time END,
  next_start_time = CASE WHEN filling_batch_id = '' THEN NULL ELSE next_start_time END
WHERE tenant_id = ? AND job_id = ?
"""
_MOVE = """
UPDATE group_schedules SET job_revision = ?, next_due_time = ?, next_start_time = ?,
  last_due_time = ?, queued_as = ?, last_batch_id = ?, filling_batch_id = ?, filling_due_time = ?,
  filled_after = ?
WHERE tenant_id = ? AND job_id = ? AND group_key = ? AND job_revision = ?
  AND default_revision = ? AND COALESCE(next_due_time, -1) = ? AND filling_batch_id = ''
  AND EXISTS (SELECT 1 FROM jobs j WHERE j.tenant_id = group_schedules.tenant_id
    AND j.job_id = group_schedules.job_id AND j.revision = group_schedules.job_revision
    AND j.create_time = group_schedules.job_create_time AND j.pause_time IS NULL)
RETURNING group_key
"""
_IS_FILLED = """
WHERE tenant_id = ? AND job_id = ? AND group_key = ? AND filling_batch_id = ? AND filled_after = ?
RETURNING group_key
"""
_GO_ON = f"UPDATE group_schedules SET filled_after = ?, next_start_time = ? {_IS_FILLED}"
# Whoever looks next finds out when exactly the next run begins.
_END_FILLING = f"""
UPDATE group_schedules SET filling_batch_id = '', filling_due_time = NULL, filled_after = '',
  next_start_time = next_due_time {_IS_FILLED}
"""
_TAKE = """
UPDATE group_schedules SET next_start_time = ?
WHERE tenant_id = ? AND job_id = ? AND group_key = ? AND filling_batch_id = ?
  AND next_start_time = ?
RETURNING group_key
"""
_DROP = """
DELETE FROM group_schedules WHERE tenant_id = ? AND job_id = ? AND group_key = ?
  AND filling_batch_id = ''
"""
NEXT_START = "SELECT MIN(next_start_time) FROM group_schedules WHERE next_start_time > ?"
_IS_RUNNING = """
EXISTS (SELECT 1 FROM batches b WHERE b.tenant_id = group_schedules.tenant_id
  AND b.batch_id = group_schedules.last_batch_id AND b.end_time IS NULL AND b.state <> 'DELETED')
"""
_ENSURE_GROUP = """
INSERT INTO preference_groups (tenant_id, feature_type, schedule_json, create_time, populate_time)
VALUES (?, ?, '', ?, ?) ON CONFLICT DO NOTHING
"""


class SqlGroupSchedules:
    """Implements ``GroupScheduleStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def grouped_jobs(self) -> list[GroupedJob]:
        async with self._database.reading() as connection:
            rows = await run(connection, GROUPED_JOBS)
        return [
            GroupedJob(
                tenant_id=tenant_id,
                job_id=job_id,
                revision=revision,
                create_time=from_micros(create_time),
                sequence=sequence,
                reset_time=from_micros(reset_time),
            )
            for tenant_id, job_id, revision, create_time, sequence, reset_time in rows
        ]

    async def ensure_group(
        self, tx: Transaction, feature_type: str, *, tenant_id: str, now: datetime
    ) -> None:
        values = (tenant_id, feature_type, to_micros(now), to_micros(now))
        await run(tx.connection, _ENSURE_GROUP, values)

    async def outdated(
        self, job: StoredJob, *, default_revision: int, limit: int
    ) -> list[tuple[PreferenceGroup, GroupSchedule | None]]:
        of_job = sa.and_(
            _rows.tenant_id == job.tenant_id,
            _rows.job_id == job.definition.job_id,
            _rows.group_key == preference_groups.c.group_key,
        )
        query = (
            sa.select(
                preference_groups,
                *(column.label(f"s_{column.name}") for column in group_schedules.columns),
            )
            .select_from(preference_groups.outerjoin(group_schedules, of_job))
            .where(
                preference_groups.c.tenant_id == job.tenant_id,
                preference_groups.c.feature_type == job.definition.feature_type,
                sa.or_(
                    _rows.group_key.is_(None),
                    _rows.job_revision != job.revision,
                    _rows.job_create_time != to_micros(job.create_time),
                    _rows.default_revision != default_revision,
                ),
                sa.or_(
                    _rows.group_key.is_(None),
                    _rows.job_revision != ASLEEP,
                    preference_groups.c.member_count > 0,
                    preference_groups.c.populate_time > _rows.last_due_time,
                    sa.and_(
                        sa.literal(job.definition.include_all_users),
                        preference_groups.c.schedule_json == "",
                    ),
                ),
            )
            .limit(limit)
        )
        async with self._database.reading() as connection:
            found = (await connection.execute(query)).all()
        return [
            (group_from(row), None if row.s_group_key is None else _schedule_from(row, "s_"))
            for row in found
        ]

    async def insert(self, tx: Transaction, new: Sequence[GroupSchedule]) -> int:
        rows = [_values(row) for row in new]
        return len(await update_rows(tx.connection, _INSERT, _COLUMNS, rows))

    async def renew(
        self, tx: Transaction, changed: Sequence[tuple[GroupSchedule, GroupSchedule]]
    ) -> int:
        rows = [
            (
                *_values(after),
                *(before.job_revision, before.default_revision, _micros_or(before.next_due_time)),
            )
            for before, after in changed
        ]
        return len(await update_rows(tx.connection, _RENEW, _RENEW_COLUMNS, rows))

    async def reset(self, tx: Transaction, job_id: str, *, tenant_id: str, now: datetime) -> None:
        await run(tx.connection, _INSERT_MISSING, (tenant_id, job_id))
        await run(tx.connection, _RESET, (to_micros(now), to_micros(now), tenant_id, job_id))

    async def due(self, *, now: datetime, limit: int) -> list[DueGroup]:
        of_job = sa.and_(jobs.c.tenant_id == _rows.tenant_id, jobs.c.job_id == _rows.job_id)
        query = (
            sa.select(
                jobs,
                *(column.label(f"s_{column.name}") for column in group_schedules.columns),
                sa.literal_column(_IS_RUNNING).label("is_running"),
            )
            .select_from(group_schedules.outerjoin(jobs, of_job))
            .where(_rows.next_start_time <= to_micros(now))
            .order_by(_rows.next_start_time, _rows.tenant_id, _rows.job_id, _rows.group_key)
            .limit(limit)
        )
        async with self._database.reading() as connection:
            found = (await connection.execute(query)).all()
        return [
            DueGroup(
                row=_schedule_from(row, "s_"),
                job=None if row.job_id is None else job_from(row),
                is_running=bool(row.is_running),
                look_time=from_micros(row.s_next_start_time),
            )
            for row in found
        ]

    async def next_start_time(self, *, after: datetime) -> datetime | None:
        row = await self._database.fetch_row(NEXT_START, (to_micros(after),))
        return None if row is None else from_micros(row[0])

    async def get(self, job_id: str, group_key: int, *, tenant_id: str) -> GroupSchedule | None:
        query = sa.select(group_schedules).where(
            _rows.tenant_id == tenant_id, _rows.job_id == job_id, _rows.group_key == group_key
        )
        async with self._database.reading() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else _schedule_from(row, "")

    async def move(
        self,
        tx: Transaction,
        before: GroupSchedule,
        after: GroupSchedule,
        *,
        look_time: datetime | None,
    ) -> bool:
        filling = after.filling
        parameters = (
            *(after.job_revision, to_micros(after.next_due_time), to_micros(look_time)),
            *(to_micros(after.last_due_time), after.queued_as or "", after.last_batch_id),
            *(("", None, "") if filling is None else _filling_values(filling)),
            *(*before.key, before.job_revision, before.default_revision),
            _micros_or(before.next_due_time),
        )
        return bool(await run(tx.connection, _MOVE, parameters))

    async def take_filling(self, tx: Transaction, due: DueGroup, *, until: datetime) -> bool:
        assert due.row.filling is not None  # noqa: S101  the caller looked
        parameters = (
            *(to_micros(until), *due.row.key, due.row.filling.batch_id),
            to_micros(due.look_time),
        )
        return bool(await run(tx.connection, _TAKE, parameters))

    async def go_on_filling(
        self,
        tx: Transaction,
        row: GroupSchedule,
        filling: Filling,
        *,
        after: str | None,
        until: datetime,
    ) -> bool:
        where = (*row.key, filling.batch_id, filling.after)
        if after is None:
            return bool(await run(tx.connection, _END_FILLING, where))
        return bool(await run(tx.connection, _GO_ON, (after, to_micros(until), *where)))

    async def drop(self, tx: Transaction, row: GroupSchedule) -> None:
        await run(tx.connection, _DROP, row.key)


def _micros_or(moment: datetime | None) -> int:
    return -1 if moment is None else to_micros(moment)


def _filling_values(filling: Filling) -> tuple[str, int, str]:
    return filling.batch_id, to_micros(filling.due_time), filling.after


def _values(row: GroupSchedule) -> tuple[Any, ...]:
    due = row.next_due_time
    return (
        *(*row.key, row.job_revision, to_micros(row.job_create_time), row.default_revision),
        schedule_text(row.schedule),
        *(to_micros(due), None if due is None else to_micros(start_of_run(row, due))),
        *(to_micros(row.last_due_time), to_micros(row.reset_time), row.queued_as or ""),
    )


def _schedule_from(row: Any, prefix: str) -> GroupSchedule:
    def value(name: str) -> Any:
        return getattr(row, prefix + name)

    filling = None
    if value("filling_batch_id"):
        filling = Filling(
            batch_id=value("filling_batch_id"),
            due_time=from_micros(value("filling_due_time")),
            after=value("filled_after"),
        )
    return GroupSchedule(
        tenant_id=value("tenant_id"),
        job_id=value("job_id"),
        group_key=value("group_key"),
        job_revision=value("job_revision"),
        job_create_time=from_micros(value("job_create_time")),
        default_revision=value("default_revision"),
        schedule=schedule_of_text(value("schedule_json")),
        next_due_time=from_micros(value("next_due_time")),
        last_due_time=from_micros(value("last_due_time")),
        reset_time=from_micros(value("reset_time")),
        last_batch_id=value("last_batch_id"),
        queued_as=Decision(value("queued_as")) if value("queued_as") else None,
        filling=filling,
    )
