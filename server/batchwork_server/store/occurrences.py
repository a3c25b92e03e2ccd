"""Jobs that are due, and what was decided about their due times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from batchwork_server.domain.filters import OccurrenceFilter
from batchwork_server.domain.firing import Decided, Decision, NextRun, Occurrence, SkipReason
from batchwork_server.domain.job import StoredJob
from batchwork_server.store.database import Database
from batchwork_server.store.jobs import job_from, moments_of
from batchwork_server.store.pages import first_page
from batchwork_server.store.statements import Column, run, update_rows
from batchwork_server.store.store import DueJob, Transaction
from batchwork_server.store.tables import batches, jobs, occurrences
from batchwork_server.store.times import from_micros, to_micros

_COLUMNS = (
    Column("tenant_id", "text"),
    Column("job_id", "text"),
    Column("due_time"),
    Column("decision", "text"),
    Column("reason", "text"),
    Column("message", "text"),
    Column("batch_id", "text"),
    Column("decide_time"),
)
_NAMES = ", ".join(column.name for column in _COLUMNS)
# The condition keeps SQLite from taking the conflict for a join.
_RECORD = f"""
INSERT INTO occurrences ({_NAMES}) SELECT {_NAMES} FROM {{rows}} WHERE true
ON CONFLICT (tenant_id, job_id, due_time) DO NOTHING RETURNING due_time
"""
NEXT_START = "SELECT MIN(next_start_time) FROM jobs WHERE next_start_time > ?"
_MOVE = """
UPDATE jobs SET next_due_time = ?, next_start_time = ?
WHERE tenant_id = ? AND job_id = ? AND revision = ? AND create_time = ? AND next_due_time = ?
RETURNING job_id
"""
_SCHEDULE_FIRST = """
UPDATE jobs SET next_due_time = ?, next_start_time = ?
WHERE tenant_id = ? AND job_id = ? AND revision = ? AND create_time = ? AND next_due_time IS NULL
"""


class SqlOccurrences:
    """Implements ``OccurrenceStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def due(self, *, now: datetime, limit: int) -> list[DueJob]:
        goes_on = (
            sa.exists()
            .where(
                batches.c.tenant_id == jobs.c.tenant_id,
                batches.c.job_id == jobs.c.job_id,
                batches.c.end_time.is_(None),
                sa.text("batches.job_id <> ''"),
            )
            .label("is_running")
        )
        query = (
            sa.select(jobs, goes_on)
            .where(jobs.c.next_start_time <= to_micros(now))
            .order_by(jobs.c.next_start_time, jobs.c.tenant_id, jobs.c.job_id)
            .limit(limit)
        )
        async with self._database.reading() as connection:
            rows = (await connection.execute(query)).all()
        return [_due_from(row) for row in rows]

    async def next_start_time(self, *, after: datetime) -> datetime | None:
        async with self._database.reading() as connection:
            [(start,)] = await run(connection, NEXT_START, (to_micros(after),))
        return from_micros(start)

    async def unscheduled(
        self, *, limit: int, after: tuple[str, str] | None
    ) -> tuple[list[StoredJob], tuple[str, str] | None]:
        query = sa.select(jobs).where(jobs.c.next_due_time.is_(None), jobs.c.pause_time.is_(None))
        if after is not None:
            query = query.where(sa.tuple_(jobs.c.tenant_id, jobs.c.job_id) > sa.tuple_(*after))
        query = query.order_by(jobs.c.tenant_id, jobs.c.job_id).limit(limit)
        async with self._database.reading() as connection:
            rows = (await connection.execute(query)).all()
        last = (rows[-1].tenant_id, rows[-1].job_id) if len(rows) == limit else None
        return [job_from(row) for row in rows], last

    async def schedule_first(self, tx: Transaction, job: StoredJob, next_run: NextRun) -> None:
        await run(tx.connection, _SCHEDULE_FIRST, (*moments_of(next_run), *_version(job)))

    async def move(self, tx: Transaction, due: DueJob, next_run: NextRun | None) -> bool:
        parameters = (
            *moments_of(next_run),
            *_version(due.job),
            to_micros(due.next_run.due_time),
        )
        return bool(await run(tx.connection, _MOVE, parameters))

    async def record(
        self, tx: Transaction, due: DueJob, decided: Sequence[Decided], *, now: datetime
    ) -> int:
        key = (due.job.tenant_id, due.job.definition.job_id)
        rows = [
            (
                *(*key, to_micros(each.run.due_time), each.decision.value, each.reason or ""),
                *(each.message, each.batch_id, to_micros(now)),
            )
            for each in decided
        ]
        return len(await update_rows(tx.connection, _RECORD, _COLUMNS, rows))

    async def list(
        self, wanted: OccurrenceFilter, *, page_size: int, before: datetime | None
    ) -> tuple[list[Occurrence], datetime | None]:
        query = sa.select(occurrences).where(*_conditions(wanted))
        if before is not None:
            query = query.where(occurrences.c.due_time < to_micros(before))
        query = query.order_by(occurrences.c.due_time.desc()).limit(page_size + 1)
        async with self._database.reading() as connection:
            rows = (await connection.execute(query)).all()
        page, more_follow = first_page(
            rows, page_size=page_size, weight=lambda row: len(row.message)
        )
        found = [_occurrence_from(row) for row in page]
        return found, found[-1].due_time if more_follow else None

    async def forget(self, *, before: datetime, limit: int) -> int:
        key = (occurrences.c.tenant_id, occurrences.c.job_id, occurrences.c.due_time)
        oldest = (
            sa.select(*key)
            .where(occurrences.c.decide_time < to_micros(before))
            .order_by(occurrences.c.decide_time)
            .limit(limit)
        )
        async with self._database.transaction() as tx:
            result = await tx.connection.execute(
                sa.delete(occurrences).where(sa.tuple_(*key).in_(oldest))
            )
            return int(result.rowcount)


def _conditions(wanted: OccurrenceFilter) -> Iterator[sa.ColumnElement[bool]]:
    yield occurrences.c.tenant_id == wanted.tenant_id
    yield occurrences.c.job_id == wanted.job_id
    if wanted.start is not None:
        yield occurrences.c.due_time >= to_micros(wanted.start)
    if wanted.end is not None:
        yield occurrences.c.due_time < to_micros(wanted.end)


def _version(job: StoredJob) -> tuple[str, str, int, int]:
    """Returns what names a job as it was read; another of the same id began at another time."""
    return (job.tenant_id, job.definition.job_id, job.revision, to_micros(job.create_time))


def _due_from(row: Any) -> DueJob:
    return DueJob(
        job=job_from(row),
        next_run=NextRun(
            due_time=from_micros(row.next_due_time), start_time=from_micros(row.next_start_time)
        ),
        is_running=bool(row.is_running),
    )


def _occurrence_from(row: Any) -> Occurrence:
    return Occurrence(
        tenant_id=row.tenant_id,
        job_id=row.job_id,
        due_time=from_micros(row.due_time),
        decision=Decision(row.decision),
        reason=SkipReason(row.reason) if row.reason else None,
        message=row.message,
        batch_id=row.batch_id,
        decide_time=from_micros(row.decide_time),
    )
