"""The use cases of jobs: changing and looking at definitions, one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from batchwork_server.application.first_answers import FirstAnswers, Request
from batchwork_server.application.job_checks import template_violations
from batchwork_server.application.job_writing import JobWriting, revised
from batchwork_server.application.notices import JobNotices, notices_from, notices_to
from batchwork_server.application.notifying import target_violations
from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Notice, Template
from batchwork_server.domain.filters import JobFilter
from batchwork_server.domain.firing import next_run_after
from batchwork_server.domain.job import JobDefinition, StoredJob, parse_job, render_job
from batchwork_server.domain.job_file import ReadJob
from batchwork_server.domain.json_object import quoted
from batchwork_server.domain.notification import NO_TARGETS, NotificationTargets
from batchwork_server.domain.submission import Idempotency
from batchwork_server.errors import (
    AlreadyExists,
    EtagMismatch,
    InvalidArgument,
    NotFound,
    Violation,
)
from batchwork_server.logs import get_logger
from batchwork_server.ports import TemplateService
from batchwork_server.store.store import JobStore, Store, Transaction
from batchwork_server.wakeups import Wakeups

NO_SOURCE = ""
"""The source of a job that no import has stored; no import prunes it."""

_PATH = "job"
_EXPORT_PAGE = 1000
_NEXT_PAGE = 200
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ANEW = Idempotency()

JobReading = Callable[[JobDefinition | None], tuple[JobDefinition | None, Sequence[Violation]]]
"""Makes a definition of a request and of the stored one that it changes, if it changes one.

It returns the definition, as far as it could be read, and all that is wrong with the request. It
may be called more than once.
"""

log = get_logger(__name__)


def etag_of(job: StoredJob) -> str:
    """Returns what changes with every revision of a job, also when its id is used again."""
    return f"r{job.revision}-{(job.create_time - _EPOCH) // timedelta(microseconds=1):x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedJob:
    """A job after a request, and what may not be meant about it."""

    job: StoredJob
    notices: tuple[Notice, ...]


class Jobs:
    """Keeps the job definitions of tenants.

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
        self._zone = zone

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
        request = Request(method="CreateJob", tenant_id=tenant_id, idempotency=idempotency)
        first = None if validate_only else await self._answers.find(request)
        if first is not None:
            return _checked_from(first, tenant_id=tenant_id)
        definition = self._checked(
            read, None, templates=await self._templates.all(), tenant_id=tenant_id
        )
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
            replayed = await self._answers.replay(tx, request, now=now)
            if replayed is not None:
                return _checked_from(replayed, tenant_id=tenant_id)
            stored = await self._store.jobs.lock(tx, [job_id], tenant_id=tenant_id)
            _refuse_taken(job_id, stored.get(job_id))
            await self._writing.put(tx, [answer.job], stored, tenant_id=tenant_id, now=now)
            await self._answers.remember(tx, request, _checked_to(answer))
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
        request = Request(method="UpdateJob", tenant_id=tenant_id, idempotency=idempotency)
        first = None if validate_only else await self._answers.find(request)
        if first is not None:
            return _checked_from(first, tenant_id=tenant_id)
        seen = await self.get_job(job_id, tenant_id=tenant_id)
        _match(etag, seen)
        templates = await self._templates.all()
        definition = self._checked(read, seen.definition, templates=templates, tenant_id=tenant_id)
        # The sources are asked before the transaction: it must not wait for them.
        notices = await self._notices.of({_PATH: definition}, tenant_id=tenant_id)
        now = self._clock.now()
        if validate_only:
            return CheckedJob(job=revised(seen, definition, now=now), notices=notices)
        async with self._store.transaction() as tx:
            replayed = await self._answers.replay(tx, request, now=now)
            if replayed is not None:
                return _checked_from(replayed, tenant_id=tenant_id)
            stored = await self._locked(tx, job_id, tenant_id=tenant_id)
            _match(etag, stored)
            if etag_of(stored) != etag_of(seen):
                definition = self._checked(
                    read, stored.definition, templates=templates, tenant_id=tenant_id
                )
            answer = CheckedJob(job=revised(stored, definition, now=now), notices=notices)
            if answer.job != stored:
                before = {job_id: stored}
                await self._writing.put(tx, [answer.job], before, tenant_id=tenant_id, now=now)
            await self._answers.remember(tx, request, _checked_to(answer))
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
        request = Request(method="DeleteJob", tenant_id=tenant_id, idempotency=idempotency)
        now = self._clock.now()
        async with self._store.transaction() as tx:
            if await self._answers.replay(tx, request, now=now) is not None:
                return
            stored = (await self._store.jobs.lock(tx, [job_id], tenant_id=tenant_id)).get(job_id)
            if stored is not None:
                _match(etag, stored)
                await self._writing.delete(tx, [job_id], tenant_id=tenant_id, now=now)
            elif not allow_missing:
                raise NotFound("job", job_id)
            await self._answers.remember(tx, request, {})
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
        request = Request(method=method, tenant_id=tenant_id, idempotency=idempotency)
        now = self._clock.now()
        async with self._store.transaction() as tx:
            replayed = await self._answers.replay(tx, request, now=now)
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
            await self._answers.remember(tx, request, _checked_to(CheckedJob(job=job, notices=())))
        if job is not before:
            self._wakeups.schedules_changed()
            event = "job.paused" if job.is_paused else "job.resumed"
            log.info(event, tenant_id=tenant_id, job_id=job_id)
        return job

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

    def _checked(
        self,
        read: JobReading,
        stored: JobDefinition | None,
        *,
        templates: Sequence[Template],
        tenant_id: str,
    ) -> JobDefinition:
        """Returns the definition that is asked for, or raises with everything that is wrong."""
        definition, violations = read(stored)
        found = list(violations)
        if definition is not None:
            job = ReadJob(path=_PATH, definition=definition, violations=tuple(violations))
            found += template_violations([job], templates)
            found += target_violations([job], self._targets, tenant_id=tenant_id)
        if found or definition is None:
            raise InvalidArgument(found)
        return definition

    async def _locked(self, tx: Transaction, job_id: str, *, tenant_id: str) -> StoredJob:
        found = await self._store.jobs.lock(tx, [job_id], tenant_id=tenant_id)
        if job_id not in found:
            raise NotFound("job", job_id)
        return found[job_id]

    async def select_jobs(self, job_ids: Sequence[str], *, tenant_id: str) -> list[StoredJob]:
        """Returns some jobs of a tenant, as the function of this name does."""
        return await select_jobs(self._store.jobs, job_ids, tenant_id=tenant_id)

    async def next_to_run(
        self, *, tenant_id: str, after: tuple[datetime, str] | None
    ) -> tuple[list[StoredJob], tuple[datetime, str] | None]:
        """Returns some jobs by their next due time and id, and after which the others follow."""
        return await self._store.jobs.next_to_run(
            tenant_id=tenant_id, limit=_NEXT_PAGE, after=after
        )


async def select_jobs(
    store: JobStore, job_ids: Sequence[str], *, tenant_id: str
) -> list[StoredJob]:
    """Returns some jobs of a tenant, each once, or all of them when none is named.

    Raises:
        NotFound: one of them does not exist.
    """
    if not job_ids:
        return await _all(store, tenant_id=tenant_id)
    return await _named(store, tuple(dict.fromkeys(job_ids)), tenant_id=tenant_id)


async def _named(store: JobStore, job_ids: Sequence[str], *, tenant_id: str) -> list[StoredJob]:
    found = await store.get_many(job_ids, tenant_id=tenant_id)
    for job_id in job_ids:
        if job_id not in found:
            raise NotFound("job", job_id)
    return [found[job_id] for job_id in job_ids]


async def _all(store: JobStore, *, tenant_id: str) -> list[StoredJob]:
    wanted = JobFilter(tenant_id=tenant_id)
    jobs, after = await store.list(wanted, page_size=_EXPORT_PAGE, after=None)
    while after is not None:
        page, after = await store.list(wanted, page_size=_EXPORT_PAGE, after=after)
        jobs = [*jobs, *page]
    return jobs


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
        "notices": notices_to(answer.notices),
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
    return CheckedJob(job=job, notices=notices_from(document["notices"]))
