"""How jobs are stored and removed, whoever asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from batchwork_server.domain.firing import NextRun, next_run_after
from batchwork_server.domain.job import JobDefinition, StoredJob, changed_fields
from batchwork_server.store.store import Store, Transaction


class JobWriting:
    """Stores and removes jobs together with what hangs on them.

    Args:
        zone: Of jobs whose schedule names none.
    """

    def __init__(self, store: Store, *, zone: str) -> None:
        self._store = store
        self._zone = zone

    async def put(
        self,
        tx: Transaction,
        jobs: Sequence[StoredJob],
        before: Mapping[str, StoredJob],
        *,
        tenant_id: str,
        now: datetime,
    ) -> None:
        """Stores jobs; a schedule that is new or another one counts from now on."""
        await self._store.jobs.put(tx, jobs)
        # For thousands of jobs that takes a while; calls that wait for the loop must not.
        next_runs = await asyncio.to_thread(self._next_runs, jobs, before, now=now)
        await self._store.jobs.schedule(tx, next_runs, tenant_id=tenant_id)

    async def delete(
        self, tx: Transaction, job_ids: Sequence[str], *, tenant_id: str, now: datetime
    ) -> None:
        """Removes jobs; what of them waits never runs."""
        await self._store.jobs.delete(tx, job_ids, tenant_id=tenant_id)
        await self._store.occurrences.drop_queued(tx, job_ids, tenant_id=tenant_id, now=now)

    def _next_runs(
        self, jobs: Sequence[StoredJob], before: Mapping[str, StoredJob], *, now: datetime
    ) -> dict[str, NextRun | None]:
        return {
            job.definition.job_id: next_run_after(job, now, zone=self._zone)
            for job in jobs
            if not _has_schedule_of(job, before.get(job.definition.job_id))
        }


def revised(stored: StoredJob, definition: JobDefinition, *, now: datetime) -> StoredJob:
    """Returns the job with a new revision; itself when it is so already."""
    if not changed_fields(stored.definition, definition):
        return stored
    revision = stored.revision + 1
    return replace(stored, definition=definition, revision=revision, update_time=now)


def _has_schedule_of(job: StoredJob, before: StoredJob | None) -> bool:
    if before is None:
        return False
    driven_by = ("schedule", "preference_source")
    return all(getattr(job.definition, n) == getattr(before.definition, n) for n in driven_by)
