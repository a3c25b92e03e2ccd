"""Schedules: what the documents may say, what is refused, and where."""

from __future__ import annotations

from datetime import date, time, timedelta
from typing import Any

import pytest
from batchwork.v1.schedule_pb2 import CronCadence
from batchwork.v1.schedule_pb2 import Schedule as ScheduleMessage
from batchwork_server.domain.schedule import (
    LAST_DAY_OF_MONTH,
    UNKNOWN_TIME_ZONE,
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
    parse_schedule,
    render_schedule,
)
from batchwork_server.errors import InvalidArgument
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.schedule_conversion import schedule_from, schedule_to
from hypothesis import given
from hypothesis import strategies as st

PATH = "$.schedule"

times = st.builds(time, st.integers(0, 23), st.integers(0, 59))
days = st.sets(st.sampled_from(Weekday), min_size=1).map(lambda some: tuple(sorted(some)))
cadences: st.SearchStrategy[Cadence] = st.one_of(
    st.builds(Hourly, minute=st.integers(0, 59)),
    st.builds(Daily, at=times),
    st.builds(Weekly, days=days, at=times),
    st.builds(Biweekly, days=days, at=times, anchor_date=st.none() | st.dates()),
    st.builds(
        Monthly,
        day_of_month=st.integers(1, 31) | st.just(LAST_DAY_OF_MONTH),
        at=times,
        month_end=st.sampled_from(MonthEnd),
    ),
    st.builds(Cron, expression=st.sampled_from(["30 2 * * 1-5", "*/5 * 1 jan sun"])),
)
schedules = st.builds(
    Schedule,
    cadence=cadences,
    time_zone=st.sampled_from([None, "UTC", "Europe/Berlin"]),
    on_gap=st.sampled_from(OnGap),
    on_fold=st.sampled_from(OnFold),
    start_date=st.none() | st.dates(max_value=date(2026, 1, 1)),
    end_date=st.none() | st.dates(min_value=date(2026, 1, 1)),
    excluded_dates=st.sets(st.dates(), max_size=3).map(lambda some: tuple(sorted(some))),
    jitter=st.timedeltas(timedelta(0), timedelta(hours=24)),
)


@given(schedules)
def test_a_written_schedule_is_read_as_an_equal_one(schedule: Schedule) -> None:
    document = render_schedule(schedule)

    assert parse_schedule(document, path=PATH) == (schedule, [])


@given(schedules)
def test_a_schedule_that_is_sent_is_read_as_an_equal_one(schedule: Schedule) -> None:
    checks = Checks()

    received = schedule_from("job.schedule", schedule_to(schedule), checks=checks)

    checks.done()
    assert received == schedule


def test_what_is_wrong_with_a_message_is_told_with_the_path_of_its_field() -> None:
    checks = Checks()
    message = ScheduleMessage(
        cron=CronCadence(expression="60 * * * *"),
        time_zone="Mars",
        on_gap=17,  # type: ignore[arg-type]
        start_date="2026-02-01",
        end_date="2026-01-01",
        excluded_dates=["soon"],
    )

    assert schedule_from("job.schedule", message, checks=checks) is None
    with pytest.raises(InvalidArgument) as refused:
        checks.done()

    assert {violation.path for violation in refused.value.violations} == {
        "job.schedule.cron.expression",
        "job.schedule.time_zone",
        "job.schedule.on_gap",
        "job.schedule.end_date",
        "job.schedule.excluded_dates",
    }


@pytest.mark.parametrize(
    "document, cadence",
    [
        pytest.param({"frequency": "hourly", "minute": 30}, Hourly(minute=30), id="half past"),
        pytest.param({"frequency": "hourly"}, Hourly(minute=0), id="on the hour by default"),
        pytest.param({"frequency": "daily", "at": "03:00"}, Daily(at=time(3)), id="daily"),
        pytest.param(
            {"frequency": "weekly", "days": ["Thursday", "Monday"], "at": "15:30"},
            Weekly(days=(Weekday.MONDAY, Weekday.THURSDAY), at=time(15, 30)),
            id="days in the order of the week",
        ),
        pytest.param(
            {"frequency": "BIWEEKLY", "days": "wednesday", "at": "09:00"},
            Biweekly(days=(Weekday.WEDNESDAY,), at=time(9)),
            id="one day without a list, capital letters do not matter",
        ),
        pytest.param(
            {
                "frequency": "biweekly",
                "days": ["Wednesday"],
                "at": "09:00",
                "anchor_date": "2024-02-29",
            },
            Biweekly(days=(Weekday.WEDNESDAY,), at=time(9), anchor_date=date(2024, 2, 29)),
            id="anchor",
        ),
        pytest.param(
            {"frequency": "monthly", "day_of_month": 1, "at": "00:15"},
            Monthly(day_of_month=1, at=time(0, 15)),
            id="monthly",
        ),
        pytest.param(
            {"frequency": "monthly", "day_of_month": -1, "at": "00:15"},
            Monthly(day_of_month=LAST_DAY_OF_MONTH, at=time(0, 15)),
            id="last day of the month",
        ),
        pytest.param(
            {"frequency": "monthly", "day_of_month": 31, "at": "00:15", "month_end": "skip"},
            Monthly(day_of_month=31, at=time(0, 15), month_end=MonthEnd.SKIP),
            id="short months are skipped",
        ),
        pytest.param(
            {"frequency": "cron", "expression": " 30  2 * * mon "},
            Cron(expression="30 2 * * mon"),
            id="cron",
        ),
        pytest.param(
            {"frequency": "daily", "at": "03:00", "days": None, "day_of_month": None},
            Daily(at=time(3)),
            id="null is absent",
        ),
    ],
)
def test_each_frequency_of_the_documents_is_read(
    document: dict[str, Any], cadence: Cadence
) -> None:
    assert parse_schedule(document, path=PATH) == (Schedule(cadence=cadence), [])


@pytest.mark.parametrize("spelling", ["time_zone", "timezone"])
def test_both_spellings_of_the_zone_are_read(spelling: str) -> None:
    document = {"frequency": "hourly", spelling: "America/New_York"}

    schedule, violations = parse_schedule(document, path=PATH)

    assert violations == []
    assert schedule == Schedule(cadence=Hourly(), time_zone="America/New_York")


@pytest.mark.parametrize(
    "document, path",
    [
        pytest.param("daily", PATH, id="no object"),
        pytest.param({}, f"{PATH}.frequency", id="no frequency"),
        pytest.param({"frequency": "yearly"}, f"{PATH}.frequency", id="unknown frequency"),
        pytest.param({"frequency": 7}, f"{PATH}.frequency", id="frequency is a number"),
        pytest.param({"frequency": "hourly", "minute": 60}, f"{PATH}.minute", id="minute 60"),
        pytest.param({"frequency": "hourly", "minute": True}, f"{PATH}.minute", id="minute true"),
        pytest.param({"frequency": "daily"}, f"{PATH}.at", id="daily without a time"),
        pytest.param({"frequency": "daily", "at": "24:00"}, f"{PATH}.at", id="24 o'clock"),
        pytest.param({"frequency": "daily", "at": "9:00"}, f"{PATH}.at", id="one digit"),
        pytest.param({"frequency": "daily", "at": "09:00:00"}, f"{PATH}.at", id="seconds"),
        pytest.param({"frequency": "daily", "at": 900}, f"{PATH}.at", id="time is a number"),
        pytest.param(
            {"frequency": "weekly", "days": [], "at": "09:00"}, f"{PATH}.days", id="no day"
        ),
        pytest.param(
            {"frequency": "weekly", "days": ["Funday"], "at": "09:00"},
            f"{PATH}.days",
            id="no such day",
        ),
        pytest.param(
            {"frequency": "weekly", "days": ["Monday", "monday"], "at": "09:00"},
            f"{PATH}.days",
            id="a day twice",
        ),
        pytest.param(
            {"frequency": "monthly", "day_of_month": 0, "at": "09:00"},
            f"{PATH}.day_of_month",
            id="day 0",
        ),
        pytest.param(
            {"frequency": "monthly", "day_of_month": 32, "at": "09:00"},
            f"{PATH}.day_of_month",
            id="day 32",
        ),
        pytest.param(
            {
                "frequency": "biweekly",
                "days": ["Monday"],
                "at": "09:00",
                "anchor_date": "2023-02-29",
            },
            f"{PATH}.anchor_date",
            id="a date that no calendar has",
        ),
        pytest.param({"frequency": "cron"}, f"{PATH}.expression", id="no expression"),
        pytest.param(
            {"frequency": "cron", "expression": "0 0 30 2 *"},
            f"{PATH}.expression",
            id="a day that never comes",
        ),
        pytest.param({"frequency": "hourly", "on_gap": "jump"}, f"{PATH}.on_gap", id="gap"),
        pytest.param({"frequency": "hourly", "on_fold": 1}, f"{PATH}.on_fold", id="fold"),
        pytest.param({"frequency": "hourly", "jitter": 86_401}, f"{PATH}.jitter", id="jitter"),
        pytest.param(
            {"frequency": "hourly", "start_date": "2026-01-02", "end_date": "2026-01-01"},
            f"{PATH}.end_date",
            id="an end before the start",
        ),
        pytest.param(
            {"frequency": "hourly", "excluded_dates": ["2026-01-01", "2026-13-01"]},
            f"{PATH}.excluded_dates",
            id="a date among others that is none",
        ),
        pytest.param(
            {"frequency": "daily", "at": "09:00", "month_end": "skip"},
            f"{PATH}.month_end",
            id="the end of a month without a month",
        ),
        pytest.param(
            {"frequency": "daily", "at": "09:00", "days": ["Monday"]},
            f"{PATH}.days",
            id="field of another frequency",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_path(document: Any, path: str) -> None:
    schedule, violations = parse_schedule(document, path=PATH)

    assert schedule is None
    assert [violation.path for violation in violations] == [path]


def test_an_unknown_zone_has_a_reason_of_its_own_and_names_the_closest() -> None:
    document = {"frequency": "hourly", "time_zone": "Europe/Berlim"}

    _, [violation] = parse_schedule(document, path=PATH)

    assert violation.reason == UNKNOWN_TIME_ZONE
    assert violation.path == f"{PATH}.time_zone"
    assert "Europe/Berlin" in violation.message


def test_an_unknown_field_names_the_known_ones() -> None:
    document = {"frequency": "daily", "at": "09:00", "att": "10:00"}

    _, [violation] = parse_schedule(document, path=PATH)

    assert violation.path == f"{PATH}.att"
    assert "did you mean `at`" in violation.message
    assert "`frequency`" in violation.message


def test_everything_that_is_wrong_is_told_at_once() -> None:
    document = {"frequency": "weekly", "days": [8], "at": "late", "timezone": "Mars", "x": 1}

    _, violations = parse_schedule(document, path=PATH)

    assert {violation.path for violation in violations} == {
        f"{PATH}.days",
        f"{PATH}.at",
        f"{PATH}.timezone",
        f"{PATH}.x",
    }
