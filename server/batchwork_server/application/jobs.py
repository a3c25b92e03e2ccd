"""The use cases of jobs: importing, exporting and looking at definitions."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from batchwork_server.application.notices import JobNotices
from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Notice, Template
from batchwork_server.domain.filters import JobFilter
from batchwork_server.domain.job import (
    JobDefinition,
    StoredJob,
    changed_fields,
    parse_jobs_by_path,
    render_job_file,
)
from batchwork_server.domain.json_object import listed, quoted
from batchwork_server.domain.submission import Idempotency
from batchwork_server.errors import InvalidArgument, NotFound, Violation
from batchwork_server.logs import get_logger
from batchwork_server.ports import CategoryRepository, TemplateService, UserRepository
from batchwork_server.store.store import Store, Transaction

UNKNOWN_OPERATION = "UNKNOWN_OPERATION"
UNKNOWN_TEMPLATE = "UNKNOWN_TEMPLATE"

DEFAULT_SOURCE = "import"

_SOURCE = re.compile(r"[A-Za-z0-9_-]{1,63}")
_METHOD = "ImportJobs"
_EXPORT_PAGE = 1000
_ANEW = Idempotency()

log = get_logger(__name__)


class JobChangeKind(StrEnum):
    """What an import does to a job."""

    CREATED = "CREATED"
    UPDATED = "UPDATED"  # it differs and gets a new revision
    UNCHANGED = "UNCHANGED"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobChange:
    """What an import does to one job.

    Attributes:
        revision: After the import.
        changed_fields: Names of ``JobDefinition``, sorted; only with UPDATED.
    """

    job_id: str
    kind: JobChangeKind
    revision: int
    changed_fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedJobs:
    """What became of a job file: a change for each job, in the order of the file."""

    changes: tuple[JobChange, ...]
    notices: tuple[Notice, ...]


class Jobs:
    """Keeps the job definitions of tenants."""

    def __init__(
        self,
        *,
        store: Store,
        categories: CategoryRepository,
        users: UserRepository,
        templates: TemplateService,
        clock: Clock,
    ) -> None:
        self._store = store
        self._notices = JobNotices(categories=categories, users=users)
        self._templates = templates
        self._clock = clock

    async def import_jobs(
        self,
        text: str,
        *,
        tenant_id: str,
        idempotency: Idempotency = _ANEW,
        source: str = "",
        validate_only: bool = False,
    ) -> ImportedJobs:
        """Imports a job file, all of it or nothing.

        The same request again gets the first answer, whatever has changed since.

        Args:
            text: The job file.
            tenant_id: Who owns the jobs.
            idempotency: Names the request; by default each call stands for itself.
            source: Kept with the jobs that change; empty means ``import``.
            validate_only: Answers what would change and stores nothing.

        Raises:
            InvalidArgument: with everything that is wrong with the file; nothing was stored.
            RequestIdReused: nothing was stored.
            Unavailable: nothing was stored; safe to call again.
        """
        first = None if validate_only else await self._first_answer(tenant_id, idempotency)
        if first is not None:
            return first
        jobs, notices = await self._inspect(text, source=source, tenant_id=tenant_id)
        if validate_only:
            stored = await self._store.jobs.get_many(_ids_of(jobs), tenant_id=tenant_id)
            return ImportedJobs(changes=_changes(jobs, stored), notices=notices)
        now = self._clock.now()
        request = _request(tenant_id, idempotency)
        async with self._store.transaction() as tx:
            if idempotency.request_id:
                replayed = await self._store.requests.replay(
                    tx, **request, request_hash=idempotency.request_hash, now=now
                )
                if replayed is not None:
                    return _answer_from(replayed)
            changes = await self._put(
                tx, jobs, tenant_id=tenant_id, source=source or DEFAULT_SOURCE, now=now
            )
            answer = ImportedJobs(changes=changes, notices=notices)
            if idempotency.request_id:
                await self._store.requests.remember(tx, **request, answer=_answer_to(answer))
        log.info("jobs.imported", tenant_id=tenant_id, **_counted(changes))
        return answer

    async def export_jobs(self, job_ids: Sequence[str] = (), *, tenant_id: str) -> str:
        """Returns jobs as a job file: those that are named, in that order, or all by id.

        Raises:
            NotFound: a named job does not exist.
        """
        if job_ids:
            jobs = await self._named(tuple(dict.fromkeys(job_ids)), tenant_id=tenant_id)
        else:
            jobs = await self._all(tenant_id=tenant_id)
        # Writing thousands of jobs takes a while; calls that wait for the loop must not.
        return await asyncio.to_thread(render_job_file, [job.definition for job in jobs])

    async def get_job(self, job_id: str, *, tenant_id: str | None) -> StoredJob:
        """Returns a job; without a tenant, of any tenant.

        Raises:
            NotFound: there is no such job, or it is not the tenant's.
        """
        job = await self._store.jobs.get(job_id, tenant_id=tenant_id)
        if job is None:
            raise NotFound("job", job_id)
        return job

    async def list_jobs(
        self, wanted: JobFilter, *, page_size: int, after: tuple[str, str] | None = None
    ) -> tuple[list[StoredJob], tuple[str, str] | None]:
        """Returns a page by tenant and id, and where the next one starts."""
        return await self._store.jobs.list(wanted, page_size=page_size, after=after)

    async def _first_answer(self, tenant_id: str, idempotency: Idempotency) -> ImportedJobs | None:
        """Returns the answer to the same request before, without reading the file again."""
        if not idempotency.request_id:
            return None
        request = _request(tenant_id, idempotency)
        answer = await self._store.requests.find(**request, request_hash=idempotency.request_hash)
        return None if answer is None else _answer_from(answer)

    async def _inspect(
        self, text: str, *, source: str, tenant_id: str
    ) -> tuple[Mapping[str, JobDefinition], tuple[Notice, ...]]:
        """Reads a file and compares it with the world; raises when anything is wrong with it."""
        # A file of 4 MiB takes a while to read; calls that wait for the loop must not.
        jobs, violations = await asyncio.to_thread(parse_jobs_by_path, text)
        violations += _template_violations(jobs, await self._templates.all())
        if source and not _SOURCE.fullmatch(source):
            message = f"{quoted(source)} is no source; write 1 to 63 letters, digits, '_' or '-'."
            violations.append(Violation("source", message))
        if violations:
            raise InvalidArgument(violations)
        return jobs, await self._notices.of(jobs, tenant_id=tenant_id)

    async def _put(
        self,
        tx: Transaction,
        jobs: Mapping[str, JobDefinition],
        *,
        tenant_id: str,
        source: str,
        now: datetime,
    ) -> tuple[JobChange, ...]:
        stored = await self._store.jobs.lock(tx, _ids_of(jobs), tenant_id=tenant_id)
        changes = _changes(jobs, stored)
        changed = [
            StoredJob(
                definition=job,
                tenant_id=tenant_id,
                revision=change.revision,
                source=source,
                create_time=stored[job.job_id].create_time if job.job_id in stored else now,
                update_time=now,
            )
            for job, change in zip(jobs.values(), changes, strict=True)
            if change.kind is not JobChangeKind.UNCHANGED
        ]
        await self._store.jobs.put(tx, changed)
        return changes

    async def _named(self, job_ids: Sequence[str], *, tenant_id: str) -> list[StoredJob]:
        found = await self._store.jobs.get_many(job_ids, tenant_id=tenant_id)
        for job_id in job_ids:
            if job_id not in found:
                raise NotFound("job", job_id)
        return [found[job_id] for job_id in job_ids]

    async def _all(self, *, tenant_id: str) -> list[StoredJob]:
        wanted = JobFilter(tenant_id=tenant_id)
        jobs, after = await self._store.jobs.list(wanted, page_size=_EXPORT_PAGE, after=None)
        while after is not None:
            page, after = await self._store.jobs.list(wanted, page_size=_EXPORT_PAGE, after=after)
            jobs = [*jobs, *page]
        return jobs


def _request(tenant_id: str, idempotency: Idempotency) -> dict[str, str]:
    return {"tenant_id": tenant_id, "method": _METHOD, "request_id": idempotency.request_id}


def _ids_of(jobs: Mapping[str, JobDefinition]) -> tuple[str, ...]:
    return tuple(job.job_id for job in jobs.values())


def _template_violations(
    jobs: Mapping[str, JobDefinition], templates: Sequence[Template]
) -> Iterator[Violation]:
    """Finds templates and operations that do not exist, and jobs that have no template at all."""
    ids = sorted(template.template_id for template in templates)
    operations = sorted({name for template in templates for name in template.operations})
    feature_types = {name for template in templates for name in template.feature_types}
    for path, job in jobs.items():
        if job.operation and job.operation not in operations:
            message = f"There is no operation {quoted(job.operation)}; there are "
            yield Violation(
                f"{path}.operation", f"{message}{listed(operations)}.", UNKNOWN_OPERATION
            )
        if job.template_id and job.template_id not in ids:
            message = f"There is no template {quoted(job.template_id)}; there are "
            yield Violation(f"{path}.template_id", f"{message}{listed(ids)}.", UNKNOWN_TEMPLATE)
        if not job.template_id and not job.operation and job.feature_type not in feature_types:
            message = (
                f"The feature {quoted(job.feature_type)} has no default template; name one of "
            )
            yield Violation(f"{path}.template_id", f"{message}{listed(ids)}.")


def _changes(
    jobs: Mapping[str, JobDefinition], stored: Mapping[str, StoredJob]
) -> tuple[JobChange, ...]:
    return tuple(_change(job, stored.get(job.job_id)) for job in jobs.values())


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


def _counted(changes: Sequence[JobChange]) -> dict[str, int]:
    return {kind.lower(): sum(change.kind is kind for change in changes) for kind in JobChangeKind}


def _answer_to(answer: ImportedJobs) -> dict[str, Any]:
    return {
        "changes": [[c.job_id, c.kind, c.revision, c.changed_fields] for c in answer.changes],
        "notices": [[n.reason, n.path, n.message] for n in answer.notices],
    }


def _answer_from(document: Mapping[str, Any]) -> ImportedJobs:
    return ImportedJobs(
        changes=tuple(
            JobChange(job_id=i, kind=JobChangeKind(k), revision=r, changed_fields=tuple(f))
            for i, k, r, f in document["changes"]
        ),
        notices=tuple(Notice(reason=r, path=p, message=m) for r, p, m in document["notices"]),
    )
