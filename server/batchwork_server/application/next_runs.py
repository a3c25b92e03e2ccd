"""When a user is due next for a job, by all that their runs go by."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from batchwork_server.application.upcoming import UpcomingRun
from batchwork_server.clock import Clock
from batchwork_server.domain.due_times import DueTime, due_times, start_time
from batchwork_server.domain.effective_preference import EffectivePreference
from batchwork_server.domain.group_schedules import (
    GroupSchedule,
    UserRun,
    is_guest,
    start_of_run,
)
from batchwork_server.domain.job import StoredJob
from batchwork_server.domain.preference import Preference
from batchwork_server.domain.preference_groups import EffectiveSchedule, period_of
from batchwork_server.store.store import Store

_MOST_MOVES = 100
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserOfJob:
    """A user with all that says when a job runs for them.

    Attributes:
        preference: Their own; None when they have set nothing.
        effective: What comes of it for the job.
        job: None when none is known; then only the schedule counts.
        last: What the job did last for them.
    """

    tenant_id: str
    preference: Preference | None
    effective: EffectivePreference
    job: StoredJob | None
    last: UserRun | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UserNextRun:
    """The next run for a user.

    Attributes:
        guest_of: The group that they left and that serves them once more; 0 when it is their own.
    """

    run: UpcomingRun
    guest_of: int = 0


class NextRuns:
    """Tells when users are due next; it changes nothing."""

    def __init__(self, *, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def of(self, user: UserOfJob) -> UserNextRun | None:
        """Returns the next run for a user; none when nothing is to be done for them."""
        schedule = user.effective.schedule
        if schedule is None or not user.effective.enabled or not user.effective.active:
            return None
        if user.job is not None and user.job.is_paused:
            return None
        if user.job is None:
            return self._by_own(user, schedule)
        own = await self._store.preference_groups.key_of(
            user.job.definition.feature_type,
            None if user.preference is None else user.preference.schedule,
            tenant_id=user.tenant_id,
        )
        return (
            await self._as_guest(user, user.job, schedule, own=own)
            or await self._by_group(user, user.job, schedule, own=own)
            or self._by_own(user, schedule)
        )

    def _by_own(self, user: UserOfJob, effective: EffectiveSchedule) -> UserNextRun | None:
        """Returns the first run by the user's schedule in a period that they have not used up."""
        now, job = self._clock.now(), user.job
        schedule, zone = effective.schedule, effective.time_zone
        created = now if job is None else job.create_time
        for due in due_times(schedule, zone=zone, after=now, created=created):
            period = period_of(schedule, zone, due.instant)
            if user.last is None or not user.last.is_in(period):
                job_id = "" if job is None else job.definition.job_id
                key = f"{user.tenant_id}/{job_id}"
                begin = start_time(due.instant, key=key, jitter=schedule.jitter)
                return UserNextRun(
                    run=UpcomingRun(job_id=job_id, due=due, start_time=begin, zone=zone)
                )
        return None

    async def _by_group(
        self, user: UserOfJob, job: StoredJob, effective: EffectiveSchedule, *, own: int | None
    ) -> UserNextRun | None:
        """Returns the run that the user's group still has to make, whatever its schedule says now.

        It may have kept a due time of the schedule before, or one that is over may wait.
        """
        if own is None:
            return None
        row = await self._row(job, own)
        if row is None or row.next_due_time is None or row.schedule != effective.schedule:
            return None
        begins = start_of_run(row, row.next_due_time)
        if row.queued_as is None and begins <= self._clock.now():
            return None  # nobody has decided about it yet, and it may be left out
        period = period_of(effective.schedule, effective.time_zone, row.next_due_time)
        if user.last is not None and user.last.is_in(period):
            return None
        return UserNextRun(run=_run_of(row))

    async def _as_guest(
        self, user: UserOfJob, job: StoredJob, effective: EffectiveSchedule, *, own: int | None
    ) -> UserNextRun | None:
        """Returns the run by which a group that the user left serves them once more."""
        preference = user.preference
        if preference is None:
            return None
        schedule, moved, created = effective.schedule, preference.update_time, job.create_time
        # For most, the log of changes need not be read: no due time from now on makes them guests.
        now = max(self._clock.now(), moved)
        period = period_of(schedule, effective.time_zone, moved)
        has_run = user.last is not None and user.last.is_in(period)
        if has_run or not is_guest(schedule, moved=moved, due=now, created=created):
            return None
        rows = [
            row
            for row in await self._rows_left(preference, job, since=period.start, own=own)
            if row.next_due_time is not None
            and is_guest(schedule, moved=moved, due=row.next_due_time, created=created)
        ]
        if not rows:
            return None
        row = min(rows, key=lambda row: row.next_due_time or now)
        return UserNextRun(run=_run_of(row), guest_of=row.group_key)

    async def _rows_left(
        self, preference: Preference, job: StoredJob, *, since: datetime, own: int | None
    ) -> list[GroupSchedule]:
        """Returns when the groups run next that the user left since their last due time."""
        changes = await self._store.preference_changes.of_user(
            preference.user_id,
            feature_type=preference.feature_type,
            tenant_id=job.tenant_id,
            since=since,
            limit=_MOST_MOVES,
        )
        left = {
            change.group_left: change.change_time
            for change in changes
            if change.enabled and change.group_left is not None
        }
        rows = []
        for group_key, moment in left.items():
            row = await self._row(job, group_key)
            if row is not None and group_key != own and row.last_due_time <= moment:
                rows.append(row)
        return rows

    async def _row(self, job: StoredJob, group_key: int) -> GroupSchedule | None:
        """Returns when a group runs next for a job; none for another job of the same id."""
        row = await self._store.group_schedules.get(
            job.definition.job_id, group_key, tenant_id=job.tenant_id
        )
        return row if row is not None and row.job_create_time == job.create_time else None


def _run_of(row: GroupSchedule) -> UpcomingRun:
    assert row.next_due_time is not None  # noqa: S101  the caller has looked
    assert row.schedule is not None  # noqa: S101  it is due by one
    return UpcomingRun(
        job_id=row.job_id,
        due=_due_of(row, row.next_due_time),
        start_time=start_of_run(row, row.next_due_time),
        zone=row.schedule.time_zone or "UTC",
    )


def _due_of(row: GroupSchedule, instant: datetime) -> DueTime:
    """Returns a due time of a group; one that a schedule before has left is as it says."""
    assert row.schedule is not None  # noqa: S101  it is due by one
    found = due_times(row.schedule, zone="UTC", after=instant - _TICK, created=row.job_create_time)
    due = next(found, None)
    if due is not None and due.instant == instant:
        return due
    return DueTime(instant=instant, slot=instant.replace(tzinfo=None))
