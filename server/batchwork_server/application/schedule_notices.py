"""What a schedule does that its author may not have thought of."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import takewhile
from zoneinfo import ZoneInfo

from batchwork_server.domain.batch import Notice
from batchwork_server.domain.due_times import DueRule, DueTime, due_times, transition_between
from batchwork_server.domain.job import JobDefinition
from batchwork_server.domain.json_object import quoted
from batchwork_server.domain.preference import parse_wish
from batchwork_server.domain.schedule import Cron, MonthEnd, Monthly, Schedule

NO_TIME_ZONE = "NO_TIME_ZONE"
SHORT_MONTHS = "SHORT_MONTHS"
CLOCK_CHANGE = "CLOCK_CHANGE"

_SHORTEST_MONTH = 28  # days
_DAY = timedelta(days=1)
_YEAR = 366 * _DAY


def schedule_notices(
    job: JobDefinition, *, path: str, zone: str, now: datetime
) -> Iterator[Notice]:
    """Yields what is to be noticed about the schedules of a job: its own, and that of its users.

    Args:
        job: Its ``default_preferences`` may hold a schedule, too.
        path: Where the job stands.
        zone: Of schedules that name none.
        now: From where on a year is looked at.
    """
    own = job.schedule
    if own is not None:
        yield from _about(own, path=f"{path}.schedule", zone=zone, now=now)
    wish, _ = parse_wish(job.default_preferences, path=path)
    if wish is not None and wish.schedule is not None:
        if own is not None and own.time_zone is not None:
            zone = own.time_zone
        yield from _about(wish.schedule, path=f"{path}.default_preferences", zone=zone, now=now)


def _about(schedule: Schedule, *, path: str, zone: str, now: datetime) -> Iterator[Notice]:
    if schedule.time_zone is None:
        yield Notice(
            reason=NO_TIME_ZONE,
            path=f"{path}.time_zone",
            message=f"The schedule names no zone; it goes by {quoted(zone)}.",
        )
    yield from _about_short_months(schedule, path=path)
    yield from _about_clock_changes(schedule, path=path, zone=zone, now=now)


def _about_short_months(schedule: Schedule, *, path: str) -> Iterator[Notice]:
    match schedule.cadence:
        case Monthly(day_of_month=day, month_end=month_end) if day > _SHORTEST_MONTH:
            done = "it is due on their last day"
            if month_end is MonthEnd.SKIP:
                done = "it is not due in those"
            message = f"Some months have no day {day}; {done}, by `month_end`."
            yield Notice(reason=SHORT_MONTHS, path=path, message=message)
        case Cron(fields=fields) if (
            min(fields.days_of_month) > _SHORTEST_MONTH and not fields.either_day
        ):
            message = (
                f"Some months have no day {min(fields.days_of_month)}; a cron expression is not "
                'due in those. The frequency "monthly" can take their last day instead.'
            )
            yield Notice(reason=SHORT_MONTHS, path=path, message=message)
        case _:
            pass


def _about_clock_changes(
    schedule: Schedule, *, path: str, zone: str, now: datetime
) -> Iterator[Notice]:
    told: set[DueRule] = set()
    name = schedule.time_zone or zone
    for change in _clock_changes(name, now.date().isoformat()):
        near = due_times(schedule, zone=zone, after=change - 2 * _DAY, created=now)
        for due in takewhile(lambda due: due.instant < change + 2 * _DAY, near):  # noqa: B023
            for rule in {*due.rules} - {DueRule.MONTH_END} - told:
                told.add(rule)
                yield Notice(
                    reason=CLOCK_CHANGE, path=path, message=_in_words(rule, due, schedule, name)
                )


def _in_words(rule: DueRule, due: DueTime, schedule: Schedule, zone: str) -> str:
    slot, local = due.slot, due.instant.astimezone(ZoneInfo(zone))
    if rule is DueRule.GAP:
        return (
            f"The clock of {quoted(zone)} leaves {slot:%H:%M} out on {slot:%Y-%m-%d}; it is due at "
            f"{local:%H:%M} then, by `on_gap`."
        )
    which = {"FIRST": "the first time", "SECOND": "the second time", "BOTH": "both times"}
    return (
        f"The clock of {quoted(zone)} shows {slot:%H:%M} twice on {slot:%Y-%m-%d}; it is due "
        f"{which[schedule.on_fold]}, by `on_fold`."
    )


@lru_cache(maxsize=1024)
def _clock_changes(zone: str, day: str) -> tuple[datetime, ...]:
    """Returns when the clock of a zone is changed in the year after a day."""
    local = ZoneInfo(zone)
    before = datetime.fromisoformat(day).replace(tzinfo=UTC)
    end = before + _YEAR
    changes = []
    while before < end:
        after = before + _DAY
        if before.astimezone(local).utcoffset() != after.astimezone(local).utcoffset():
            changes.append(transition_between(before, after, local))
        before = after
    return tuple(changes)
