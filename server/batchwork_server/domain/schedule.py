"""When something is due: a cadence in local time, and the zone in which it is meant."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, time, timedelta
from difflib import get_close_matches
from enum import IntEnum, StrEnum
from functools import cache, lru_cache
from typing import Any, assert_never
from zoneinfo import available_timezones

from batchwork_server.domain.cron import CronExpression, parse_cron
from batchwork_server.domain.json_object import (
    FieldReader,
    listed,
    quoted,
    seconds_of,
    whole_number,
)
from batchwork_server.errors import Violation

UNKNOWN_TIME_ZONE = "UNKNOWN_TIME_ZONE"

LAST_DAY_OF_MONTH = -1

LONGEST_JITTER = timedelta(hours=24)

MOST_EXCLUDED_DATES = 366

_LONGEST_CRON = 256


class Weekday(IntEnum):
    """A day of the week, numbered as in ISO 8601."""

    MONDAY = 1
    TUESDAY = 2
    WEDNESDAY = 3
    THURSDAY = 4
    FRIDAY = 5
    SATURDAY = 6
    SUNDAY = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Hourly:
    """Once an hour, at ``minute`` past the hour."""

    minute: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Daily:
    """Once a day."""

    at: time


@dataclass(frozen=True, slots=True, kw_only=True)
class Weekly:
    """On the same days of every week; ``days`` in the order of the week."""

    days: tuple[Weekday, ...]
    at: time


@dataclass(frozen=True, slots=True, kw_only=True)
class Biweekly:
    """On the same days of every second week.

    Attributes:
        anchor_date: A day in a week that counts; unset means the day of creation.
    """

    days: tuple[Weekday, ...]
    at: time
    anchor_date: date | None = None


class MonthEnd(StrEnum):
    """What is done about a day that a month does not have."""

    CLAMP = "CLAMP"  # due on the last day of that month
    SKIP = "SKIP"  # not due in that month


@dataclass(frozen=True, slots=True, kw_only=True)
class Monthly:
    """On the same day of every month, 1 to 31, or ``LAST_DAY_OF_MONTH``."""

    day_of_month: int
    at: time
    month_end: MonthEnd = MonthEnd.CLAMP


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """When a cron expression says so."""

    expression: str

    @property
    def fields(self) -> CronExpression:
        """What the expression allows."""
        return _parsed_cron(self.expression)


_parsed_cron = lru_cache(maxsize=1024)(parse_cron)

Cadence = Hourly | Daily | Weekly | Biweekly | Monthly | Cron


class OnGap(StrEnum):
    """What is done about a local time that the clock leaves out."""

    SHIFT_FORWARD = "SHIFT_FORWARD"  # due at the first instant after the gap
    SKIP = "SKIP"  # not due on that day


class OnFold(StrEnum):
    """What is done about a local time that the clock shows twice."""

    FIRST = "FIRST"
    SECOND = "SECOND"
    BOTH = "BOTH"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A cadence, its IANA zone, and what is done about times that are not there once.

    Attributes:
        time_zone: None means that of the job or of the server.
        on_gap: Not for a cadence that goes by the hours that pass: an hourly one, and a cron
            expression for every hour.
        on_fold: Likewise.
        start_date: Nothing is due before this local day.
        end_date: Nothing is due after this local day.
        excluded_dates: Local days on which nothing is due, sorted.
        jitter: The run of each due time begins later by up to so much.
    """

    cadence: Cadence
    time_zone: str | None = None
    on_gap: OnGap = OnGap.SHIFT_FORWARD
    on_fold: OnFold = OnFold.FIRST
    start_date: date | None = None
    end_date: date | None = None
    excluded_dates: tuple[date, ...] = ()
    jitter: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSpelling:
    """How a document names the fields of a schedule that have no name of their own everywhere."""

    at: str = "at"
    days: str = "days"
    day_of_month: str = "day_of_month"

    @property
    def names(self) -> tuple[str, ...]:
        """Every field that some frequency has."""
        return (
            *("minute", self.at, self.days, self.day_of_month, "anchor_date", "month_end"),
            "expression",
        )


_OPTIONS = ("on_gap", "on_fold", "start_date", "end_date", "excluded_dates", "jitter")


_JOB_SPELLING = ScheduleSpelling()


def parse_schedule(value: Any, *, path: str) -> tuple[Schedule | None, list[Violation]]:
    """Reads a schedule as a job has it: ``frequency`` and the fields that belong to it.

    Returns:
        The schedule, or none and every violation.
    """
    violations: list[Violation] = []
    fields = FieldReader(value, path=path, violations=violations)
    if violations:
        return None, violations
    schedule = read_schedule(fields)
    fields.refuse_unknown("this schedule")
    return (None, violations) if violations else (schedule, [])


def read_schedule(
    fields: FieldReader, *, spelling: ScheduleSpelling = _JOB_SPELLING
) -> Schedule | None:
    """Takes the fields of a schedule; none when one of them is missing or wrong.

    A field that belongs to another frequency is left for ``refuse_unknown``.
    """
    if fields.require("frequency"):
        read_cadence = fields.choice("frequency", _CADENCE_READERS)
    else:
        read_cadence = None
    time_zone = _read_time_zone(fields)
    if read_cadence is None:
        fields.know(*spelling.names, *_OPTIONS)
        return None
    cadence = read_cadence(fields, spelling)
    options = _read_options(fields)
    return None if cadence is None else Schedule(cadence=cadence, time_zone=time_zone, **options)


def render_schedule(schedule: Schedule) -> dict[str, Any]:
    """Writes a schedule so that ``parse_schedule`` reads an equal one."""
    document = _render_cadence(schedule.cadence)
    if schedule.time_zone is not None:
        document["time_zone"] = schedule.time_zone
    return document | _render_options(schedule)


def _render_options(schedule: Schedule) -> dict[str, Any]:
    """Writes what is not as it is by default."""
    document: dict[str, Any] = {}
    if schedule.on_gap is not OnGap.SHIFT_FORWARD:
        document["on_gap"] = schedule.on_gap.lower()
    if schedule.on_fold is not OnFold.FIRST:
        document["on_fold"] = schedule.on_fold.lower()
    for name in ("start_date", "end_date"):
        day: date | None = getattr(schedule, name)
        if day is not None:
            document[name] = day.isoformat()
    if schedule.excluded_dates:
        document["excluded_dates"] = [day.isoformat() for day in schedule.excluded_dates]
    if schedule.jitter:
        document["jitter"] = seconds_of(schedule.jitter)
    return document


def _render_cadence(cadence: Cadence) -> dict[str, Any]:
    match cadence:
        case Hourly(minute=minute):
            return {"frequency": "hourly", "minute": minute}
        case Daily(at=at):
            return {"frequency": "daily", "at": _render_at(at)}
        case Weekly(days=days, at=at):
            return {"frequency": "weekly", "days": _render_days(days), "at": _render_at(at)}
        case Biweekly(days=days, at=at, anchor_date=anchor):
            anchored = {} if anchor is None else {"anchor_date": anchor.isoformat()}
            return {
                "frequency": "biweekly",
                "days": _render_days(days),
                "at": _render_at(at),
                **anchored,
            }
        case Monthly(day_of_month=day, at=at, month_end=month_end):
            skipping = {} if month_end is MonthEnd.CLAMP else {"month_end": month_end.lower()}
            return {
                "frequency": "monthly",
                "day_of_month": day,
                "at": _render_at(at),
                **skipping,
            }
        case Cron(expression=expression):
            return {"frequency": "cron", "expression": expression}
        case _:
            assert_never(cadence)


def _render_at(at: time) -> str:
    return f"{at:%H:%M}"


def _render_days(days: tuple[Weekday, ...]) -> list[str]:
    return [day.name.capitalize() for day in days]


def _read_hourly(fields: FieldReader, _spelling: ScheduleSpelling) -> Hourly:
    return Hourly(minute=fields.whole("minute", least=0, most=59) or 0)


def _read_daily(fields: FieldReader, spelling: ScheduleSpelling) -> Daily | None:
    at = _read_at(fields, spelling.at)
    return None if at is None else Daily(at=at)


def _read_weekly(fields: FieldReader, spelling: ScheduleSpelling) -> Weekly | None:
    days, at = _read_days(fields, spelling.days), _read_at(fields, spelling.at)
    return Weekly(days=days, at=at) if days and at is not None else None


def _read_biweekly(fields: FieldReader, spelling: ScheduleSpelling) -> Biweekly | None:
    days, at = _read_days(fields, spelling.days), _read_at(fields, spelling.at)
    anchor_date = _read_date(fields, "anchor_date")
    if not days or at is None:
        return None
    return Biweekly(days=days, at=at, anchor_date=anchor_date)


def _read_monthly(fields: FieldReader, spelling: ScheduleSpelling) -> Monthly | None:
    day, at = _read_day_of_month(fields, spelling.day_of_month), _read_at(fields, spelling.at)
    month_end = fields.choice("month_end", _MONTH_ENDS) or MonthEnd.CLAMP
    if day is None or at is None:
        return None
    return Monthly(day_of_month=day, at=at, month_end=month_end)


def _read_cron(fields: FieldReader, _spelling: ScheduleSpelling) -> Cron | None:
    if not fields.require("expression"):
        return None
    text = fields.line("expression", longest=_LONGEST_CRON)
    if not text:
        return None
    try:
        parse_cron(text)
    except ValueError as error:
        fields.refuse("expression", f"{quoted(text)} is no cron expression: {error}.")
        return None
    return Cron(expression=" ".join(text.split()))


_CADENCE_READERS: dict[str, Callable[[FieldReader, ScheduleSpelling], Cadence | None]] = {
    "hourly": _read_hourly,
    "daily": _read_daily,
    "weekly": _read_weekly,
    "biweekly": _read_biweekly,
    "monthly": _read_monthly,
    "cron": _read_cron,
}


def _read_options(fields: FieldReader) -> dict[str, Any]:
    """Takes what goes with every cadence, by the names of ``Schedule``."""
    start_date, end_date = _read_date(fields, "start_date"), _read_date(fields, "end_date")
    if start_date is not None and end_date is not None and end_date < start_date:
        message = f'"{end_date}" is before the start date "{start_date}"; nothing is ever due.'
        fields.refuse("end_date", message)
    jitter = fields.duration("jitter", least=timedelta(0), most=LONGEST_JITTER)
    return {
        "on_gap": fields.choice("on_gap", _ON_GAP) or OnGap.SHIFT_FORWARD,
        "on_fold": fields.choice("on_fold", _ON_FOLD) or OnFold.FIRST,
        "start_date": start_date,
        "end_date": end_date,
        "excluded_dates": _read_dates(fields, "excluded_dates"),
        "jitter": jitter or timedelta(0),
    }


def _read_at(fields: FieldReader, name: str) -> time | None:
    if not fields.require(name):
        return None
    value = fields.take(name)
    if isinstance(value, str) and _TIME_OF_DAY.fullmatch(value):
        return time.fromisoformat(value)
    fields.refuse(name, f"{quoted(value)} is no time; write HH:MM, 00:00 to 23:59.")
    return None


def _read_days(fields: FieldReader, name: str) -> tuple[Weekday, ...]:
    """Reads a list of days, or the name of one."""
    if not fields.require(name):
        return ()
    value = fields.take(name)
    names = value if isinstance(value, list) else [value]
    days = [_WEEKDAYS.get(day.lower()) if isinstance(day, str) else None for day in names]
    known = {day for day in days if day is not None}
    if None in days:
        wrong = ", ".join(quoted(names[index]) for index, day in enumerate(days) if day is None)
        fields.refuse(name, f"{wrong}: no day of the week; write {listed(_DAY_NAMES)}.")
    elif not days or len(days) > len(known):
        fields.refuse(name, f"{quoted(value)}: name at least one day, and each at most once.")
    else:
        return tuple(sorted(known))
    return ()


def _read_date(fields: FieldReader, name: str) -> date | None:
    value = fields.take(name)
    if value is None:
        return None
    day = _date_of(value)
    if day is None:
        fields.refuse(name, f"{quoted(value)} is no date; write YYYY-MM-DD.")
    return day


def _read_dates(fields: FieldReader, name: str) -> tuple[date, ...]:
    values = fields.take(name)
    if values is None:
        return ()
    if not isinstance(values, list) or len(values) > MOST_EXCLUDED_DATES:
        fields.refuse(name, f"write a list of at most {MOST_EXCLUDED_DATES} dates, YYYY-MM-DD.")
        return ()
    days = [_date_of(value) for value in values]
    wrong = [quoted(value) for value, day in zip(values, days, strict=True) if day is None]
    if wrong:
        fields.refuse(name, f"{', '.join(wrong[:5])}: no date; write YYYY-MM-DD.")
    return tuple(sorted({day for day in days if day is not None}))


def _date_of(value: Any) -> date | None:
    try:
        if isinstance(value, str) and _DATE.fullmatch(value):
            return date.fromisoformat(value)
    except ValueError:
        pass  # a date that no calendar has is like text that is no date
    return None


def _read_day_of_month(fields: FieldReader, name: str) -> int | None:
    if not fields.require(name):
        return None
    value = fields.take(name)
    day = whole_number(value)
    if day is not None and (1 <= day <= 31 or day == LAST_DAY_OF_MONTH):
        return day
    fields.refuse(name, f"{quoted(value)} is no day of a month; write 1 to 31, or -1 (the last).")
    return None


def is_time_zone(name: str) -> bool:
    """Tells whether the IANA database has a zone of this name."""
    return name in _time_zones()


def _read_time_zone(fields: FieldReader) -> str | None:
    name = fields.line("time_zone", "timezone", longest=64)
    if not name or name in _time_zones():
        return name or None
    closest = get_close_matches(name, _time_zones(), n=1)
    meant = f"did you mean {quoted(closest[0])}?" if closest else "write one such as Europe/Berlin."
    fields.refuse(
        "time_zone", f"{quoted(name)} is no IANA time zone; {meant}", reason=UNKNOWN_TIME_ZONE
    )
    return None


@cache
def _time_zones() -> frozenset[str]:
    return frozenset(available_timezones())


_TIME_OF_DAY = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d", re.ASCII)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_MONTH_ENDS = {rule.lower(): rule for rule in MonthEnd}
_ON_GAP = {rule.lower(): rule for rule in OnGap}
_ON_FOLD = {rule.lower(): rule for rule in OnFold}
_DAY_NAMES = tuple(day.name.capitalize() for day in Weekday)
_WEEKDAYS = {day.name.lower(): day for day in Weekday}
