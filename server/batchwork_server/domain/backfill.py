"""Backfills: due times of the past that become runs because somebody asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice, takewhile

from batchwork_server.domain.due_times import due_times
from batchwork_server.domain.job import PreferenceSource, StoredJob
from batchwork_server.errors import InvalidArgument, Violation, WrongState

MAX_DUE_TIMES = 1000
"""The most due times of one backfill."""

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
"""No backfill begins before this."""

_MOST_COUNTED = 10_000
_TICK = timedelta(microseconds=1)


class Fate(StrEnum):
    """What a backfill does about a due time."""

    QUEUED = "QUEUED"  # it waits for its turn
    ALREADY_RUN = "ALREADY_RUN"  # it has a batch, and is left alone
    ALREADY_QUEUED = "ALREADY_QUEUED"  # it waits, for the schedule or another backfill


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillRange:
    """What is to be made up for.

    Attributes:
        start: The first instant that counts.
        end: The first instant that does not count any more.
        is_parallel: All runs begin at once; else one after the other, and after other runs.
    """

    job_id: str
    start: datetime
    end: datetime
    is_parallel: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfilledDueTime:
    """What a backfill does about one due time.

    Attributes:
        batch_id: Of one that has run; else empty.
    """

    due_time: datetime
    fate: Fate
    batch_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfill:
    """What becomes of a range of due times.

    Attributes:
        backfill_id: Empty when nothing of it waits.
    """

    backfill_id: str
    due_times: Sequence[BackfilledDueTime]


def due_times_in(asked: BackfillRange, job: StoredJob, *, zone: str) -> list[datetime]:
    """Returns the due times of a job in a range, also of one that is paused.

    Args:
        zone: Of a schedule that names none.

    Raises:
        WrongState: no schedule of its own drives the job.
        InvalidArgument: there are too many.
    """
    schedule = job.definition.schedule
    if schedule is None or job.definition.preference_source is PreferenceSource.DYNAMIC:
        raise _without_schedule(job)
    found = due_times(schedule, zone=zone, after=asked.start - _TICK, created=job.create_time)
    inside = takewhile(lambda due: due.instant < asked.end, found)
    times = [due.instant for due in islice(inside, _MOST_COUNTED + 1)]
    if len(times) > MAX_DUE_TIMES:
        raise InvalidArgument([_too_many(times)])
    return times


def _without_schedule(job: StoredJob) -> WrongState:
    job_id, is_scheduled = job.definition.job_id, job.definition.schedule is not None
    why = "is driven by preferences" if is_scheduled else "has no schedule"
    return WrongState(
        "job",
        job_id,
        state="PREFERENCE_BASED" if is_scheduled else "UNSCHEDULED",
        verb="backfilled",
        message=f"The job {job_id!r} {why}, so it has no due times to make up for; RunJob runs it.",
    )


def _too_many(times: Sequence[datetime]) -> Violation:
    count = f"{len(times):,}" if len(times) <= _MOST_COUNTED else f"more than {_MOST_COUNTED:,}"
    return Violation(
        "end_time",
        f"There are {count} due times in this range; at most {MAX_DUE_TIMES:,} are allowed. End at "
        f"{times[MAX_DUE_TIMES].isoformat()}, and begin the next backfill there.",
        limit=MAX_DUE_TIMES,
    )
