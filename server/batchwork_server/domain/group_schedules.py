"""When a preference group runs for a job, and who of it has had their run: pure rules.

What runs is a pair of a job and a group. Its due times come from the group's effective schedule;
the ledger of users (``UserRun``) keeps each of them from running twice in a period.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from itertools import chain
from typing import Any

from batchwork_server.domain.declared_overrides import merged_overrides
from batchwork_server.domain.due_times import due_times, start_time
from batchwork_server.domain.effective_preference import default_wish_of, job_times_of
from batchwork_server.domain.firing import Decision, NextRun
from batchwork_server.domain.job import StoredJob
from batchwork_server.domain.preference import DefaultPreference, Preference
from batchwork_server.domain.preference_groups import (
    EffectiveSchedule,
    Period,
    effective_schedule,
    period_of,
)
from batchwork_server.domain.schedule import Schedule

MOVES_COUNT_FOR = timedelta(days=62)
"""How long it is known who left a group.

Who leaves a monthly group on the first day of a month may be served by it on the last one, and that
run may be made up for until the next one is due.
"""


ASLEEP = -1
"""The job's revision in the schedule of a group that has no members and no guests to come."""


class MemberSkip(StrEnum):
    """Why nothing is done for a member of a group that runs, besides what a plan finds."""

    ALREADY_DONE = "ALREADY_DONE"  # they had their run in this period
    TENANT_INACTIVE = "TENANT_INACTIVE"  # whoever keeps the user says that they rest
    PREFERENCE_DISABLED = "PREFERENCE_DISABLED"  # they opted out after the run began
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"  # more is selected for them than an item may hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Filling:
    """A batch that gets its members page by page.

    Attributes:
        after: Where the next page starts.
    """

    batch_id: str
    due_time: datetime
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSchedule:
    """When a group runs next for a job.

    Attributes:
        job_revision: Of the job when this was worked out; 0 means that it is to be worked out anew;
            ``ASLEEP`` that nobody looks at it until the group has a member again.
        default_revision: Likewise of the tenant's default for the feature; 0 means none.
        schedule: The effective one, with its zone; None when nobody names one.
        next_due_time: The first on which nothing is decided; None means never.
        last_due_time: The last on which something was decided, or since when there is a schedule.
        reset_time: Since when it counts anew because the job was paused; what was due before was
            not missed. None when it never was.
        last_batch_id: The newest batch; empty when there was none.
        queued_as: What becomes of the next due time when the batch before it is over; None unless
            it waits for that.
    """

    tenant_id: str
    job_id: str
    group_key: int
    job_revision: int
    job_create_time: datetime
    default_revision: int
    schedule: Schedule | None
    next_due_time: datetime | None
    last_due_time: datetime
    reset_time: datetime | None = None
    last_batch_id: str = ""
    queued_as: Decision | None = None
    filling: Filling | None = None

    @property
    def key(self) -> tuple[str, str, int]:
        return self.tenant_id, self.job_id, self.group_key


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTerms:
    """By what a run of a group goes from its first page to its last one, whatever changes.

    Attributes:
        schedule: The effective one of the group, with its zone.
        default: Of the tenant for the feature.
    """

    job: StoredJob
    schedule: Schedule
    default: DefaultPreference | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRun:
    """What a job did last for a user.

    Attributes:
        due_time: Of the last run that had work for them; None when there was none yet.
        period_start: Of the period which that run was for.
        due_day: The date of the due time, in the zone of that period; None in runs from before that
            was noted.
        period_day: The first day of that period; None for an hour or a minute.
        batch_id: Of that run, like ``item_id`` and ``group_key``.
        look_due_time: The last due time at which the user was looked at, run or not.
        look_group_key: The group that was due then.
        look_batch_id: Its batch.
        look_reason: Why nothing was done then; empty when something was.
    """

    user_id: str
    due_time: datetime | None
    period_start: datetime | None
    batch_id: str
    item_id: str
    group_key: int
    look_due_time: datetime
    look_group_key: int
    look_batch_id: str
    look_reason: str
    due_day: date | None = None
    period_day: date | None = None

    def is_in(self, period: Period) -> bool:
        """Tells whether the last run uses up a period: it lies in it, or after its start.

        Of a period of days that is told by the dates, each in its own zone: who moves to another
        zone has no second run on the same date, and none of the dates is left out for it.
        """
        if self.due_time is None:
            return False
        if self.due_day is None or period.first_day is None:
            return self.due_time >= period.start
        return self.due_day >= period.first_day


def schedule_of_group(
    job: StoredJob, wished: Schedule | None, default: DefaultPreference | None, *, zone: str
) -> EffectiveSchedule | None:
    """Returns what a wish for a schedule comes to for a job; None when nobody names one."""
    return effective_schedule(
        wished,
        default=default.schedule if default is not None else None,
        job=job_times_of(job),
        server_zone=zone,
    )


def overrides_of(
    job: StoredJob, default: DefaultPreference | None, preference: Preference
) -> dict[str, Any]:
    """Returns what counts for a user: theirs over the tenant's default over the job's, by key."""
    of_job = default_wish_of(job)
    return merged_overrides(
        of_job.template_overrides if of_job is not None else {},
        default.template_overrides if default is not None else {},
        preference.template_overrides,
    )


def next_due(schedule: Schedule | None, after: datetime, *, created: datetime) -> datetime | None:
    """Returns the first due time after an instant of a schedule that has a zone."""
    if schedule is None:
        return None
    found = due_times(schedule, zone="UTC", after=after, created=created)
    return next((due.instant for due in found), None)


def next_due_after_change(
    schedule: Schedule | None,
    *,
    changed: datetime,
    before: datetime | None,
    created: datetime,
) -> datetime | None:
    """Returns when a group is due next whose effective schedule has become another one.

    Where the new schedule has no due time left in the period in which the change was made, and the
    old one had, the old due time is kept this once: or the group would have no run in that period.

    Args:
        changed: When that was.
        before: The next due time by the old schedule.
    """
    found = next_due(schedule, changed, created=created)
    if schedule is None or before is None:
        return found
    return before if _is_left_out(schedule, changed, found, instead=before) else found


def _is_left_out(
    schedule: Schedule, moved: datetime, following: datetime | None, *, instead: datetime
) -> bool:
    period = period_of(schedule, "UTC", moved)
    has_own = following is not None and following < period.end
    return not has_own and period.start <= instead < period.end


def is_guest(
    schedule: Schedule | None, *, moved: datetime, due: datetime, created: datetime
) -> bool:
    """Tells whether a user who left a group is served by it once more.

    So it is when their new schedule has no due time left in the period in which they moved, and
    the group is due in it. Whether they had their run in the period is for the ledger to say.

    Args:
        schedule: The user's effective one, after the move.
        moved: When they moved.
        due: When the group that they left is due.
        created: When the job was made.
    """
    if schedule is None:
        return False
    following = next_due(schedule, moved, created=created)
    return _is_left_out(schedule, moved, following, instead=due)


def group_runs(row: GroupSchedule) -> Iterator[NextRun]:
    """Yields the runs of a group from its next due time on."""
    first, schedule = row.next_due_time, row.schedule
    if first is None or schedule is None:
        return
    later = due_times(schedule, zone="UTC", after=first, created=row.job_create_time)
    for instant in chain((first,), (due.instant for due in later)):
        yield NextRun(due_time=instant, start_time=start_of_run(row, instant))


def start_of_run(row: GroupSchedule, due: datetime) -> datetime:
    """Returns when the run of a due time begins: then, or later by the schedule's jitter."""
    if row.schedule is None:
        return due
    key = f"{row.tenant_id}/{row.job_id}"
    return start_time(due, key=key, jitter=row.schedule.jitter)
