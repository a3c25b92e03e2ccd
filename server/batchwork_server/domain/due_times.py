"""When a schedule is due, as pure functions of the schedule, its zone and a time.

A schedule speaks of the clock on the wall. Twice a year that clock leaves times out or shows them
again, and a day 31 is not in every month; ``DueTime.rules`` says what was done about it.
"""

from __future__ import annotations

import hashlib
from calendar import monthrange
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from heapq import heappop, heappush
from typing import assert_never
from zoneinfo import ZoneInfo

from batchwork_server.domain.schedule import (
    LAST_DAY_OF_MONTH,
    Biweekly,
    Cadence,
    Cron,
    Daily,
    Hourly,
    MonthEnd,
    Monthly,
    OnFold,
    OnGap,
    Schedule,
    Weekly,
)

HORIZON = timedelta(days=9 * 366)
"""How far the next due time is looked for: the 29th of February can be eight years away."""

_SHORTEST_MONTH = 28  # days
_LAST_YEAR = 9998  # dates end with the year after it
_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)
_MINUTE = timedelta(minutes=1)


class DueRule(StrEnum):
    """What was done about a local time that is not there once."""

    GAP = "GAP"  # the clock left it out; due at the first instant after the gap
    FOLD = "FOLD"  # the clock shows it twice
    MONTH_END = "MONTH_END"  # the month is shorter; due on its last day


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class DueTime:
    """One time at which a schedule is due.

    Attributes:
        instant: In UTC; two due times of a schedule never have the same.
        slot: The local time that the schedule means, without a zone.
        rules: Sorted; none for most.
    """

    instant: datetime
    slot: datetime
    rules: tuple[DueRule, ...] = ()


def due_times(
    schedule: Schedule, *, zone: str, after: datetime, created: datetime
) -> Iterator[DueTime]:
    """Yields the due times of a schedule after an instant, in their order, as long as there are.

    Args:
        zone: For a schedule without a zone of its own.
        after: UTC-aware; a due time at this very instant is not among them.
        created: When the schedule was made; anchors a biweekly one that has no anchor date.
    """
    local = ZoneInfo(schedule.time_zone or zone)
    if _goes_by_the_minute(schedule.cadence):
        found = _by_the_minute(schedule, local, after=after)
    else:
        anchor = created.astimezone(local).date()
        found = _by_the_wall(schedule, local, after=after, anchor=anchor)
    last = None
    for due in found:
        if due.instant > after and due.instant != last:
            last = due.instant
            yield due


def start_time(due: datetime, *, key: str, jitter: timedelta) -> datetime:
    """Returns when a run begins that is spread by at most ``jitter``: the same on every server."""
    if not jitter:
        return due
    digest = hashlib.sha256(f"{key}\n{due.isoformat()}".encode()).digest()
    share = int.from_bytes(digest[:8]) / 2**64
    return due + timedelta(seconds=int(share * jitter.total_seconds()))


def _goes_by_the_minute(cadence: Cadence) -> bool:
    return isinstance(cadence, Hourly) or (isinstance(cadence, Cron) and cadence.fields.every_hour)


def _by_the_minute(schedule: Schedule, zone: ZoneInfo, *, after: datetime) -> Iterator[DueTime]:
    """Yields what is due at some minutes of every hour that passes, on the days that count."""
    minutes = _minutes_of(schedule.cadence)
    instant = after.astimezone(UTC).replace(second=0, microsecond=0)
    if schedule.start_date is not None:
        instant = max(instant, start_of_day(schedule.start_date, zone))
    found = instant
    while instant - found < HORIZON and instant.year < _LAST_YEAR:
        local = instant.astimezone(zone)
        if not _counts(schedule, local.date()):
            if schedule.end_date is not None and local.date() > schedule.end_date:
                return
            instant = max(instant + _MINUTE, start_of_day(local.date() + _DAY, zone))
            continue
        # Long ago zones were off by seconds; the minutes are those of their clocks.
        if local.second == 0 and local.minute in minutes:
            found = instant
            yield DueTime(instant=instant, slot=local.replace(tzinfo=None, fold=0))
        instant += timedelta(seconds=60 - local.second)


def _minutes_of(cadence: Cadence) -> frozenset[int]:
    match cadence:
        case Hourly(minute=minute):
            return frozenset((minute,))
        case Cron(fields=fields):
            return frozenset(fields.minutes)
        case _:
            raise TypeError(f"{cadence} goes by the wall")


def _by_the_wall(
    schedule: Schedule, zone: ZoneInfo, *, after: datetime, anchor: date
) -> Iterator[DueTime]:
    """Yields what is due at times of the clock on the wall.

    A day is looked at as a whole. Where the clock goes back over midnight, a time of the day before
    comes after the first of the next day; so what is found waits until no earlier one can come.
    """
    waiting: list[DueTime] = []
    for day in _days(schedule, zone, after=after, anchor=anchor):
        begin = start_of_day(day, zone)
        while waiting and waiting[0].instant < begin:
            yield heappop(waiting)
        for slot, rules in _slots(schedule.cadence, day):
            for due in _resolved(slot, rules, schedule, zone):
                heappush(waiting, due)
    while waiting:
        yield heappop(waiting)


def _days(schedule: Schedule, zone: ZoneInfo, *, after: datetime, anchor: date) -> Iterator[date]:
    """Yields the local days on which a schedule is due, from a little before ``after`` on."""
    day = after.astimezone(zone).date() - 2 * _DAY
    if schedule.start_date is not None:
        day = max(day, schedule.start_date)
    found = day
    while day - found < HORIZON and day.year < _LAST_YEAR:
        if schedule.end_date is not None and day > schedule.end_date:
            return
        if _counts(schedule, day) and _is_day_of(schedule.cadence, day, anchor=anchor):
            found = day
            yield day
        day += _DAY


def _counts(schedule: Schedule, day: date) -> bool:
    """Tells whether anything can be due on a day, by what bounds the schedule."""
    return (
        day not in schedule.excluded_dates
        and (schedule.start_date is None or day >= schedule.start_date)
        and (schedule.end_date is None or day <= schedule.end_date)
        and not (isinstance(schedule.cadence, Cron) and not schedule.cadence.fields.allows(day))
    )


def _is_day_of(cadence: Cadence, day: date, *, anchor: date) -> bool:
    match cadence:
        case Weekly(days=days):
            return day.isoweekday() in days
        case Biweekly(days=days, anchor_date=own):
            return day.isoweekday() in days and _weeks_between(own or anchor, day) % 2 == 0
        case Monthly(day_of_month=wanted, month_end=month_end):
            return _is_day_of_month(day, wanted, month_end)
        case Hourly() | Daily() | Cron():
            return True
        case _:
            assert_never(cadence)


def _weeks_between(first: date, second: date) -> int:
    """Counts the weeks from one day to another; a week begins on Monday (ISO 8601)."""
    mondays = [day - timedelta(days=day.weekday()) for day in (first, second)]
    return (mondays[1] - mondays[0]).days // 7


def _is_day_of_month(day: date, wanted: int, month_end: MonthEnd) -> bool:
    if day.day == wanted:
        return True
    if day.day < _SHORTEST_MONTH:
        return False
    last = monthrange(day.year, day.month)[1]
    if wanted == LAST_DAY_OF_MONTH:
        return day.day == last
    return month_end is MonthEnd.CLAMP and day.day == last < wanted


def _slots(cadence: Cadence, day: date) -> Iterator[tuple[datetime, tuple[DueRule, ...]]]:
    match cadence:
        case Cron(fields=fields):
            for hour in fields.hours:
                for minute in fields.minutes:
                    yield datetime.combine(day, time(hour, minute)), ()
        case Monthly(day_of_month=wanted, at=at) if wanted > day.day:
            yield datetime.combine(day, at), (DueRule.MONTH_END,)
        case Daily(at=at) | Weekly(at=at) | Biweekly(at=at) | Monthly(at=at):
            yield datetime.combine(day, at), ()
        case Hourly():
            raise TypeError("an hourly schedule goes by the minute")
        case _:
            assert_never(cadence)


def _resolved(
    slot: datetime, rules: tuple[DueRule, ...], schedule: Schedule, zone: ZoneInfo
) -> Iterator[DueTime]:
    """Yields when a local time is: once, and on two days of the year not at all or twice."""
    first, second = (slot.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first == second:
        yield DueTime(instant=first, slot=slot, rules=rules)
    elif first > second:
        if schedule.on_gap is OnGap.SHIFT_FORWARD:
            instant = transition_between(second, first, zone)
            yield DueTime(instant=instant, slot=slot, rules=_sorted(rules, DueRule.GAP))
    else:
        chosen = {OnFold.FIRST: (first,), OnFold.SECOND: (second,), OnFold.BOTH: (first, second)}
        for instant in chosen[schedule.on_fold]:
            yield DueTime(instant=instant, slot=slot, rules=_sorted(rules, DueRule.FOLD))


def _sorted(rules: Iterable[DueRule], added: DueRule) -> tuple[DueRule, ...]:
    return tuple(sorted({*rules, added}))


def transition_between(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """Returns the first instant at which the offset of a zone is that of ``after``."""
    wanted = after.astimezone(zone).utcoffset()
    while after - before > _SECOND:
        middle = before + timedelta(seconds=(after - before) // _SECOND // 2)
        if middle.astimezone(zone).utcoffset() == wanted:
            after = middle
        else:
            before = middle
    return after


def start_of_day(day: date, zone: ZoneInfo) -> datetime:
    """Returns the first instant of a local day, also where its midnight is left out."""
    midnight = datetime.combine(day, time())
    first, second = (midnight.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return first if first <= second else transition_between(second, first, zone)
