"""The use cases of jobs: importing, exporting, changing and looking at definitions."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from batchwork_server.application.notices import MAX_NOTICES, MORE_NOTICES, JobNotices
from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Notice, Template
from batchwork_server.domain.filters import JobFilter
from batchwork_server.domain.firing import NextRun, next_run_after
from batchwork_server.domain.job import (
    JobDefinition,
    StoredJob,
    changed_fields,
    parse_job,
    parse_jobs_by_path,
    render_job,
    render_job_file,
)
from batchwork_server.domain.json_object import listed, quoted
from batchwork_server.domain.submission import Idempotency
from batchwork_server.errors import (
    AlreadyExists,
    EtagMismatch,
    InvalidArgument,
    NotFound,
    Violation,
)
from batchwork_server.logs import get_logger
from batchwork_server.ports import CategoryRepository, TemplateService, UserRepository
from batchwork_server.store.store import Store, Transaction
from batchwork_server.wakeups import Wakeups

UNKNOWN_OPERATION = "UNKNOWN_OPERATION"
UNKNOWN_TEMPLATE = "UNKNOWN_TEMPLATE"
OWNER_CHANGED = "OWNER_CHANGED"

DEFAULT_SOURCE = "import"
NO_SOURCE = ""
"""The source of a job that no import has stored; no import prunes it."""

_SOURCE = re.compile(r"[A-Za-z0-9_-]{1,63}")
_PATH = "job"
_EXPORT_PAGE = 1000
_NEXT_PAGE = 200
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ANEW = Idempotency()

JobReading = Callable[[JobDefinition | None], tuple[JobDefinition | None, Sequence[Violation]]]
"""Makes a definition of a request and of the stored one that it changes, if it changes one.

It returns the definition and all that is wrong with the request; none when what is wrong does not
let a definition be made. It may be called more than once.
"""

log = get_logger(__name__)


def etag_of(job: StoredJob) -> str:
    """Returns what changes with every revision of a job, also when its id is used again."""
    return f"r{job.revision}-{(job.create_time - _EPOCH) // timedelta(microseconds=1):x}"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedJob:
    """A job after a request, and what may not be meant about it."""

    job: StoredJob
    notices: tuple[Notice, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """A call that may have been answered before."""

    method: str
    tenant_id: str
    idempotency: Idempotency

    @property
    def key(self) -> dict[str, str]:
        return {
            "tenant_id": self.tenant_id,
            "method": self.method,
            "request_id": self.idempotency.request_id,
        }


class Jobs:
    """Keeps the job definitions of tenants.

    Args:
        zone: Of jobs whose schedule names none.
    """

    def __init__(
        self,
        *,
        store: Store,
        categories: CategoryRepository,
        users: UserRepository,
        templates: TemplateService,
        clock: Clock,
        wakeups: Wakeups,
        zone: str,
    ) -> None:
        self._store = store
        self._notices = JobNotices(categories=categories, users=users)
        self._templates = templates
        self._clock = clock
        self._wakeups = wakeups
        self._zone = zone

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
        request = _Request(method="ImportJobs", tenant_id=tenant_id, idempotency=idempotency)
        first = None if validate_only else await self._first_answer(request)
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
            replayed = await self._replay(tx, request, now=now)
            if replayed is not None:
                return _imported_from(replayed)
            stored = await self._store.jobs.lock(tx, _ids_of(jobs), tenant_id=tenant_id)
            owned = (
                await self._store.jobs.owned_by(owner, tenant_id=tenant_id, tx=tx) if prune else {}
            )
            answer = _difference(jobs, stored, owned, source=owner, notices=notices)
            changed = list(_to_store(jobs, stored, tenant_id=tenant_id, source=owner, now=now))
            await self._put(tx, changed, stored, tenant_id=tenant_id, now=now)
            await self._delete(tx, _deleted(answer.changes), tenant_id=tenant_id, now=now)
            await self._remember(tx, request, _imported_to(answer))
        self._wakeups.schedules_changed()
        log.info("jobs.imported", tenant_id=tenant_id, source=owner, **answer.counts)
        return answer

    async def create_job(
        self,
        read: JobReading,
        *,
        tenant_id: str,
        idempotency: Idempotency = _ANEW,
        validate_only: bool = False,
    ) -> CheckedJob:
        """Stores a job that belongs to no source; the same request again gets the first answer.

        Raises:
            InvalidArgument: with everything that is wrong.
            AlreadyExists: the id is taken.
            RequestIdReused: nothing was stored.
            Unavailable: nothing was stored; safe to call again.
        """
        request = _Request(method="CreateJob", tenant_id=tenant_id, idempotency=idempotency)
        first = None if validate_only else await self._first_answer(request)
        if first is not None:
            return _checked_from(first, tenant_id=tenant_id)
        definition = _checked(read, None, templates=await self._templates.all())
        notices = await self._notices.of({_PATH: definition}, tenant_id=tenant_id)
        now = self._clock.now()
        answer = CheckedJob(
            job=StoredJob(
                definition=definition,
                tenant_id=tenant_id,
                revision=1,
                source=NO_SOURCE,
                create_time=now,
                update_time=now,
            ),
            notices=notices,
        )
        job_id = definition.job_id
        if validate_only:
            _refuse_taken(job_id, await self._store.jobs.get(job_id, tenant_id=tenant_id))
            return answer
        async with self._store.transaction() as tx:
            replayed = await self._replay(tx, request, now=now)
            if replayed is not None:
                return _checked_from(replayed, tenant_id=tenant_id)
            stored = await self._store.jobs.lock(tx, [job_id], tenant_id=tenant_id)
            _refuse_taken(job_id, stored.get(job_id))
            await self._put(tx, [answer.job], stored, tenant_id=tenant_id, now=now)
            await self._remember(tx, request, _checked_to(answer))
        self._wakeups.schedules_changed()
        log.info("job.created", tenant_id=tenant_id, job_id=job_id)
        return answer

    async def update_job(
        self,
        job_id: str,
        read: JobReading,
        *,
        tenant_id: str,
        etag: str = "",
        idempotency: Idempotency = _ANEW,
        validate_only: bool = False,
    ) -> CheckedJob:
        """Changes a job; what does not change it leaves its revision as it is.

        The same request again gets the first answer, whatever has changed since.

        Args:
            job_id: The job.
            read: Makes the new definition of the stored one.
            tenant_id: Who owns the job.
            etag: When given, that of the stored job.
            idempotency: Names the request; by default each call stands for itself.
            validate_only: Answers what would be stored and stores nothing.

        Raises:
            InvalidArgument: with everything that is wrong.
            NotFound: there is no such job, or it is not the tenant's.
            EtagMismatch: somebody changed the job; read it again.
            RequestIdReused: nothing was changed.
            Unavailable: nothing was changed; safe to call again.
        """
        request = _Request(method="UpdateJob", tenant_id=tenant_id, idempotency=idempotency)
        first = None if validate_only else await self._first_answer(request)
        if first is not None:
            return _checked_from(first, tenant_id=tenant_id)
        seen = await self.get_job(job_id, tenant_id=tenant_id)
        _match(etag, seen)
        templates = await self._templates.all()
        definition = _checked(read, seen.definition, templates=templates)
        # The sources are asked before the transaction: it must not wait for them.
        notices = await self._notices.of({_PATH: definition}, tenant_id=tenant_id)
        now = self._clock.now()
        if validate_only:
            return CheckedJob(job=_revised(seen, definition, now=now), notices=notices)
        async with self._store.transaction() as tx:
            replayed = await self._replay(tx, request, now=now)
            if replayed is not None:
                return _checked_from(replayed, tenant_id=tenant_id)
            stored = await self._locked(tx, job_id, tenant_id=tenant_id)
            _match(etag, stored)
            if etag_of(stored) != etag_of(seen):
                definition = _checked(read, stored.definition, templates=templates)
            answer = CheckedJob(job=_revised(stored, definition, now=now), notices=notices)
            if answer.job != stored:
                before = {job_id: stored}
                await self._put(tx, [answer.job], before, tenant_id=tenant_id, now=now)
            await self._remember(tx, request, _checked_to(answer))
        self._wakeups.schedules_changed()
        log.info("job.updated", tenant_id=tenant_id, job_id=job_id, revision=answer.job.revision)
        return answer

    async def delete_job(
        self,
        job_id: str,
        *,
        tenant_id: str,
        etag: str = "",
        allow_missing: bool = False,
        idempotency: Idempotency = _ANEW,
    ) -> None:
        """Deletes a job and leaves its batches; the same request again changes nothing.

        Args:
            job_id: The job.
            tenant_id: Who owns the job.
            etag: When given, that of the stored job.
            allow_missing: Takes a job that is not there for one that is deleted already.
            idempotency: Names the request; by default each call stands for itself.

        Raises:
            NotFound: there is no such job, or it is not the tenant's.
            EtagMismatch: somebody changed the job; read it again.
            RequestIdReused: nothing was deleted.
        """
        request = _Request(method="DeleteJob", tenant_id=tenant_id, idempotency=idempotency)
        now = self._clock.now()
        async with self._store.transaction() as tx:
            if await self._replay(tx, request, now=now) is not None:
                return
            stored = (await self._store.jobs.lock(tx, [job_id], tenant_id=tenant_id)).get(job_id)
            if stored is not None:
                _match(etag, stored)
                await self._delete(tx, [job_id], tenant_id=tenant_id, now=now)
            elif not allow_missing:
                raise NotFound("job", job_id)
            await self._remember(tx, request, {})
        if stored is not None:
            log.info("job.deleted", tenant_id=tenant_id, job_id=job_id, revision=stored.revision)

    async def pause_job(
        self, job_id: str, *, tenant_id: str, note: str = "", idempotency: Idempotency = _ANEW
    ) -> StoredJob:
        """Lets the schedule of a job rest; a job that is paused already stays as it is.

        Raises:
            NotFound: there is no such job, or it is not the tenant's.
            RequestIdReused: nothing was changed.
        """
        return await self._set_pause(
            "PauseJob", job_id, tenant_id=tenant_id, note=note, idempotency=idempotency
        )

    async def resume_job(
        self, job_id: str, *, tenant_id: str, idempotency: Idempotency = _ANEW
    ) -> StoredJob:
        """Lets a job run by its schedule again; what was due meanwhile was not missed.

        Raises:
            NotFound: there is no such job, or it is not the tenant's.
            RequestIdReused: nothing was changed.
        """
        return await self._set_pause(
            "ResumeJob", job_id, tenant_id=tenant_id, note=None, idempotency=idempotency
        )

    async def _set_pause(
        self,
        method: str,
        job_id: str,
        *,
        tenant_id: str,
        note: str | None,
        idempotency: Idempotency,
    ) -> StoredJob:
        """Pauses a job, or resumes it when there is no note at all."""
        request = _Request(method=method, tenant_id=tenant_id, idempotency=idempotency)
        now = self._clock.now()
        async with self._store.transaction() as tx:
            replayed = await self._replay(tx, request, now=now)
            if replayed is not None:
                return _checked_from(replayed, tenant_id=tenant_id).job
            before = await self._locked(tx, job_id, tenant_id=tenant_id)
            job = before
            if before.is_paused != (note is not None):
                pause_time = None if note is None else now
                job = replace(before, pause_time=pause_time, pause_note=note or "")
                await self._store.jobs.set_pause(tx, job)
                next_run = next_run_after(job, now, zone=self._zone)
                await self._store.jobs.schedule(tx, {job_id: next_run}, tenant_id=tenant_id)
                await self._store.group_schedules.reset(tx, job_id, tenant_id=tenant_id, now=now)
            await self._remember(tx, request, _checked_to(CheckedJob(job=job, notices=())))
        if job is not before:
            self._wakeups.schedules_changed()
            event = "job.paused" if job.is_paused else "job.resumed"
            log.info(event, tenant_id=tenant_id, job_id=job_id)
        return job

    async def export_jobs(self, job_ids: Sequence[str] = (), *, tenant_id: str) -> str:
        """Returns jobs as a job file: those that are named, in that order, or all by id.

        Raises:
            NotFound: a named job does not exist.
        """
        jobs = await self.select_jobs(job_ids, tenant_id=tenant_id)
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

    async def _first_answer(self, request: _Request) -> Mapping[str, Any] | None:
        """Returns the answer to the same request before, without reading the request again."""
        if not request.idempotency.request_id:
            return None
        return await self._store.requests.find(
            **request.key, request_hash=request.idempotency.request_hash
        )

    async def _replay(
        self, tx: Transaction, request: _Request, *, now: datetime
    ) -> Mapping[str, Any] | None:
        """Returns the first answer, or none when this is the first request with its id."""
        if not request.idempotency.request_id:
            return None
        return await self._store.requests.replay(
            tx, **request.key, request_hash=request.idempotency.request_hash, now=now
        )

    async def _remember(
        self, tx: Transaction, request: _Request, answer: Mapping[str, Any]
    ) -> None:
        if request.idempotency.request_id:
            await self._store.requests.remember(tx, **request.key, answer=answer)

    async def _put(
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

    async def _delete(
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

    async def _locked(self, tx: Transaction, job_id: str, *, tenant_id: str) -> StoredJob:
        found = await self._store.jobs.lock(tx, [job_id], tenant_id=tenant_id)
        if job_id not in found:
            raise NotFound("job", job_id)
        return found[job_id]

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

    async def select_jobs(self, job_ids: Sequence[str], *, tenant_id: str) -> list[StoredJob]:
        """Returns some jobs of a tenant, each once, or all of them when none is named.

        Raises:
            NotFound: one of them does not exist.
        """
        if not job_ids:
            return await self._all(tenant_id=tenant_id)
        return await self._named(tuple(dict.fromkeys(job_ids)), tenant_id=tenant_id)

    async def next_to_run(
        self, *, tenant_id: str, after: tuple[datetime, str] | None
    ) -> tuple[list[StoredJob], tuple[datetime, str] | None]:
        """Returns some jobs by their next due time and id, and after which the others follow."""
        return await self._store.jobs.next_to_run(
            tenant_id=tenant_id, limit=_NEXT_PAGE, after=after
        )

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


def _checked(
    read: JobReading, stored: JobDefinition | None, *, templates: Sequence[Template]
) -> JobDefinition:
    """Returns the definition that is asked for, or raises with everything that is wrong."""
    definition, violations = read(stored)
    found = list(violations)
    if definition is not None:
        found += _template_violations({_PATH: definition}, templates)
    if found or definition is None:
        raise InvalidArgument(found)
    return definition


def _refuse_taken(job_id: str, stored: StoredJob | None) -> None:
    if stored is not None:
        raise AlreadyExists("job", job_id)


def _match(etag: str, stored: StoredJob) -> None:
    if not etag or etag == etag_of(stored):
        return
    job_id = stored.definition.job_id
    raise EtagMismatch(
        f"Somebody changed the job {quoted(job_id)}: its etag is {quoted(etag_of(stored))}, not "
        f"{quoted(etag)}. Read it again.",
        metadata={"etag": etag_of(stored)},
    )


def _revised(stored: StoredJob, definition: JobDefinition, *, now: datetime) -> StoredJob:
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
            job = replace(_revised(before, definition, now=now), source=source)
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
        "notices": _notices_to(answer.notices),
    }


def _imported_from(document: Mapping[str, Any]) -> ImportedJobs:
    return ImportedJobs(
        changes=tuple(
            JobChange(job_id=i, kind=JobChangeKind(k), revision=r, changed_fields=tuple(f))
            for i, k, r, f in document["changes"]
        ),
        notices=_notices_from(document["notices"]),
    )


def _checked_to(answer: CheckedJob) -> dict[str, Any]:
    job = answer.job
    return {
        "definition": render_job(job.definition),
        "revision": job.revision,
        "source": job.source,
        "create_time": job.create_time.isoformat(),
        "update_time": job.update_time.isoformat(),
        "pause_time": None if job.pause_time is None else job.pause_time.isoformat(),
        "pause_note": job.pause_note,
        "notices": _notices_to(answer.notices),
    }


def _checked_from(document: Mapping[str, Any], *, tenant_id: str) -> CheckedJob:
    definition, violations = parse_job(document["definition"])
    if definition is None:
        raise ValueError(f"The job of an answer cannot be read: {violations}")
    job = StoredJob(
        definition=definition,
        tenant_id=tenant_id,
        revision=document["revision"],
        source=document["source"],
        create_time=datetime.fromisoformat(document["create_time"]),
        update_time=datetime.fromisoformat(document["update_time"]),
        # An older release remembered answers without them.
        pause_time=datetime.fromisoformat(paused)
        if (paused := document.get("pause_time"))
        else None,
        pause_note=document.get("pause_note", ""),
    )
    return CheckedJob(job=job, notices=_notices_from(document["notices"]))


def _notices_to(notices: Sequence[Notice]) -> list[list[str]]:
    return [[notice.reason, notice.path, notice.message] for notice in notices]


def _notices_from(rows: Sequence[Sequence[str]]) -> tuple[Notice, ...]:
    return tuple(Notice(reason=r, path=p, message=m) for r, p, m in rows)
