"""What is due next: the due times of scheduled jobs, before anything runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
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

_Block = tuple[Sequence[StoredJob], datetime | None]
"""Some jobs, and an instant before which none of the later ones is due; none when all are there."""


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
        now = self._clock.now()
        begin = after[0] if after is not None else start or now
        if job_ids or begin < now:
            blocks = self._chosen(job_ids, tenant_id=tenant_id)
        else:
            blocks = self._next_first(tenant_id=tenant_id)
        waiting: list[_Waiting] = []
        found: list[UpcomingRun] = []
        async for jobs, bound in blocks:
            waiting += await self._first_of(jobs, begin=begin)
            heapify(waiting)
            known = _earlier(end, bound)
            while waiting and (known is None or waiting[0].due.instant < known):
                next_one = waiting[0]
                place = (next_one.due.instant, next_one.job.definition.job_id)
                if after is None or place > after:
                    if len(found) == page_size:
                        last = found[-1]
                        return found, (last.due.instant, last.job_id)
                    found.append(self._run(next_one))
                _advance(waiting)
            if known is end and end is not None:
                break
        return found, None

    async def _chosen(self, job_ids: Sequence[str], *, tenant_id: str) -> AsyncIterator[_Block]:
        """Yields all of the jobs at once: what was due in the past is not stored with them."""
        yield await self._jobs.select_jobs(job_ids, tenant_id=tenant_id), None

    async def _next_first(self, *, tenant_id: str) -> AsyncIterator[_Block]:
        """Yields the jobs that run next, then the others: a page of runs needs few of them."""
        seen: set[str] = set()
        after: tuple[datetime, str] | None = None
        while True:
            jobs, after = await self._jobs.next_to_run(tenant_id=tenant_id, after=after)
            # One that fired meanwhile is there again, at its next due time.
            anew = [job for job in jobs if job.definition.job_id not in seen]
            yield anew, None if after is None else after[0]
            if after is None:
                return
            seen.update(job.definition.job_id for job in jobs)

    async def _first_of(self, jobs: Sequence[StoredJob], *, begin: datetime) -> list[_Waiting]:
        """Returns the next due time of each job that a schedule of its own drives."""
        waiting: list[_Waiting] = []
        for number, job in enumerate(jobs, 1):
            schedule = _own_schedule(job)
            if schedule is None:
                continue
            found = due_times(
                schedule, zone=self._zone, after=begin - _TICK, created=job.create_time
            )
            first = next(found, None)
            if first is not None:
                waiting.append(_Waiting(due=first, job=job, schedule=schedule, later=found))
            if number % _JOBS_AT_ONCE == 0:
                await asyncio.sleep(0)
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


def _own_schedule(job: StoredJob) -> Schedule | None:
    """Returns the schedule that drives a job, if one does."""
    if job.is_paused or job.definition.preference_source is PreferenceSource.DYNAMIC:
        return None
    return job.definition.schedule


def _earlier(first: datetime | None, second: datetime | None) -> datetime | None:
    return first if second is None or (first is not None and first <= second) else second


def _advance(waiting: list[_Waiting]) -> None:
    """Puts the due time after the first one in its place."""
    first = waiting[0]
    following = next(first.later, None)
    if following is None:
        heappop(waiting)
    else:
        first.due = following
        heapreplace(waiting, first)
