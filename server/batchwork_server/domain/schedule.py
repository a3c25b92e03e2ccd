"""When something is due: a cadence in local time, and the zone in which it is meant."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, time
from difflib import get_close_matches
from enum import IntEnum
from functools import cache
from typing import Any, assert_never
from zoneinfo import available_timezones

from batchwork_server.domain.json_object import FieldReader, listed, quoted, whole_number
from batchwork_server.errors import Violation

UNKNOWN_TIME_ZONE = "UNKNOWN_TIME_ZONE"

LAST_DAY_OF_MONTH = -1


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Monthly:
    """On the same day of every month, 1 to 31, or ``LAST_DAY_OF_MONTH``."""

    day_of_month: int
    at: time


Cadence = Hourly | Daily | Weekly | Biweekly | Monthly


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A cadence and its IANA zone; without a zone, that of the job or of the server."""

    cadence: Cadence
    time_zone: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSpelling:
    """How a document names the fields of a schedule that have no name of their own everywhere."""

    at: str = "at"
    days: str = "days"
    day_of_month: str = "day_of_month"

    @property
    def names(self) -> tuple[str, ...]:
        """Every field that some frequency has."""
        return ("minute", self.at, self.days, self.day_of_month, "anchor_date")


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
        fields.know(*spelling.names)
        return None
    cadence = read_cadence(fields, spelling)
    return None if cadence is None else Schedule(cadence=cadence, time_zone=time_zone)


def render_schedule(schedule: Schedule) -> dict[str, Any]:
    """Writes a schedule so that ``parse_schedule`` reads an equal one."""
    document = _render_cadence(schedule.cadence)
    if schedule.time_zone is not None:
        document["time_zone"] = schedule.time_zone
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
        case Monthly(day_of_month=day, at=at):
            return {"frequency": "monthly", "day_of_month": day, "at": _render_at(at)}
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
    anchor_date = _read_anchor_date(fields)
    if not days or at is None:
        return None
    return Biweekly(days=days, at=at, anchor_date=anchor_date)


def _read_monthly(fields: FieldReader, spelling: ScheduleSpelling) -> Monthly | None:
    day, at = _read_day_of_month(fields, spelling.day_of_month), _read_at(fields, spelling.at)
    return Monthly(day_of_month=day, at=at) if day is not None and at is not None else None


_CADENCE_READERS: dict[str, Callable[[FieldReader, ScheduleSpelling], Cadence | None]] = {
    "hourly": _read_hourly,
    "daily": _read_daily,
    "weekly": _read_weekly,
    "biweekly": _read_biweekly,
    "monthly": _read_monthly,
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


def _read_anchor_date(fields: FieldReader) -> date | None:
    value = fields.take("anchor_date")
    if value is None:
        return None
    try:
        if isinstance(value, str) and _DATE.fullmatch(value):
            return date.fromisoformat(value)
    except ValueError:
        pass  # a date that no calendar has is reported like text that is no date
    fields.refuse("anchor_date", f"{quoted(value)} is no date; write YYYY-MM-DD.")
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
_DAY_NAMES = tuple(day.name.capitalize() for day in Weekday)
_WEEKDAYS = {day.name.lower(): day for day in Weekday}
