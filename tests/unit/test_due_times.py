"""When schedules are due: on ordinary days, where clocks change, and at the ends of months."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from itertools import islice, pairwise, takewhile
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest
from batchwork_server.domain.due_times import DueRule, DueTime, due_times, start_time
from batchwork_server.domain.schedule import (
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
    Weekday,
    Weekly,
)
from hypothesis import given
from hypothesis import strategies as st

CREATED = datetime(2026, 1, 1, 12, tzinfo=UTC)
YEARS = range(2015, 2035)
ZONES = sorted(available_timezones() - {"localtime"})


def due(
    schedule: Schedule | Cadence, after: str, *, count: int = 3, zone: str = "UTC", **options: Any
) -> list[DueTime]:
    if not isinstance(schedule, Schedule):
        schedule = Schedule(cadence=schedule, **options)
    start = datetime.fromisoformat(after).replace(tzinfo=UTC)
    return list(islice(due_times(schedule, zone=zone, after=start, created=CREATED), count))


def shown(found: list[DueTime], zone: str) -> list[str]:
    """Returns local times with their offsets, as a person would read them off a clock."""
    return [
        " ".join((f"{item.instant.astimezone(ZoneInfo(zone)):%m-%d %H:%M%z}", *item.rules))
        for item in found
    ]


def test_a_due_time_at_the_very_instant_is_over():
    first, second, _ = due(Daily(at=time(9)), "2026-01-01T09:00")

    assert first.instant == datetime(2026, 1, 2, 9, tzinfo=UTC)
    assert second.instant == datetime(2026, 1, 3, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    "cadence, expected",
    [
        pytest.param(
            Hourly(minute=15),
            ["01-01 00:15+0000", "01-01 01:15+0000", "01-01 02:15+0000"],
            id="hourly",
        ),
        pytest.param(
            Weekly(days=(Weekday.MONDAY, Weekday.THURSDAY), at=time(15, 30)),
            ["01-01 15:30+0000", "01-05 15:30+0000", "01-08 15:30+0000"],
            id="weekly on two days",
        ),
        pytest.param(
            Biweekly(days=(Weekday.THURSDAY,), at=time(9), anchor_date=date(2025, 12, 22)),
            ["01-08 09:00+0000", "01-22 09:00+0000", "02-05 09:00+0000"],
            id="biweekly, by the week of its anchor",
        ),
        pytest.param(
            Biweekly(days=(Weekday.THURSDAY,), at=time(9)),
            ["01-01 09:00+0000", "01-15 09:00+0000", "01-29 09:00+0000"],
            id="biweekly, by the week in which it was created",
        ),
        pytest.param(
            Monthly(day_of_month=31, at=time(9)),
            ["01-31 09:00+0000", "02-28 09:00+0000 MONTH_END", "03-31 09:00+0000"],
            id="day 31 is the last of a short month",
        ),
        pytest.param(
            Monthly(day_of_month=31, at=time(9), month_end=MonthEnd.SKIP),
            ["01-31 09:00+0000", "03-31 09:00+0000", "05-31 09:00+0000"],
            id="day 31 skips a short month when that is wanted",
        ),
        pytest.param(
            Monthly(day_of_month=-1, at=time(9)),
            ["01-31 09:00+0000", "02-28 09:00+0000", "03-31 09:00+0000"],
            id="the last day is not a rule that was applied",
        ),
        pytest.param(
            Cron(expression="*/30 8 * * mon-fri"),
            ["01-01 08:00+0000", "01-01 08:30+0000", "01-02 08:00+0000"],
            id="cron",
        ),
        pytest.param(
            Cron(expression="0 0 13 * fri"),
            ["01-02 00:00+0000", "01-09 00:00+0000", "01-13 00:00+0000"],
            id="cron with both kinds of day: one is enough",
        ),
    ],
)
def test_each_cadence_is_due_when_it_says(cadence: Cadence, expected: list[str]):
    assert shown(due(cadence, "2026-01-01"), "UTC") == expected


def test_a_day_that_few_years_have_is_found():
    found = due(Cron(expression="0 9 29 2 *"), "2096-03-01", count=2)

    assert [item.instant.year for item in found] == [2104, 2108], "2100 is no leap year"


@pytest.mark.parametrize(
    "zone, at, after, expected",
    [
        pytest.param(
            "Europe/Berlin",
            time(2, 30),
            "2026-03-28T12:00",
            ["03-29 03:00+0200 GAP", "03-30 02:30+0200"],
            id="Berlin in spring",
        ),
        pytest.param(
            "Europe/Berlin",
            time(2, 30),
            "2026-10-24T12:00",
            ["10-25 02:30+0200 FOLD", "10-26 02:30+0100"],
            id="Berlin in autumn",
        ),
        pytest.param(
            "America/New_York",
            time(2, 30),
            "2026-03-07T12:00",
            ["03-08 03:00-0400 GAP", "03-09 02:30-0400"],
            id="New York in spring",
        ),
        pytest.param(
            "America/New_York",
            time(1, 30),
            "2026-10-31T12:00",
            ["11-01 01:30-0400 FOLD", "11-02 01:30-0500"],
            id="New York in autumn",
        ),
        pytest.param(
            "Australia/Lord_Howe",
            time(2, 15),
            "2026-10-03T00:00",
            ["10-04 02:30+1100 GAP", "10-05 02:15+1100"],
            id="Lord Howe in spring, by half an hour",
        ),
        pytest.param(
            "Australia/Lord_Howe",
            time(1, 45),
            "2026-04-04T00:00",
            ["04-05 01:45+1100 FOLD", "04-06 01:45+1030"],
            id="Lord Howe in autumn, by half an hour",
        ),
        pytest.param(
            "Pacific/Apia",
            time(9),
            "2011-12-29T20:00",
            ["12-31 00:00+1400 GAP", "12-31 09:00+1400"],
            id="a whole day that Samoa never had",
        ),
        pytest.param(
            "America/Asuncion",
            time(0),
            "2023-09-30T12:00",
            ["10-01 01:00-0300 GAP", "10-02 00:00-0300"],
            id="a midnight that is left out",
        ),
    ],
)
def test_a_daily_time_is_due_once_where_the_clocks_change(
    zone: str, at: time, after: str, expected: list[str]
):
    assert shown(due(Daily(at=at), after, count=2, zone=zone), zone) == expected


def test_a_gap_can_be_skipped_and_a_fold_used_the_second_time_or_both_times():
    daily, zone = Daily(at=time(2, 30)), "Europe/Berlin"

    skipped = due(daily, "2026-03-28T12:00", count=1, zone=zone, on_gap=OnGap.SKIP)
    second = due(daily, "2026-10-24T12:00", count=1, zone=zone, on_fold=OnFold.SECOND)
    both = due(daily, "2026-10-24T12:00", count=2, zone=zone, on_fold=OnFold.BOTH)

    assert shown(skipped, zone) == ["03-30 02:30+0200"]
    assert shown(second, zone) == ["10-25 02:30+0100 FOLD"]
    assert shown(both, zone) == ["10-25 02:30+0200 FOLD", "10-25 02:30+0100 FOLD"]


def test_two_times_in_one_gap_are_due_once():
    found = due(Cron(expression="10,40 2 * * *"), "2026-03-28T12:00", zone="Europe/Berlin")

    assert shown(found, "Europe/Berlin") == [
        "03-29 03:00+0200 GAP",
        "03-30 02:10+0200",
        "03-30 02:40+0200",
    ]


def test_hours_that_pass_are_counted_whatever_the_clock_shows():
    hourly, cron = Hourly(minute=30), Cron(expression="30 * * * *")

    autumn = due(hourly, "2026-10-25T00:00", zone="Europe/Berlin")

    assert shown(autumn, "Europe/Berlin") == [
        "10-25 02:30+0200",
        "10-25 02:30+0100",
        "10-25 03:30+0100",
    ]
    assert autumn == due(cron, "2026-10-25T00:00", zone="Europe/Berlin")


def test_a_time_of_the_day_before_comes_after_midnight_where_the_clock_goes_back_over_it():
    found = due(
        Cron(expression="0,30 0,23 * * *"),
        "2010-11-07T02:00",
        count=4,
        zone="America/St_Johns",
        on_fold=OnFold.SECOND,
    )

    instants = [item.instant for item in found]
    assert instants == sorted(instants)
    assert shown(found, "America/St_Johns") == [
        "11-06 23:30-0330 FOLD",
        "11-07 00:00-0330 FOLD",
        "11-07 00:30-0330",
        "11-07 23:00-0330",
    ]


def test_nothing_is_due_before_the_start_after_the_end_or_on_an_excluded_day():
    schedule = Schedule(
        cadence=Daily(at=time(9)),
        start_date=date(2026, 2, 1),
        end_date=date(2026, 2, 4),
        excluded_dates=(date(2026, 2, 2),),
    )
    hourly = Schedule(
        cadence=Hourly(), start_date=date(2026, 2, 1), end_date=date(2026, 2, 1), time_zone="UTC"
    )

    found = due(schedule, "2026-01-01", count=10)

    assert shown(found, "UTC") == ["02-01 09:00+0000", "02-03 09:00+0000", "02-04 09:00+0000"]
    assert len(due(hourly, "2026-01-01", count=100)) == 24
    assert due(schedule, "2026-03-01") == []


def test_the_spread_is_the_same_everywhere_and_within_its_bound():
    instants = [item.instant for item in due(Hourly(), "2026-01-01", count=200)]
    jitter = timedelta(minutes=10)

    spread = [start_time(instant, key="a job", jitter=jitter) - instant for instant in instants]

    assert spread == [start_time(i, key="a job", jitter=jitter) - i for i in instants]
    assert spread != [start_time(i, key="another", jitter=jitter) - i for i in instants]
    assert all(timedelta(0) <= delay < jitter for delay in spread)
    assert len(set(spread)) > 100
    assert start_time(instants[0], key="a job", jitter=timedelta(0)) == instants[0]


# Every IANA zone and every transition of twenty years


@cache
def transitions(zone: str) -> tuple[datetime, ...]:
    """Returns the first instant after each change of a zone's offset."""
    local = ZoneInfo(zone)
    found = []
    day = datetime(YEARS[0], 1, 1, tzinfo=UTC)
    while day.year <= YEARS[-1]:
        following = day + timedelta(days=1)
        if day.astimezone(local).utcoffset() != following.astimezone(local).utcoffset():
            found.append(_change(day, following, local))
        day = following
    return tuple(found)


def _change(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    wanted = after.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + timedelta(seconds=(after - before).total_seconds() // 2)
        if middle.astimezone(zone).utcoffset() == wanted:
            after = middle
        else:
            before = middle
    return after


@pytest.mark.parametrize("zone", ZONES)
def test_each_local_time_of_a_day_is_due_once_around_every_transition(zone: str):
    for change in transitions(zone):
        at, rule = in_the_middle_of(change, ZoneInfo(zone))
        found = due_within_two_days(Daily(at=at), zone, change)

        assert {rule for item in found for rule in item.rules} == {rule}
        for earlier, later in pairwise(found):
            assert later.slot - earlier.slot == timedelta(days=1)
            assert later.instant > earlier.instant
        for item in found:
            shows = item.instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
            if DueRule.GAP in item.rules:
                assert item.instant == change, "at the first instant after the gap"
                assert shows > item.slot
            else:
                assert shows == item.slot


def in_the_middle_of(change: datetime, zone: ZoneInfo) -> tuple[time, DueRule]:
    """Returns a local time that a change leaves out or shows twice, and which of the two."""
    old, new = (
        moment.astimezone(zone).replace(tzinfo=None)
        for moment in (change - timedelta(seconds=1), change)
    )
    shift = new - old - timedelta(seconds=1)
    wall = new - shift / 2
    rule = DueRule.GAP if shift > timedelta(0) else DueRule.FOLD
    return wall.time().replace(second=0, microsecond=0), rule


def due_within_two_days(cadence: Cadence, zone: str, change: datetime) -> list[DueTime]:
    begin, end = change - timedelta(days=2), change + timedelta(days=2)
    found = due_times(Schedule(cadence=cadence), zone=zone, after=begin, created=CREATED)
    return list(takewhile(lambda item: item.instant <= end, found))


@given(
    zone=st.sampled_from(ZONES),
    cadence=st.one_of(
        st.builds(Hourly, minute=st.integers(0, 59)),
        st.builds(Daily, at=st.times().map(lambda at: at.replace(second=0, microsecond=0))),
        st.builds(
            Monthly,
            day_of_month=st.integers(1, 31) | st.just(-1),
            at=st.just(time(2, 30)),
            month_end=st.sampled_from(MonthEnd),
        ),
        st.builds(
            Cron, expression=st.sampled_from(["*/7 1-3 * * *", "5 */6 1,15 * 1", "0 * * * 0"])
        ),
    ),
    on_gap=st.sampled_from(OnGap),
    on_fold=st.sampled_from(OnFold),
    after=st.integers(0, 20 * 365 * 86_400).map(
        lambda seconds: datetime(YEARS[0], 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    ),
    skip=st.integers(0, 8),
)
def test_the_due_times_do_not_depend_on_when_one_asks(
    zone: str,
    cadence: Cadence,
    on_gap: OnGap,
    on_fold: OnFold,
    after: datetime,
    skip: int,
):
    schedule = Schedule(cadence=cadence, on_gap=on_gap, on_fold=on_fold)

    def ask(moment: datetime, count: int) -> list[DueTime]:
        return list(islice(due_times(schedule, zone=zone, after=moment, created=CREATED), count))

    found = ask(after, 10)

    assert len(found) == 10
    assert all(earlier.instant < later.instant for earlier, later in pairwise(found))
    assert all(item.instant > after for item in found)
    assert ask(found[skip].instant, 9 - skip) == found[skip + 1 :]
    assert ask(found[skip].instant - timedelta(microseconds=1), 1) == [found[skip]]
