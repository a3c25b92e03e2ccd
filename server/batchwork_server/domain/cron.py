"""Cron expressions of five fields, as POSIX has them, with the names, ranges and steps of Vixie."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

EXPECTED = "write five fields: minute hour day-of-month month day-of-week, such as 30 2 * * 1-5"

_MONTHS = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1
    )
}
_DAYS = {
    name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))
}
_SUNDAY_TOO = 7  # POSIX counts Sunday as 0; everybody writes 7 as well
_LONGEST_MONTH = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    name: str
    least: int
    most: int
    names: Mapping[str, int]


_FIELDS = (
    _Field(name="minute", least=0, most=59, names={}),
    _Field(name="hour", least=0, most=23, names={}),
    _Field(name="day of month", least=1, most=31, names={}),
    _Field(name="month", least=1, most=12, names=_MONTHS),
    _Field(name="day of week", least=0, most=_SUNDAY_TOO, names=_DAYS),
)
_PART = re.compile(
    r"(?:(?P<all>\*)|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>\d{1,2}))?", re.A
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CronExpression:
    """What the five fields allow.

    Attributes:
        every_hour: The hour is ``*``: such a job runs by the minutes that pass, whatever the clocks
            on the wall do.
        either_day: Both kinds of day are restricted, and one of them is enough (POSIX crontab).
    """

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days_of_month: frozenset[int]
    months: frozenset[int]
    days_of_week: frozenset[int]
    every_hour: bool
    either_day: bool

    def allows(self, day: date) -> bool:
        """Tells whether something is due on a day."""
        if day.month not in self.months:
            return False
        of_month = day.day in self.days_of_month
        of_week = day.isoweekday() % 7 in self.days_of_week
        return of_month or of_week if self.either_day else of_month and of_week


def parse_cron(text: str) -> CronExpression:
    """Reads an expression.

    Raises:
        ValueError: it is wrong, or no day of any year is one of its days; the message says how.
    """
    parts = text.split()
    if len(parts) != len(_FIELDS):
        raise ValueError(f"it has {len(parts)} fields; {EXPECTED}")
    minutes, hours, days, months, weekdays = (
        _values(part, field) for part, field in zip(parts, _FIELDS, strict=True)
    )
    expression = CronExpression(
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days_of_month=days,
        months=months,
        days_of_week=frozenset(day % _SUNDAY_TOO for day in weekdays),
        every_hour=parts[1] == "*",
        either_day=not parts[2].startswith("*") and not parts[4].startswith("*"),
    )
    if not expression.either_day and not _some_month_has(days, months):
        raise ValueError(f"no month of {parts[3]} has a day {parts[2]}")
    return expression


def _some_month_has(days: frozenset[int], months: frozenset[int]) -> bool:
    return any(min(days) <= _LONGEST_MONTH.get(month, 31) for month in months)


def _values(text: str, field: _Field) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part.lower())
        if match is None:
            raise ValueError(f"{part!r} is no {field.name}; {EXPECTED}")
        first, last = field.least, field.most
        if not match["all"]:
            first = _number(match["first"], field)
            last = _number(match["last"], field) if match["last"] else first
            if match["step"] and not match["last"]:
                last = field.most
        step = int(match["step"] or 1)
        if step == 0 or first > last:
            raise ValueError(f"{part!r} names no {field.name}; a range goes up, a step is not 0")
        found.update(range(first, last + 1, step))
    return frozenset(found)


def _number(text: str, field: _Field) -> int:
    number = field.names.get(text)
    if number is None and text.isascii() and text.isdigit():
        number = int(text)
    if number is None or not field.least <= number <= field.most:
        raise ValueError(f"{text!r} is no {field.name}; it goes from {field.least} to {field.most}")
    return number
