"""The use case of jobs that are looked at before they are stored, or while they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import orjson

from batchwork_server.application.job_checks import KnownTemplates
from batchwork_server.application.jobs import select_jobs
from batchwork_server.application.notices import (
    FILTER_MATCHES_NOTHING,
    JobNotices,
    filters_path,
)
from batchwork_server.application.notifying import target_violations
from batchwork_server.application.schedule_notices import schedule_notices
from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Notice
from batchwork_server.domain.job import JobDefinition
from batchwork_server.domain.job_file import ReadJob, ReadJobFile, read_job_file
from batchwork_server.domain.json_object import quoted
from batchwork_server.domain.notification import NO_TARGETS, NotificationTargets
from batchwork_server.domain.selection import Selection, parse_filters
from batchwork_server.errors import Violation
from batchwork_server.ports import CategoryRepository, TemplateService
from batchwork_server.store.store import JobStore

FILTERS_NOT_TRIED = "FILTERS_NOT_TRIED"

LONGEST_TRIAL = timedelta(seconds=10)
"""No filter is tried after so long: the calls of others wait for the same database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """What was found of one job.

    Attributes:
        job_id: Empty when the job has none that can be read.
    """

    path: str
    job_id: str
    violations: tuple[Violation, ...]
    notices: tuple[Notice, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsReport:
    """What was found of jobs.

    Attributes:
        jobs: In their order.
        violations: What is wrong and belongs to none of the jobs.
        notices: What is to be noticed about the answer itself.
    """

    jobs: tuple[JobReport, ...]
    violations: tuple[Violation, ...] = ()
    notices: tuple[Notice, ...] = ()

    @property
    def valid(self) -> int:
        return sum(not job.violations for job in self.jobs)

    @property
    def violation_count(self) -> int:
        return len(self.violations) + sum(len(job.violations) for job in self.jobs)

    @property
    def notice_count(self) -> int:
        return len(self.notices) + sum(len(job.notices) for job in self.jobs)


class JobValidation:
    """Compares jobs with the rules and with the world, and changes nothing.

    Args:
        zone: Of schedules that name none.
        notices: Tells what of a job is accepted although it may not be meant.
        targets: Who can be told of the ends of runs.
    """

    def __init__(
        self,
        *,
        jobs: JobStore,
        categories: CategoryRepository,
        notices: JobNotices,
        templates: TemplateService,
        clock: Clock,
        zone: str,
        targets: NotificationTargets = NO_TARGETS,
    ) -> None:
        self._jobs = jobs
        self._categories = categories
        self._notices = notices
        self._templates = templates
        self._clock = clock
        self._zone = zone
        self._targets = targets

    async def validate_job_file(self, text: str, *, tenant_id: str) -> JobsReport:
        """Validates a job file; one that cannot be read is a violation, too.

        Raises:
            Unavailable: a source is away.
        """
        # A file of 4 MiB takes a while to read; calls that wait for the loop must not.
        file = await asyncio.to_thread(read_job_file, text)
        return await self.validate_jobs(file, tenant_id=tenant_id)

    async def validate_stored_jobs(
        self, job_ids: Sequence[str], *, tenant_id: str, path: Callable[[int], str]
    ) -> JobsReport:
        """Validates jobs as they are stored, or all of a tenant when none is named.

        Args:
            job_ids: The jobs; each counts once.
            tenant_id: Who owns them.
            path: Where a job stands, by its place in the report.

        Raises:
            NotFound: a named job does not exist.
            Unavailable: a source is away.
        """
        stored = await select_jobs(self._jobs, job_ids, tenant_id=tenant_id)
        jobs = [
            ReadJob(path=path(index), definition=job.definition) for index, job in enumerate(stored)
        ]
        return await self.validate_jobs(ReadJobFile(jobs=tuple(jobs)), tenant_id=tenant_id)

    async def validate_jobs(self, file: ReadJobFile, *, tenant_id: str) -> JobsReport:
        """Validates jobs as they were read.

        Raises:
            Unavailable: a source is away.
        """
        now = self._clock.now()
        known = KnownTemplates.of(await self._templates.all())
        definitions = {
            job.path: _what_is_certain(job, definition)
            for job in file.jobs
            if (definition := job.definition) is not None
        }
        notices = await self._notices.by_job(definitions, tenant_id=tenant_id)
        trial = _FilterTrial(self._categories, clock=self._clock, tenant_id=tenant_id)
        for path, job in definitions.items():
            notices[path] += await trial.of(job, path=path, now=now)
        # Thousands of schedules take a while; calls that wait for the loop must not.
        await asyncio.to_thread(self._add_schedules, notices, definitions, now)
        reports = [
            JobReport(
                path=job.path,
                job_id=job.definition.job_id if job.definition is not None else "",
                violations=(
                    *job.violations,
                    *known.violations_of(job),
                    *target_violations([job], self._targets, tenant_id=tenant_id),
                ),
                notices=tuple(notices.get(job.path, ())),
            )
            for job in file.jobs
        ]
        return JobsReport(
            jobs=tuple(reports), violations=file.violations, notices=tuple(trial.notices())
        )

    def _add_schedules(
        self,
        notices: Mapping[str, list[Notice]],
        jobs: Mapping[str, JobDefinition],
        now: datetime,
    ) -> None:
        for path, job in jobs.items():
            notices[path] += schedule_notices(job, path=path, zone=self._zone, now=now)


def _what_is_certain(read: ReadJob, job: JobDefinition) -> JobDefinition:
    """Returns a job without the filters that cannot be understood while something is wrong."""
    unclear = (f"{read.path}.type", f"{read.path}.shape", f"{read.path}.filters")
    if any(violation.path.startswith(unclear) for violation in read.violations):
        return replace(job, filters={})
    return job


class _FilterTrial:
    """Looks whether filters match anything, each selection once, for a bounded time."""

    def __init__(self, categories: CategoryRepository, *, clock: Clock, tenant_id: str) -> None:
        self._categories = categories
        self._clock = clock
        self._tenant_id = tenant_id
        self._end = clock.monotonic() + LONGEST_TRIAL.total_seconds()
        self._existing: frozenset[str] | None = None
        self._matches: dict[bytes, bool] = {}
        self._untried = 0

    async def of(self, job: JobDefinition, *, path: str, now: datetime) -> list[Notice]:
        found = []
        for category in job.categories:
            filters = job.filters_of(category)
            if not filters or category not in await self._existing_categories():
                continue
            key = orjson.dumps([category, filters], option=orjson.OPT_SORT_KEYS)
            selection, _ = parse_filters(filters, category=category, limit=1, now=now)
            if await self._matches_nothing(key, selection):
                message = f"No item of {quoted(category)} matches now."
                place = filters_path(job, category, path=path)
                found.append(Notice(reason=FILTER_MATCHES_NOTHING, path=place, message=message))
        return found

    def notices(self) -> Iterator[Notice]:
        """Yields what is to be noticed about the trial itself."""
        if self._untried:
            seconds = LONGEST_TRIAL.total_seconds()
            message = (
                f"The filters of {self._untried} more selections were not tried: trying them may "
                f"take {seconds:g} s. Validate fewer jobs at once."
            )
            yield Notice(reason=FILTERS_NOT_TRIED, path="", message=message)

    async def _matches_nothing(self, key: bytes, selection: Selection) -> bool:
        if key not in self._matches:
            if self._clock.monotonic() >= self._end:
                self._untried += 1
                return False
            found = await self._categories.select(selection, tenant_id=self._tenant_id)
            self._matches[key] = bool(found)
        return not self._matches[key]

    async def _existing_categories(self) -> frozenset[str]:
        if self._existing is None:
            names = await self._categories.categories(tenant_id=self._tenant_id)
            self._existing = frozenset(names)
        return self._existing
