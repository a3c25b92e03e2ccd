"""The use cases of job files: importing them, and exporting jobs as one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from batchwork_server.application.first_answers import FirstAnswers, Request
from batchwork_server.application.job_checks import definitions_by_path, template_violations
from batchwork_server.application.job_writing import JobWriting, revised
from batchwork_server.application.jobs import NO_SOURCE, select_jobs
from batchwork_server.application.notices import (
    MAX_NOTICES,
    MORE_NOTICES,
    JobNotices,
    notices_from,
    notices_to,
)
from batchwork_server.application.notifying import target_violations
from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Notice
from batchwork_server.domain.job import JobDefinition, StoredJob, changed_fields
from batchwork_server.domain.job_file import read_job_file, render_job_file
from batchwork_server.domain.json_object import quoted
from batchwork_server.domain.notification import NO_TARGETS, NotificationTargets
from batchwork_server.domain.submission import Idempotency
from batchwork_server.errors import InvalidArgument, Violation
from batchwork_server.logs import get_logger
from batchwork_server.ports import TemplateService
from batchwork_server.store.store import Store
from batchwork_server.wakeups import Wakeups

OWNER_CHANGED = "OWNER_CHANGED"

DEFAULT_SOURCE = "import"

_SOURCE = re.compile(r"[A-Za-z0-9_-]{1,63}")
_ANEW = Idempotency()

log = get_logger(__name__)


class JobChangeKind(StrEnum):
    """What an import does to a job."""

    CREATED = "CREATED"
    UPDATED = "UPDATED"  # it differs and gets a new revision
    UNCHANGED = "UNCHANGED"  # only its source may be another one
    DELETED = "DELETED"  # the file does not name it


@dataclass(frozen=True, slots=True, kw_only=True)
class JobChange:
    """What an import does to one job.

    Attributes:
        revision: After the import; with DELETED the last one.
        changed_fields: Names of ``JobDefinition``, sorted; only with UPDATED.
    """

    job_id: str
    kind: JobChangeKind
    revision: int
    changed_fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedJobs:
    """What became of a job file.

    Attributes:
        changes: One for each job, in the order of the file; then what was deleted, by id.
    """

    changes: tuple[JobChange, ...]
    notices: tuple[Notice, ...]

    @property
    def counts(self) -> Mapping[str, int]:
        """How many jobs were changed in which way, such as ``created``; each way is there."""
        return {
            kind.lower(): sum(change.kind is kind for change in self.changes)
            for kind in JobChangeKind
        }


class JobImports:
    """Takes the jobs of tenants over from job files, and gives them out as such.

    Args:
        zone: Of jobs whose schedule names none.
        notices: Tells what of a job is accepted although it may not be meant.
        targets: Who can be told of the ends of runs.
    """

    def __init__(
        self,
        *,
        store: Store,
        notices: JobNotices,
        templates: TemplateService,
        clock: Clock,
        wakeups: Wakeups,
        zone: str,
        targets: NotificationTargets = NO_TARGETS,
    ) -> None:
        self._store = store
        self._targets = targets
        self._answers = FirstAnswers(store.requests)
        self._writing = JobWriting(store, zone=zone)
        self._notices = notices
        self._templates = templates
        self._clock = clock
        self._wakeups = wakeups

    async def import_jobs(
        self,
        text: str,
        *,
        tenant_id: str,
        idempotency: Idempotency = _ANEW,
        source: str = "",
        validate_only: bool = False,
        prune: bool = False,
    ) -> ImportedJobs:
        """Imports a job file, all of it or nothing.

        The same request again gets the first answer, whatever has changed since.

        Args:
            text: The job file.
            tenant_id: Who owns the jobs.
            idempotency: Names the request; by default each call stands for itself.
            source: To whom the jobs belong from then on; empty means ``import``.
            validate_only: Answers what would change and stores nothing.
            prune: Deletes the jobs that belong to the source and are not in the file.

        Raises:
            InvalidArgument: with everything that is wrong with the file; nothing was stored.
            RequestIdReused: nothing was stored.
            Unavailable: nothing was stored; safe to call again.
        """
        request = Request(method="ImportJobs", tenant_id=tenant_id, idempotency=idempotency)
        first = None if validate_only else await self._answers.find(request)
        if first is not None:
            return _imported_from(first)
        jobs, notices = await self._inspect(text, source=source, tenant_id=tenant_id)
        owner = source or DEFAULT_SOURCE
        if validate_only:
            stored = await self._store.jobs.get_many(_ids_of(jobs), tenant_id=tenant_id)
            owned = await self._store.jobs.owned_by(owner, tenant_id=tenant_id) if prune else {}
            return _difference(jobs, stored, owned, source=owner, notices=notices)
        now = self._clock.now()
        async with self._store.transaction() as tx:
            replayed = await self._answers.replay(tx, request, now=now)
            if replayed is not None:
                return _imported_from(replayed)
            stored = await self._store.jobs.lock(tx, _ids_of(jobs), tenant_id=tenant_id)
            owned = (
                await self._store.jobs.owned_by(owner, tenant_id=tenant_id, tx=tx) if prune else {}
            )
            answer = _difference(jobs, stored, owned, source=owner, notices=notices)
            changed = list(_to_store(jobs, stored, tenant_id=tenant_id, source=owner, now=now))
            await self._writing.put(tx, changed, stored, tenant_id=tenant_id, now=now)
            await self._writing.delete(tx, _deleted(answer.changes), tenant_id=tenant_id, now=now)
            await self._answers.remember(tx, request, _imported_to(answer))
        self._wakeups.schedules_changed()
        log.info("jobs.imported", tenant_id=tenant_id, source=owner, **answer.counts)
        return answer

    async def export_jobs(self, job_ids: Sequence[str] = (), *, tenant_id: str) -> str:
        """Returns jobs as a job file: those that are named, in that order, or all by id.

        Raises:
            NotFound: a named job does not exist.
        """
        jobs = await select_jobs(self._store.jobs, job_ids, tenant_id=tenant_id)
        # Writing thousands of jobs takes a while; calls that wait for the loop must not.
        return await asyncio.to_thread(render_job_file, [job.definition for job in jobs])

    async def _inspect(
        self, text: str, *, source: str, tenant_id: str
    ) -> tuple[Mapping[str, JobDefinition], tuple[Notice, ...]]:
        """Reads a file and compares it with the world; raises when anything is wrong with it."""
        # A file of 4 MiB takes a while to read; calls that wait for the loop must not.
        file = await asyncio.to_thread(read_job_file, text)
        violations = file.all_violations
        violations += template_violations(file.jobs, await self._templates.all())
        violations += target_violations(file.jobs, self._targets, tenant_id=tenant_id)
        if source and not _SOURCE.fullmatch(source):
            message = f"{quoted(source)} is no source; write 1 to 63 letters, digits, '_' or '-'."
            violations.append(Violation("source", message))
        if violations:
            raise InvalidArgument(violations)
        jobs = definitions_by_path(file.jobs)
        return jobs, await self._notices.of(jobs, tenant_id=tenant_id)


def _ids_of(jobs: Mapping[str, JobDefinition]) -> tuple[str, ...]:
    return tuple(job.job_id for job in jobs.values())


def _difference(
    jobs: Mapping[str, JobDefinition],
    stored: Mapping[str, StoredJob],
    owned: Mapping[str, int],
    *,
    source: str,
    notices: tuple[Notice, ...],
) -> ImportedJobs:
    """Returns what an import of the jobs changes.

    Args:
        jobs: Those of the file, by their paths.
        stored: Those of them that exist.
        owned: The revisions of the jobs that go when the file does not name them.
        source: Where the file comes from.
        notices: What is noticed besides.
    """
    named = set(_ids_of(jobs))
    deleted = (
        JobChange(job_id=job_id, kind=JobChangeKind.DELETED, revision=revision)
        for job_id, revision in owned.items()
        if job_id not in named
    )
    changes = (_change(job, stored.get(job.job_id)) for job in jobs.values())
    return ImportedJobs(
        changes=(*changes, *deleted),
        notices=(*notices, *_about_owners(jobs, stored, source=source)),
    )


def _about_owners(
    jobs: Mapping[str, JobDefinition], stored: Mapping[str, StoredJob], *, source: str
) -> tuple[Notice, ...]:
    """Returns a notice for each job that is taken over; after a thousand, their number."""
    taken = [
        Notice(
            reason=OWNER_CHANGED,
            path=path,
            message=f"The job {quoted(job.job_id)} belonged to {_named_source(before.source)}; "
            f"from this import on it belongs to {_named_source(source)}.",
        )
        for path, job in jobs.items()
        if (before := stored.get(job.job_id)) is not None and before.source != source
    ]
    if len(taken) <= MAX_NOTICES:
        return tuple(taken)
    message = f"There are {len(taken) - MAX_NOTICES} more jobs that belonged to another source."
    return (*taken[:MAX_NOTICES], Notice(reason=MORE_NOTICES, path="$", message=message))


def _named_source(source: str) -> str:
    return "no source" if source == NO_SOURCE else f"the source {quoted(source)}"


def _to_store(
    jobs: Mapping[str, JobDefinition],
    stored: Mapping[str, StoredJob],
    *,
    tenant_id: str,
    source: str,
    now: datetime,
) -> Iterator[StoredJob]:
    """Yields the jobs of a file that are new, differ, or belonged to another source."""
    for definition in jobs.values():
        before = stored.get(definition.job_id)
        if before is None:
            yield StoredJob(
                definition=definition,
                tenant_id=tenant_id,
                revision=1,
                source=source,
                create_time=now,
                update_time=now,
            )
        else:
            job = replace(revised(before, definition, now=now), source=source)
            if job != before:
                yield job


def _deleted(changes: Sequence[JobChange]) -> tuple[str, ...]:
    return tuple(change.job_id for change in changes if change.kind is JobChangeKind.DELETED)


def _change(job: JobDefinition, stored: StoredJob | None) -> JobChange:
    if stored is None:
        return JobChange(job_id=job.job_id, kind=JobChangeKind.CREATED, revision=1)
    changed = changed_fields(stored.definition, job)
    return JobChange(
        job_id=job.job_id,
        kind=JobChangeKind.UPDATED if changed else JobChangeKind.UNCHANGED,
        revision=stored.revision + (1 if changed else 0),
        changed_fields=changed,
    )


def _imported_to(answer: ImportedJobs) -> dict[str, Any]:
    return {
        "changes": [[c.job_id, c.kind, c.revision, c.changed_fields] for c in answer.changes],
        "notices": notices_to(answer.notices),
    }


def _imported_from(document: Mapping[str, Any]) -> ImportedJobs:
    return ImportedJobs(
        changes=tuple(
            JobChange(job_id=i, kind=JobChangeKind(k), revision=r, changed_fields=tuple(f))
            for i, k, r, f in document["changes"]
        ),
        notices=notices_from(document["notices"]),
    )
