"""Jobs of tenants; a definition is kept as the job file spells it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from batchwork_server.domain.filters import JobFilter
from batchwork_server.domain.firing import NextRun
from batchwork_server.domain.job import PreferenceSource, StoredJob, parse_job, render_job
from batchwork_server.store.database import Database
from batchwork_server.store.locks import lock_until_commit
from batchwork_server.store.pages import first_page
from batchwork_server.store.statements import Column, insert_rows, update_rows
from batchwork_server.store.store import Transaction
from batchwork_server.store.tables import jobs
from batchwork_server.store.times import from_micros, to_micros

_IDS_PER_STATEMENT = 1000
_AT_ONCE = 50

_From = TypeVar("_From")
_To = TypeVar("_To")

_COLUMNS = (
    Column("tenant_id", "text"),
    Column("job_id", "text"),
    Column("revision", "integer"),
    Column("shape", "text"),
    Column("feature_type", "text"),
    Column("purpose_id", "text"),
    Column("source", "text"),
    Column("definition_json", "text"),
    Column("create_time"),
    Column("update_time"),
    Column("preference_based", "boolean"),
)
_REPLACE = """
ON CONFLICT (tenant_id, job_id) DO UPDATE SET
  revision = excluded.revision, shape = excluded.shape, feature_type = excluded.feature_type,
  purpose_id = excluded.purpose_id, source = excluded.source,
  definition_json = excluded.definition_json, update_time = excluded.update_time,
  preference_based = excluded.preference_based
"""
_NEXT_COLUMNS = (
    Column("tenant_id", "text"),
    Column("job_id", "text"),
    Column("next_due_time"),
    Column("next_start_time"),
)
_SCHEDULE = """
UPDATE jobs SET next_due_time = v.next_due_time, next_start_time = v.next_start_time
FROM {rows} WHERE jobs.tenant_id = v.tenant_id AND jobs.job_id = v.job_id
RETURNING jobs.job_id
"""


class SqlJobs:
    """Implements ``JobStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def lock(
        self, tx: Transaction, job_ids: Sequence[str], *, tenant_id: str
    ) -> dict[str, StoredJob]:
        await lock_until_commit(tx.connection, "jobs", tenant_id)
        return await _fetch(tx.connection, job_ids, tenant_id=tenant_id)

    async def put(self, tx: Transaction, stored_jobs: Sequence[StoredJob]) -> None:
        rows = await _many(_row_of, stored_jobs)
        await insert_rows(tx.connection, "jobs", _COLUMNS, rows, on_conflict=_REPLACE)

    async def schedule(
        self, tx: Transaction, next_runs: Mapping[str, NextRun | None], *, tenant_id: str
    ) -> None:
        rows = [(tenant_id, job_id, *moments_of(run)) for job_id, run in next_runs.items()]
        await update_rows(tx.connection, _SCHEDULE, _NEXT_COLUMNS, rows)

    async def set_pause(self, tx: Transaction, job: StoredJob) -> None:
        named = sa.and_(jobs.c.tenant_id == job.tenant_id, jobs.c.job_id == job.definition.job_id)
        await tx.connection.execute(
            sa.update(jobs)
            .where(named)
            .values(pause_time=to_micros(job.pause_time), pause_note=job.pause_note)
        )

    async def delete(self, tx: Transaction, job_ids: Sequence[str], *, tenant_id: str) -> None:
        for some in in_parts(job_ids):
            named = sa.and_(jobs.c.tenant_id == tenant_id, jobs.c.job_id.in_(some))
            await tx.connection.execute(sa.delete(jobs).where(named))

    async def owned_by(
        self, source: str, *, tenant_id: str, tx: Transaction | None = None
    ) -> dict[str, int]:
        if tx is not None:
            return await _owned(tx.connection, source, tenant_id=tenant_id)
        async with self._database.reading() as connection:
            return await _owned(connection, source, tenant_id=tenant_id)

    async def driven_features(self, *, tenant_id: str, limit: int) -> Sequence[str]:
        query = (
            sa.select(jobs.c.feature_type)
            .where(jobs.c.tenant_id == tenant_id, jobs.c.preference_based)
            .distinct()
            .order_by(jobs.c.feature_type)
            .limit(limit)
        )
        async with self._database.reading() as connection:
            return [row.feature_type for row in await connection.execute(query)]

    async def get(self, job_id: str, *, tenant_id: str | None) -> StoredJob | None:
        query = sa.select(jobs).where(jobs.c.job_id == job_id)
        if tenant_id is not None:
            query = query.where(jobs.c.tenant_id == tenant_id)
        async with self._database.reading() as connection:
            row = (await connection.execute(query.order_by(jobs.c.tenant_id).limit(1))).first()
        return None if row is None else job_from(row)

    async def get_many(self, job_ids: Sequence[str], *, tenant_id: str) -> dict[str, StoredJob]:
        async with self._database.reading() as connection:
            return await _fetch(connection, job_ids, tenant_id=tenant_id)

    async def next_to_run(
        self, *, tenant_id: str, limit: int, after: tuple[datetime, str] | None
    ) -> tuple[list[StoredJob], tuple[datetime, str] | None]:
        query = sa.select(jobs).where(
            jobs.c.tenant_id == tenant_id, jobs.c.next_due_time.is_not(None)
        )
        if after is not None:
            due_time, job_id = after
            place = sa.tuple_(jobs.c.next_due_time, jobs.c.job_id)
            query = query.where(place > sa.tuple_(to_micros(due_time), job_id))
        query = query.order_by(jobs.c.next_due_time, jobs.c.job_id).limit(limit + 1)
        async with self._database.reading() as connection:
            rows = (await connection.execute(query)).all()
        page, more_follow = first_page(
            rows, page_size=limit, weight=lambda row: len(row.definition_json)
        )
        found = await _many(job_from, page)
        if not more_follow:
            return found, None
        return found, (from_micros(page[-1].next_due_time), page[-1].job_id)

    async def list(
        self, wanted: JobFilter, *, page_size: int, after: tuple[str, str] | None
    ) -> tuple[list[StoredJob], tuple[str, str] | None]:
        key = sa.tuple_(jobs.c.tenant_id, jobs.c.job_id)
        query = sa.select(jobs).where(*_conditions(wanted))
        if after is not None:
            query = query.where(key > sa.tuple_(*after))
        query = query.order_by(jobs.c.tenant_id, jobs.c.job_id).limit(page_size + 1)
        async with self._database.reading() as connection:
            rows = (await connection.execute(query)).all()
        page, more_follow = first_page(
            rows, page_size=page_size, weight=lambda row: len(row.definition_json)
        )
        found = await _many(job_from, page)
        return found, (page[-1].tenant_id, page[-1].job_id) if more_follow else None


def _conditions(wanted: JobFilter) -> Iterator[sa.ColumnElement[bool]]:
    if wanted.tenant_id is not None:
        yield jobs.c.tenant_id == wanted.tenant_id
    if wanted.shape is not None:
        yield jobs.c.shape == wanted.shape
    if wanted.feature_type:
        yield jobs.c.feature_type == wanted.feature_type
    if wanted.purpose_id:
        yield jobs.c.purpose_id == wanted.purpose_id


async def _fetch(
    connection: AsyncConnection, job_ids: Sequence[str], *, tenant_id: str
) -> dict[str, StoredJob]:
    found: dict[str, StoredJob] = {}
    for some in in_parts(job_ids):
        query = sa.select(jobs).where(jobs.c.tenant_id == tenant_id, jobs.c.job_id.in_(some))
        rows = (await connection.execute(query)).all()
        found.update((job.definition.job_id, job) for job in await _many(job_from, rows))
    return found


async def _owned(connection: AsyncConnection, source: str, *, tenant_id: str) -> dict[str, int]:
    query = (
        sa.select(jobs.c.job_id, jobs.c.revision)
        .where(jobs.c.tenant_id == tenant_id, jobs.c.source == source)
        .order_by(jobs.c.job_id)
    )
    return {row.job_id: row.revision for row in await connection.execute(query)}


def in_parts(job_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cuts ids into parts that one statement can name."""
    for start in range(0, len(job_ids), _IDS_PER_STATEMENT):
        yield job_ids[start : start + _IDS_PER_STATEMENT]


async def _many(convert: Callable[[_From], _To], values: Sequence[_From]) -> list[_To]:
    """Converts jobs from or to rows, many of them beside the loop.

    A thousand definitions take a tenth of a second; calls that wait for the loop must not.
    """
    if len(values) <= _AT_ONCE:
        return [convert(value) for value in values]
    return await asyncio.to_thread(lambda: [convert(value) for value in values])


def _row_of(job: StoredJob) -> tuple[Any, ...]:
    definition = job.definition
    return (
        *(job.tenant_id, definition.job_id, job.revision, definition.shape.value),
        *(definition.feature_type, definition.purpose_id, job.source),
        json.dumps(render_job(definition)),
        *(to_micros(job.create_time), to_micros(job.update_time)),
        definition.preference_source is PreferenceSource.DYNAMIC,
    )


def moments_of(run: NextRun | None) -> tuple[int | None, int | None]:
    return (None, None) if run is None else (to_micros(run.due_time), to_micros(run.start_time))


def job_from(row: Any) -> StoredJob:
    definition, violations = parse_job(json.loads(row.definition_json))
    if definition is None:
        raise ValueError(f"The stored job {row.job_id!r} cannot be read: {violations}")
    return StoredJob(
        definition=definition,
        tenant_id=row.tenant_id,
        revision=row.revision,
        source=row.source,
        create_time=from_micros(row.create_time),
        update_time=from_micros(row.update_time),
        pause_time=from_micros(row.pause_time),
        pause_note=row.pause_note,
    )
