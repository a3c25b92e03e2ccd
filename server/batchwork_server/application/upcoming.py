"""What is due next: the due times of scheduled jobs, before anything runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heapify, heappop, heapreplace
from zoneinfo import ZoneInfo

from batchwork_server.application.jobs import Jobs
from batchwork_server.clock import Clock
from batchwork_server.domain.due_times import DueTime, due_times, start_time
from batchwork_server.domain.job import PreferenceSource, StoredJob
from batchwork_server.domain.schedule import Schedule

_TICK = timedelta(microseconds=1)
_JOBS_AT_ONCE = 100  # others get their turn after so many


@dataclass(frozen=True, slots=True, kw_only=True)
class UpcomingRun:
    """One run that a schedule will make.

    Attributes:
        due: When, and what was done about a local time that is not there once.
        start_time: When it begins, with the spread of the schedule.
        zone: In which the times are meant.
    """

    job_id: str
    due: DueTime
    start_time: datetime
    zone: str

    @property
    def local_time(self) -> datetime:
        """The due time as the clock on the wall shows it then."""
        return self.due.instant.astimezone(ZoneInfo(self.zone))


class UpcomingRuns:
    """The use case behind ``ListUpcomingRuns``.

    Args:
        zone: Of jobs whose schedule names none.
    """

    def __init__(self, *, jobs: Jobs, clock: Clock, zone: str) -> None:
        self._jobs = jobs
        self._clock = clock
        self._zone = zone

    async def list_upcoming_runs(
        self,
        job_ids: Sequence[str],
        *,
        tenant_id: str,
        start: datetime | None,
        end: datetime | None,
        page_size: int,
        after: tuple[datetime, str] | None,
    ) -> tuple[list[UpcomingRun], tuple[datetime, str] | None]:
        """Lists runs in the order of their due times.

        Args:
            job_ids: Empty means every job of the tenant that has a schedule.
            start: The first instant that counts; none means now.
            end: The first instant that does not; none means as far as the page goes.
            after: The due time and job of the last run of the page before.

        Returns:
            A page, and after which run the next one begins; none when there is no more.

        Raises:
            NotFound: one of the jobs does not exist.
        """
        jobs = await self._scheduled(job_ids, tenant_id=tenant_id)
        begin = after[0] if after is not None else start or self._clock.now()
        waiting = await self._first_of(jobs, begin=begin)
        found: list[UpcomingRun] = []
        while waiting and (end is None or waiting[0].due.instant < end):
            next_one = waiting[0]
            place = (next_one.due.instant, next_one.job.definition.job_id)
            if after is None or place > after:
                if len(found) == page_size:
                    last = found[-1]
                    return found, (last.due.instant, last.job_id)
                found.append(self._run(next_one))
            _advance(waiting)
        return found, None

    async def _scheduled(self, job_ids: Sequence[str], *, tenant_id: str) -> list[StoredJob]:
        """Returns the jobs that a schedule of their own drives."""
        jobs = await self._jobs.select_jobs(job_ids, tenant_id=tenant_id)
        return [
            job
            for job in jobs
            if not job.is_paused
            and job.definition.schedule is not None
            and job.definition.preference_source is PreferenceSource.STATIC
        ]

    async def _first_of(self, jobs: Sequence[StoredJob], *, begin: datetime) -> list[_Waiting]:
        """Returns the next due time of each job that has one, as a heap."""
        waiting: list[_Waiting] = []
        for number, job in enumerate(jobs, 1):
            schedule = job.definition.schedule
            assert schedule is not None  # noqa: S101  the others were left out
            found = due_times(
                schedule, zone=self._zone, after=begin - _TICK, created=job.create_time
            )
            first = next(found, None)
            if first is not None:
                waiting.append(_Waiting(due=first, job=job, schedule=schedule, later=found))
            if number % _JOBS_AT_ONCE == 0:
                await asyncio.sleep(0)
        heapify(waiting)
        return waiting

    def _run(self, next_one: _Waiting) -> UpcomingRun:
        key = f"{next_one.job.tenant_id}/{next_one.job.definition.job_id}"
        instant, jitter = next_one.due.instant, next_one.schedule.jitter
        return UpcomingRun(
            job_id=next_one.job.definition.job_id,
            due=next_one.due,
            start_time=start_time(instant, key=key, jitter=jitter),
            zone=next_one.schedule.time_zone or self._zone,
        )


@dataclass(slots=True, kw_only=True)
class _Waiting:
    """A job and its next due time."""

    due: DueTime
    job: StoredJob
    schedule: Schedule
    later: Iterator[DueTime]

    def __lt__(self, other: _Waiting) -> bool:
        return (self.due.instant, self.job.definition.job_id) < (
            other.due.instant,
            other.job.definition.job_id,
        )


def _advance(waiting: list[_Waiting]) -> None:
    """Puts the due time after the first one in its place."""
    first = waiting[0]
    following = next(first.later, None)
    if following is None:
        heappop(waiting)
    else:
        first.due = following
        heapreplace(waiting, first)
