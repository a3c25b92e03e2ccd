"""Who is served together, when, and which of their periods an instant lies in.

A group is named by what its members wish, and not by what comes of it: so a new default, or a
change of a job, moves the due times of a group and not one of its members.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import assert_never
from zoneinfo import ZoneInfo

from batchwork_server.domain.due_times import start_of_day, transition_between
from batchwork_server.domain.schedule import (
    Biweekly,
    Cadence,
    Cron,
    Daily,
    Hourly,
    Monthly,
    Schedule,
    Weekly,
    parse_schedule,
    render_schedule,
)

_DAY = timedelta(days=1)
_WEEK = timedelta(days=7)
_HOUR = timedelta(hours=1)
_MINUTE = timedelta(minutes=1)
_SECOND = timedelta(seconds=1)
_SOME_MONDAY = date(1970, 1, 5)


class Origin(StrEnum):
    """Who said what a field of an effective preference is."""

    USER = "USER"
    TENANT_DEFAULT = "TENANT_DEFAULT"
    JOB_DEFAULT = "JOB_DEFAULT"
    TEMPLATE = "TEMPLATE"
    SERVER = "SERVER"


class ChangeKind(StrEnum):
    """What a change did."""

    SET = "SET"
    DELETED = "DELETED"
    DEFAULT_SET = "DEFAULT_SET"  # for the tenant, and not for one user


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceGroup:
    """The users of a feature whose preferences name the same schedule.

    Attributes:
        schedule: None for the users who name none; the default is meant.
        member_count: Users whose preference is enabled.
        populate_time: When it had no member and got one, the last time.
    """

    group_key: int
    tenant_id: str
    feature_type: str
    schedule: Schedule | None
    member_count: int
    create_time: datetime
    populate_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceChange:
    """One change of the preferences of a tenant.

    Attributes:
        sequence: Counts the changes of the tenant from 1; a change is never seen before those with
            lower ones.
        change_time: Never before that of the change before it.
        user_id: Empty for a default.
        revision: After the change; of what was deleted, the last.
        enabled: After the change.
        group_left: The key of the group the user was in; None when there was none, or the user did
            not move.
        group_joined: Likewise for the group the user is in now.
    """

    tenant_id: str
    sequence: int
    change_time: datetime
    kind: ChangeKind
    feature_type: str
    user_id: str
    revision: int
    enabled: bool
    group_left: int | None = None
    group_joined: int | None = None


def schedule_text(schedule: Schedule | None) -> str:
    """Returns the one spelling of a schedule that a group is found by; empty for none."""
    if schedule is None:
        return ""
    return json.dumps(render_schedule(schedule), sort_keys=True, separators=(",", ":"))


def schedule_of_text(text: str) -> Schedule | None:
    """Reads what ``schedule_text`` wrote.

    Raises:
        ValueError: it is something else.
    """
    if not text:
        return None
    schedule, violations = parse_schedule(json.loads(text), path="schedule")
    if schedule is None:
        raise ValueError(f"A stored schedule cannot be read: {violations}")
    return schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTimes:
    """What a job says about the schedules of its users.

    Attributes:
        schedule: The schedule of its ``default_preferences``.
        time_zone: That of its own schedule; None when that has none, or there is none.
        create_time: Anchors a biweekly schedule that has no anchor date.
    """

    create_time: datetime
    schedule: Schedule | None = None
    time_zone: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveSchedule:
    """What comes of a wish with the defaults.

    Attributes:
        schedule: With its zone, and with an anchor date when it is biweekly and a job is known.
        origin: Who said the cadence.
        zone_origin: Who said the zone.
    """

    schedule: Schedule
    origin: Origin
    zone_origin: Origin

    @property
    def time_zone(self) -> str:
        zone = self.schedule.time_zone
        assert zone is not None  # noqa: S101  effective_schedule sets one
        return zone


def effective_schedule(
    wished: Schedule | None,
    *,
    default: Schedule | None,
    job: JobTimes | None,
    server_zone: str,
) -> EffectiveSchedule | None:
    """Returns what a user's schedule, or none, comes to; None when nobody names one.

    Args:
        wished: What the user names.
        default: What the tenant's default for the feature names.
        job: None means that no job of the feature is known.
        server_zone: The zone where nobody names one.
    """
    of_job = job.schedule if job is not None else None
    chosen = next(
        (
            (schedule, origin)
            for schedule, origin in (
                (wished, Origin.USER),
                (default, Origin.TENANT_DEFAULT),
                (of_job, Origin.JOB_DEFAULT),
            )
            if schedule is not None
        ),
        None,
    )
    if chosen is None:
        return None
    schedule, origin = chosen
    zone, zone_origin = _zone_of(schedule, origin, default=default, job=job, server=server_zone)
    cadence = _anchored(schedule.cadence, job, zone)
    return EffectiveSchedule(
        schedule=replace(schedule, time_zone=zone, cadence=cadence),
        origin=origin,
        zone_origin=zone_origin,
    )


def _zone_of(
    schedule: Schedule,
    origin: Origin,
    *,
    default: Schedule | None,
    job: JobTimes | None,
    server: str,
) -> tuple[str, Origin]:
    if schedule.time_zone is not None:
        return schedule.time_zone, origin
    if default is not None and default.time_zone is not None:
        return default.time_zone, Origin.TENANT_DEFAULT
    if job is not None:
        of_default = job.schedule.time_zone if job.schedule is not None else None
        zone = job.time_zone or of_default
        if zone is not None:
            return zone, Origin.JOB_DEFAULT
    return server, Origin.SERVER


def _anchored(cadence: Cadence, job: JobTimes | None, zone: str) -> Cadence:
    if isinstance(cadence, Biweekly) and cadence.anchor_date is None and job is not None:
        day = job.create_time.astimezone(ZoneInfo(zone)).date()
        return replace(cadence, anchor_date=day)
    return cadence


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A stretch of local time in which a user is served once at most.

    Attributes:
        label: Such as ``2026-03-29`` or ``2026-W13``; no two periods of a cadence and zone have
            the same.
        start: Its first instant.
        end: The first instant after it.
        zone: Whose clock and calendar it goes by.
        first_day: Of one that is made of days; None for an hour or a minute.
    """

    label: str
    start: datetime
    end: datetime
    zone: ZoneInfo
    first_day: date | None = None

    def day_of(self, instant: datetime) -> date:
        """Returns the date of an instant in the zone of the period."""
        return instant.astimezone(self.zone).date()


def period_of(schedule: Schedule, zone: str, instant: datetime) -> Period:
    """Returns the period of a schedule that an instant lies in.

    That is the local hour of an hourly schedule, the day of a daily one, the ISO week of a weekly
    one, two ISO weeks counted from the anchor date of a biweekly one (without one, from the week
    of 1970-01-05), the month of a monthly one. Of a cron expression it is the day when that names
    one time of the day, and otherwise the minute.

    An hour that the clock shows twice is two periods; a day has 23 hours or 25 then.

    Args:
        zone: For a schedule without a zone of its own.
        instant: Aware.
    """
    local = ZoneInfo(schedule.time_zone or zone)
    day = instant.astimezone(local).date()
    match schedule.cadence:
        case Hourly():
            return _clock_period(instant, local, _HOUR)
        case Daily():
            return _day_period(day, local)
        case Weekly():
            return _days_period(_week_label(day), _monday_of(day), _WEEK, local)
        case Biweekly(anchor_date=anchor):
            monday = _pair_start(day, anchor or _SOME_MONDAY)
            return _days_period(f"{_week_label(monday)}/2", monday, 2 * _WEEK, local)
        case Monthly():
            first = day.replace(day=1)
            following = (first + 31 * _DAY).replace(day=1)
            return _days_period(f"{day:%Y-%m}", first, following - first, local)
        case Cron(fields=fields):
            if len(fields.minutes) == len(fields.hours) == 1:
                return _day_period(day, local)
            return _clock_period(instant, local, _MINUTE)
        case _:
            assert_never(schedule.cadence)


def _day_period(day: date, zone: ZoneInfo) -> Period:
    return _days_period(day.isoformat(), day, _DAY, zone)


def _days_period(label: str, first: date, length: timedelta, zone: ZoneInfo) -> Period:
    return Period(
        label=label,
        start=start_of_day(first, zone),
        end=start_of_day(first + length, zone),
        zone=zone,
        first_day=first,
    )


def _monday_of(day: date) -> date:
    return day - timedelta(days=day.weekday())


def _pair_start(day: date, anchor: date) -> date:
    """Returns the Monday on which the two weeks around a day begin."""
    monday = _monday_of(day)
    weeks = (monday - _monday_of(anchor)).days // 7
    return monday - _WEEK * (weeks % 2)


def _week_label(day: date) -> str:
    year, week, _ = day.isocalendar()
    return f"{year:04}-W{week:02}"


def _clock_period(instant: datetime, zone: ZoneInfo, length: timedelta) -> Period:
    """Returns the hour or minute around an instant, cut where the clock jumps."""
    local = instant.astimezone(zone)
    begun = local.replace(second=0, microsecond=0)
    if length == _HOUR:
        begun = begun.replace(minute=0)
    into = local.replace(tzinfo=None) - begun.replace(tzinfo=None)
    start = instant.astimezone(UTC) - into
    end = start + length
    offset = local.utcoffset()
    within = instant.astimezone(UTC).replace(microsecond=0)  # clocks jump at whole seconds
    if start.astimezone(zone).utcoffset() != offset:
        start = transition_between(start, within, zone)
    if (end - _SECOND).astimezone(zone).utcoffset() != offset:
        end = transition_between(within, end - _SECOND, zone)
    # The offset tells the two hours of an autumn night apart.
    label = f"{begun:%Y-%m-%dT%H:%M}{local:%z}"
    return Period(label=label, start=start, end=end, zone=zone)
