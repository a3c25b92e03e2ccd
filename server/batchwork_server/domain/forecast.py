"""How much work is to come, from the groups of users and their schedules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from batchwork_server.domain.due_times import due_times, start_time
from batchwork_server.domain.preference_groups import EffectiveSchedule

LONGEST_FORECAST = timedelta(days=8)
SHORTEST_BUCKET = timedelta(minutes=1)
LONGEST_BUCKET = timedelta(days=1)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLoad:
    """A group that a job serves.

    Attributes:
        key: Of the job, by which its jitter is spread.
        created: When the job was stored.
    """

    schedule: EffectiveSchedule
    member_count: int
    key: str
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBucket:
    """What is due in a stretch of time.

    Attributes:
        user_count: Each user once for each run.
        run_count: Each is one group with one job.
    """

    start_time: datetime
    user_count: int
    run_count: int


def forecast(
    groups: Iterable[GroupLoad], *, start: datetime, end: datetime, bucket: timedelta
) -> list[LoadBucket]:
    """Returns the stretches in which anybody is due, in their order.

    Args:
        groups: A group once for each job that serves it.
        start: The first instant that counts.
        end: The first instant that does not count any more.
        bucket: How long a stretch is; they begin at whole multiples of it since 1970 in UTC.
    """
    users: dict[int, int] = {}
    runs: dict[int, int] = {}
    for group in groups:
        for instant in _runs_of(group, start=start, end=end):
            place = (instant - _EPOCH) // bucket
            users[place] = users.get(place, 0) + group.member_count
            runs[place] = runs.get(place, 0) + 1
    return [
        LoadBucket(
            start_time=_EPOCH + place * bucket, user_count=users[place], run_count=runs[place]
        )
        for place in sorted(users)
    ]


def _runs_of(group: GroupLoad, *, start: datetime, end: datetime) -> Iterator[datetime]:
    """Yields when runs begin; one that was due before the start may begin after it."""
    jitter = group.schedule.schedule.jitter
    dues = due_times(
        group.schedule.schedule,
        zone=group.schedule.time_zone,
        after=start - jitter - _TICK,
        created=group.created,
    )
    for due in dues:
        if due.instant >= end:
            return
        begin = start_time(due.instant, key=group.key, jitter=jitter)
        if start <= begin < end:
            yield begin
