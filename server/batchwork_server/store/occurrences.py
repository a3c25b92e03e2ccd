"""Jobs that are due, and what was decided about their due times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from batchwork_server.domain.filters import OccurrenceFilter
from batchwork_server.domain.firing import Decided, Decision, NextRun, Occurrence, SkipReason
from batchwork_server.domain.job import StoredJob
from batchwork_server.store.database import Database, Dialect
from batchwork_server.store.jobs import in_parts, job_from, moments_of
from batchwork_server.store.pages import first_page
from batchwork_server.store.statements import Column, run, update_rows
from batchwork_server.store.store import DueJob, QueuedDueTimes, QueuedJob, Transaction
from batchwork_server.store.tables import jobs, occurrences
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
    Column("queued_as", "text"),
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
_SETTLE = """
UPDATE occurrences SET decision = ?, reason = ?, message = ?, batch_id = ?, decide_time = ?,
  queued_as = ''
WHERE tenant_id = ? AND job_id = ? AND due_time = ? AND decision = 'QUEUED'
RETURNING due_time
"""
_QUEUE_COLUMNS = (
    Column("tenant_id", "text"),
    Column("job_id", "text"),
    Column("due_time"),
    Column("backfill_id", "text"),
    Column("is_parallel", "boolean"),
    Column("decide_time"),
)
_QUEUE = """
INSERT INTO occurrences (tenant_id, job_id, due_time, backfill_id, is_parallel, decide_time,
  decision, queued_as, reason, message, batch_id)
SELECT tenant_id, job_id, due_time, backfill_id, is_parallel, decide_time,
  'QUEUED', 'BACKFILLED', '', 'It waits for its turn in a backfill.', '' FROM {rows} WHERE true
ON CONFLICT (tenant_id, job_id, due_time) DO UPDATE SET decision = excluded.decision,
  queued_as = excluded.queued_as, reason = excluded.reason, message = excluded.message,
  backfill_id = excluded.backfill_id, is_parallel = excluded.is_parallel,
  decide_time = excluded.decide_time
WHERE occurrences.decision = 'SKIPPED' RETURNING due_time
"""
_CANCEL_BACKFILL = """
UPDATE occurrences SET decision = 'SKIPPED', reason = 'CANCELLED', queued_as = '',
  message = 'Its backfill was cancelled while it waited.', decide_time = ?
WHERE tenant_id = ? AND backfill_id = ? AND backfill_id <> '' AND decision = 'QUEUED'
RETURNING due_time
"""
_IS_BACKFILL = """
SELECT 1 FROM occurrences WHERE tenant_id = ? AND backfill_id = ? AND backfill_id <> '' LIMIT 1
"""
# A batch that was deleted has no end any more.
_GOES_ON = """
EXISTS (SELECT 1 FROM batches b WHERE b.tenant_id = jobs.tenant_id AND b.job_id = jobs.job_id
  AND b.end_time IS NULL AND b.job_id <> '' AND b.state <> 'DELETED')
"""
# SQLite keeps no statistics here, and would rather read all that was ever decided of a job.
_HINTS = {"sqlite": " INDEXED BY ix_occurrences_queued", "postgresql": ""}
_IS_WAITING = """
EXISTS (SELECT 1 FROM occurrences o{hint} WHERE o.decision = 'QUEUED'
  AND o.tenant_id = jobs.tenant_id AND o.job_id = jobs.job_id AND o.is_parallel = false
  AND o.backfill_id = '')
"""
_FIRST_IN_QUEUE = """
(SELECT o.due_time FROM occurrences o{hint} WHERE o.decision = 'QUEUED'
  AND o.tenant_id = jobs.tenant_id AND o.job_id = jobs.job_id AND o.is_parallel = {parallel}
  AND (jobs.pause_time IS NULL OR o.backfill_id <> '') ORDER BY o.backfill_id, o.due_time LIMIT 1)
"""
# From tenant to tenant and from job to job along the index, however many due times of each wait.
# Two steps: SQLite would search with the first column of a pair alone.
_QUEUED = f"""
WITH RECURSIVE tenants(tenant_id) AS (
  SELECT CAST('' AS text) UNION ALL
  SELECT (SELECT MIN(o.tenant_id) FROM occurrences o{{hint}}
    WHERE o.decision = 'QUEUED' AND o.tenant_id > tenants.tenant_id)
  FROM tenants WHERE tenants.tenant_id IS NOT NULL),
queues(tenant_id, job_id) AS (
  SELECT tenants.tenant_id, CAST('' AS text) FROM tenants WHERE tenants.tenant_id IS NOT NULL
  UNION ALL
  SELECT queues.tenant_id, (SELECT MIN(o.job_id) FROM occurrences o{{hint}}
    WHERE o.decision = 'QUEUED' AND o.tenant_id = queues.tenant_id AND o.job_id > queues.job_id)
  FROM queues WHERE queues.job_id IS NOT NULL),
firsts AS MATERIALIZED (
  SELECT jobs.tenant_id, jobs.job_id,
    CASE WHEN NOT {_GOES_ON} THEN {_FIRST_IN_QUEUE.replace("{parallel}", "false")} END AS due_time
  FROM queues JOIN jobs ON jobs.tenant_id = queues.tenant_id AND jobs.job_id = queues.job_id
  UNION ALL
  SELECT jobs.tenant_id, jobs.job_id, {_FIRST_IN_QUEUE.replace("{parallel}", "true")}
  FROM queues JOIN jobs ON jobs.tenant_id = queues.tenant_id AND jobs.job_id = queues.job_id)
SELECT jobs.*, w.due_time, w.decision, w.reason, w.message, w.batch_id, w.decide_time,
  w.queued_as, w.backfill_id, w.is_parallel
FROM firsts JOIN jobs ON jobs.tenant_id = firsts.tenant_id AND jobs.job_id = firsts.job_id
JOIN occurrences w ON w.tenant_id = firsts.tenant_id AND w.job_id = firsts.job_id
  AND w.due_time = firsts.due_time
ORDER BY w.due_time, w.tenant_id, w.job_id LIMIT :limit
"""


def queued_query(dialect: Dialect) -> str:
    """Returns what finds the first that can begin of each job."""
    return _QUEUED.replace("{hint}", _HINTS[dialect])


class SqlOccurrences:
    """Implements ``OccurrenceStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def due(self, *, now: datetime, limit: int) -> list[DueJob]:
        query = (
            sa.select(
                jobs,
                sa.literal_column(_GOES_ON).label("is_running"),
                sa.literal_column(
                    _IS_WAITING.replace("{hint}", _HINTS[self._database.dialect])
                ).label("is_waiting"),
            )
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
                *(each.message, each.batch_id, to_micros(now), each.queued_as or ""),
            )
            for each in decided
        ]
        return len(await update_rows(tx.connection, _RECORD, _COLUMNS, rows))

    async def queued(self, *, limit: int) -> list[QueuedJob]:
        query = sa.text(queued_query(self._database.dialect)).bindparams(limit=limit)
        async with self._database.reading() as connection:
            rows = (await connection.execute(query)).all()
        return [
            QueuedJob(
                job=job_from(row),
                occurrence=_occurrence_from(row),
                is_parallel=bool(row.is_parallel),
            )
            for row in rows
        ]

    async def hold(self, tx: Transaction, job_id: str, *, tenant_id: str) -> StoredJob | None:
        query = sa.select(jobs).where(jobs.c.tenant_id == tenant_id, jobs.c.job_id == job_id)
        row = (await tx.connection.execute(query.with_for_update())).first()
        return None if row is None else job_from(row)

    async def settle(
        self, tx: Transaction, waiting: Occurrence, decided: Decided, *, now: datetime
    ) -> bool:
        parameters = (
            *(decided.decision.value, decided.reason or "", decided.message, decided.batch_id),
            *(to_micros(now), waiting.tenant_id, waiting.job_id, to_micros(waiting.due_time)),
        )
        return bool(await run(tx.connection, _SETTLE, parameters))

    async def queue(
        self, tx: Transaction, job: StoredJob, wanted: QueuedDueTimes, *, now: datetime
    ) -> frozenset[datetime]:
        key = (job.tenant_id, job.definition.job_id)
        rows = [
            (*key, to_micros(due), wanted.backfill_id, wanted.is_parallel, to_micros(now))
            for due in wanted.due_times
        ]
        queued = await update_rows(tx.connection, _QUEUE, _QUEUE_COLUMNS, rows)
        return frozenset(from_micros(due) for (due,) in queued)

    async def of_due_times(
        self, job: StoredJob, due_times: Sequence[datetime], *, tx: Transaction | None = None
    ) -> Mapping[datetime, Occurrence]:
        query = sa.select(occurrences).where(
            occurrences.c.tenant_id == job.tenant_id,
            occurrences.c.job_id == job.definition.job_id,
            occurrences.c.due_time.in_([to_micros(due) for due in due_times]),
        )
        if tx is not None:
            rows = (await tx.connection.execute(query)).all()
        else:
            async with self._database.reading() as connection:
                rows = (await connection.execute(query)).all()
        found = [_occurrence_from(row) for row in rows]
        return {each.due_time: each for each in found}

    async def cancel_backfill(
        self, tx: Transaction, backfill_id: str, *, tenant_id: str, now: datetime
    ) -> int | None:
        parameters = (to_micros(now), tenant_id, backfill_id)
        cancelled = await run(tx.connection, _CANCEL_BACKFILL, parameters)
        if cancelled or await run(tx.connection, _IS_BACKFILL, (tenant_id, backfill_id)):
            return len(cancelled)
        return None

    async def drop_queued(
        self, tx: Transaction, job_ids: Sequence[str], *, tenant_id: str, now: datetime
    ) -> None:
        for some in in_parts(job_ids):
            await tx.connection.execute(
                sa.update(occurrences)
                .where(
                    sa.text("decision = 'QUEUED'"),
                    occurrences.c.tenant_id == tenant_id,
                    occurrences.c.job_id.in_(some),
                )
                .values(
                    decision=Decision.SKIPPED.value,
                    reason=SkipReason.JOB_DELETED.value,
                    message="The job was deleted while it waited.",
                    queued_as="",
                    decide_time=to_micros(now),
                )
            )

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
            .where(
                occurrences.c.decide_time < to_micros(before),
                occurrences.c.decision != Decision.QUEUED.value,
            )
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
    if wanted.backfill_id:
        yield sa.literal_column("backfill_id <> ''", sa.Boolean)  # in the words of the index
        yield occurrences.c.backfill_id == wanted.backfill_id


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
        is_waiting=bool(row.is_waiting),
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
        queued_as=Decision(row.queued_as) if row.queued_as else None,
        backfill_id=row.backfill_id,
    )
