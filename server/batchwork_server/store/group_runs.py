"""What was decided about the due times of groups, and the last run of each user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa

from batchwork_server.domain.batch import Batch
from batchwork_server.domain.filters import OccurrenceFilter
from batchwork_server.domain.firing import Decided, Decision, Occurrence, SkipReason
from batchwork_server.domain.group_schedules import GroupSchedule, UserRun
from batchwork_server.domain.preference_groups import schedule_of_text, schedule_text
from batchwork_server.domain.reference import OwnItem
from batchwork_server.store.database import Database
from batchwork_server.store.locks import lock_until_commit
from batchwork_server.store.own_items import ALONE, TOGETHER, batches_of, own_item_from
from batchwork_server.store.pages import first_page
from batchwork_server.store.statements import Column, run, update_rows
from batchwork_server.store.store import Transaction
from batchwork_server.store.tables import group_occurrences
from batchwork_server.store.times import from_micros, to_micros

_OCCURRENCE_COLUMNS = (
    Column("tenant_id", "text"),
    Column("job_id", "text"),
    Column("group_key"),
    Column("due_time"),
    Column("decision", "text"),
    Column("reason", "text"),
    Column("message", "text"),
    Column("batch_id", "text"),
    Column("schedule_json", "text"),
    Column("decide_time"),
)
_OCCURRENCE_NAMES = ", ".join(column.name for column in _OCCURRENCE_COLUMNS)
# The condition keeps SQLite from taking the conflict for a join.
_RECORD = f"""
INSERT INTO group_occurrences ({_OCCURRENCE_NAMES})
SELECT {_OCCURRENCE_NAMES} FROM {{rows}} WHERE true
ON CONFLICT (tenant_id, job_id, group_key, due_time) DO NOTHING RETURNING due_time
"""
_RUN_COLUMNS = (
    Column("tenant_id", "text"),
    Column("user_id", "text"),
    Column("job_id", "text"),
    Column("due_time"),
    Column("period_start"),
    Column("group_key"),
    Column("batch_id", "text"),
    Column("item_id", "text"),
    Column("look_due_time"),
    Column("look_group_key"),
    Column("look_batch_id", "text"),
    Column("look_reason", "text"),
    Column("due_day"),
    Column("period_day"),
)
_RUN_NAMES = ", ".join(column.name for column in _RUN_COLUMNS)
_LOOKED = """
  look_due_time = excluded.look_due_time, look_group_key = excluded.look_group_key,
  look_batch_id = excluded.look_batch_id, look_reason = excluded.look_reason
"""
_CLAIM = f"""
INSERT INTO user_runs ({_RUN_NAMES}) SELECT {_RUN_NAMES} FROM {{rows}} WHERE true
ON CONFLICT (tenant_id, user_id, job_id) DO UPDATE SET
  due_time = excluded.due_time, period_start = excluded.period_start,
  group_key = excluded.group_key, batch_id = excluded.batch_id, item_id = excluded.item_id,
  due_day = excluded.due_day, period_day = excluded.period_day,
  {_LOOKED}
WHERE user_runs.due_time IS NULL OR
  CASE WHEN user_runs.due_day IS NULL OR excluded.period_day IS NULL
  THEN user_runs.due_time < excluded.period_start
  ELSE user_runs.due_day < excluded.period_day END
RETURNING user_id
"""
_NOTE = f"""
INSERT INTO user_runs ({_RUN_NAMES}) SELECT {_RUN_NAMES} FROM {{rows}} WHERE true
ON CONFLICT (tenant_id, user_id, job_id) DO UPDATE SET {_LOOKED}
"""
_KEYS = (Column("tenant", "text"), Column("member", "text"), Column("job", "text"))
# A cross join is read from left to right by SQLite: it must not go through all runs.
_FETCH = f"""
SELECT {_RUN_NAMES} FROM {{rows}} CROSS JOIN user_runs
WHERE tenant_id = v.tenant AND user_id = v.member AND job_id = v.job
"""
_OF_USER = f"""
SELECT {_RUN_NAMES} FROM user_runs WHERE tenant_id = ? AND user_id = ? ORDER BY job_id
"""
# In the order of the key: an index on the times would have to be written with every run.
_LOOK_AT = """
SELECT tenant_id, user_id, job_id, look_due_time FROM user_runs
WHERE (tenant_id, user_id, job_id) > (?, ?, ?) ORDER BY tenant_id, user_id, job_id LIMIT ?
"""
_FORGET_COLUMNS = (*_KEYS, Column("moment"))
_FORGET = """
DELETE FROM user_runs WHERE (tenant_id, user_id, job_id) IN
  (SELECT v.tenant, v.member, v.job FROM {rows} WHERE user_runs.look_due_time < v.moment)
"""

_OF_RUNS = """
b.state <> 'DELETED' AND b.source = 'preference' AND b.tenant_id = ? AND {table}.user_id = ?
AND b.job_id = ? AND b.create_time >= ? AND b.create_time < ?
"""


class SqlGroupRuns:
    """Implements ``GroupRunStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(
        self, tx: Transaction, row: GroupSchedule, decided: Sequence[Decided], *, now: datetime
    ) -> int:
        rows = [
            (
                *(*row.key, to_micros(each.run.due_time), each.decision.value),
                *(each.reason or "", each.message, each.batch_id),
                *(schedule_text(row.schedule), to_micros(now)),
            )
            for each in decided
        ]
        return len(await update_rows(tx.connection, _RECORD, _OCCURRENCE_COLUMNS, rows))

    async def runs_of(
        self, user_ids: Sequence[str], *, job_id: str, tenant_id: str
    ) -> dict[str, UserRun]:
        keys = [(tenant_id, user_id, job_id) for user_id in sorted(user_ids)]
        async with self._database.reading() as connection:
            rows = await update_rows(connection, _FETCH, _KEYS, keys)
        return {row[1]: _run_from(row) for row in rows}

    async def of_user(self, user_id: str, *, tenant_id: str) -> dict[str, UserRun]:
        async with self._database.reading() as connection:
            rows = await run(connection, _OF_USER, (tenant_id, user_id))
        return {row[2]: _run_from(row) for row in rows}

    async def claim(
        self, tx: Transaction, runs: Sequence[UserRun], *, job_id: str, tenant_id: str
    ) -> int:
        # Pages of two groups may have the same users, some with work and some without.
        await lock_until_commit(tx.connection, "user_runs", tenant_id, job_id)
        rows = _rows_of(runs, job_id=job_id, tenant_id=tenant_id)
        return len(await update_rows(tx.connection, _CLAIM, _RUN_COLUMNS, rows))

    async def note(
        self, tx: Transaction, runs: Sequence[UserRun], *, job_id: str, tenant_id: str
    ) -> None:
        without = [
            replace(each, due_time=None, period_start=None, due_day=None, period_day=None)
            for each in runs
        ]
        rows = _rows_of(without, job_id=job_id, tenant_id=tenant_id)
        await update_rows(tx.connection, _NOTE, _RUN_COLUMNS, rows)

    async def list(
        self, wanted: OccurrenceFilter, *, page_size: int, before: tuple[datetime, int] | None
    ) -> tuple[list[Occurrence], tuple[datetime, int] | None]:
        c = group_occurrences.c
        query = sa.select(group_occurrences).where(
            c.tenant_id == wanted.tenant_id, c.job_id == wanted.job_id
        )
        if wanted.start is not None:
            query = query.where(c.due_time >= to_micros(wanted.start))
        if wanted.end is not None:
            query = query.where(c.due_time < to_micros(wanted.end))
        if before is not None:
            place = (to_micros(before[0]), before[1])
            query = query.where(sa.tuple_(c.due_time, c.group_key) < sa.tuple_(*place))
        query = query.order_by(c.due_time.desc(), c.group_key.desc()).limit(page_size + 1)
        async with self._database.reading() as connection:
            rows = (await connection.execute(query)).all()
        page, more_follow = first_page(
            rows, page_size=page_size, weight=lambda row: len(row.message) + len(row.schedule_json)
        )
        found = [_occurrence_from(row) for row in page]
        last = found[-1] if more_follow else None
        return found, None if last is None else (last.due_time, last.group_key)

    async def of_group(
        self,
        job_id: str,
        group_key: int,
        *,
        tenant_id: str,
        start: datetime,
        end: datetime,
        limit: int,
    ) -> Sequence[Occurrence]:
        c = group_occurrences.c
        query = (
            sa.select(group_occurrences)
            .where(
                c.tenant_id == tenant_id,
                c.job_id == job_id,
                c.group_key == group_key,
                c.due_time >= to_micros(start),
                c.due_time < to_micros(end),
            )
            .order_by(c.due_time.desc())
            .limit(limit)
        )
        async with self._database.reading() as connection:
            return [_occurrence_from(row) for row in await connection.execute(query)]

    async def items_of(
        self,
        user_id: str,
        *,
        job_id: str,
        tenant_id: str,
        created_from: datetime,
        created_until: datetime,
        before: int | None,
        limit: int,
    ) -> Sequence[tuple[Batch, OwnItem]]:
        since, until = to_micros(created_from), to_micros(created_until)
        found: list[tuple[int, OwnItem]] = []
        async with self._database.reading() as connection:
            for sql, table in ((ALONE, "i"), (TOGETHER, "u")):
                conditions = _OF_RUNS.format(table=table)
                values: list[Any] = [tenant_id, user_id, job_id, since, until]
                if table == "u":
                    conditions += " AND u.tenant_id = ?"
                    values.append(tenant_id)
                if before is not None:
                    conditions += f" AND {table}.batch_key < ?"
                    values.append(before)
                sql = sql.format(conditions=conditions)
                rows = await run(connection, sql, (*values, limit))
                found += [(row[0], own_item_from(row)) for row in rows]
            found = sorted(found, key=lambda each: -each[0])[:limit]
            batches = await batches_of(connection, [key for key, _ in found])
        return [(batches[key], item) for key, item in found]

    async def forget(self, *, before: datetime, limit: int) -> int:
        c = group_occurrences.c
        key = (c.tenant_id, c.job_id, c.group_key, c.due_time)
        oldest = (
            sa.select(*key)
            .where(c.decide_time < to_micros(before))
            .order_by(c.decide_time)
            .limit(limit)
        )
        async with self._database.transaction() as tx:
            result = await tx.connection.execute(
                sa.delete(group_occurrences).where(sa.tuple_(*key).in_(oldest))
            )
            return int(result.rowcount)

    async def forget_runs(
        self, *, before: datetime, limit: int, after: tuple[str, str, str] | None
    ) -> tuple[int, tuple[str, str, str] | None]:
        moment = to_micros(before)
        async with self._database.reading() as connection:
            found = await run(connection, _LOOK_AT, (*(after or ("", "", "")), limit))
        old: dict[tuple[str, str], list[tuple[str, str, str, int]]] = {}
        for tenant_id, user_id, job_id, look_due_time in found:
            if look_due_time < moment:
                row = (tenant_id, user_id, job_id, moment)
                old.setdefault((tenant_id, job_id), []).append(row)
        for (tenant_id, job_id), rows in old.items():
            async with self._database.transaction() as tx:
                await lock_until_commit(tx.connection, "user_runs", tenant_id, job_id)
                await update_rows(tx.connection, _FORGET, _FORGET_COLUMNS, rows)
        following = found[-1][:3] if len(found) == limit else None
        return sum(map(len, old.values())), following


def _rows_of(runs: Sequence[UserRun], *, job_id: str, tenant_id: str) -> list[tuple[Any, ...]]:
    """Returns rows in one order for everybody, so that two writers never wait in a ring."""
    return [
        (
            *(tenant_id, each.user_id, job_id, to_micros(each.due_time)),
            *(to_micros(each.period_start), each.group_key, each.batch_id, each.item_id),
            *(to_micros(each.look_due_time), each.look_group_key, each.look_batch_id),
            *(each.look_reason, _number_of(each.due_day), _number_of(each.period_day)),
        )
        for each in sorted(runs, key=lambda each: each.user_id)
    ]


def _number_of(day: date | None) -> int | None:
    return None if day is None else day.toordinal()


def _day_of(number: int | None) -> date | None:
    return None if number is None else date.fromordinal(number)


def _run_from(row: Sequence[Any]) -> UserRun:
    _, user_id, _, due, period, group, batch_id, item_id, *looked, due_day, period_day = row
    look, look_group, look_batch, why = looked
    return UserRun(
        user_id=user_id,
        due_time=from_micros(due),
        period_start=from_micros(period),
        group_key=group,
        batch_id=batch_id,
        item_id=item_id,
        look_due_time=from_micros(look),
        look_group_key=look_group,
        look_batch_id=look_batch,
        look_reason=why,
        due_day=_day_of(due_day),
        period_day=_day_of(period_day),
    )


def _occurrence_from(row: Any) -> Occurrence:
    return Occurrence(
        tenant_id=row.tenant_id,
        job_id=row.job_id,
        group_key=row.group_key,
        due_time=from_micros(row.due_time),
        decision=Decision(row.decision),
        reason=SkipReason(row.reason) if row.reason else None,
        message=row.message,
        batch_id=row.batch_id,
        decide_time=from_micros(row.decide_time),
        schedule=schedule_of_text(row.schedule_json),
    )
