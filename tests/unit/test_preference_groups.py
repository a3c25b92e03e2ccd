"""What comes of a wish with the defaults, and which period an instant lies in."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise

import pytest
from batchwork_server.domain.due_times import due_times
from batchwork_server.domain.preference_groups import (
    JobTimes,
    Origin,
    effective_schedule,
    period_of,
    schedule_of_text,
    schedule_text,
)
from batchwork_server.domain.schedule import (
    Biweekly,
    Cadence,
    Cron,
    Daily,
    Hourly,
    Monthly,
    Schedule,
    Weekday,
    Weekly,
)

BERLIN = "Europe/Berlin"
CREATED = datetime(2026, 3, 4, 23, 30, tzinfo=UTC)
NINE = time(9)


def daily(zone: str | None = None, at: time = NINE) -> Schedule:
    return Schedule(cadence=Daily(at=at), time_zone=zone)


@pytest.mark.parametrize(
    "schedule",
    [
        None,
        daily(),
        Schedule(cadence=Weekly(days=(Weekday.MONDAY,), at=NINE), time_zone=BERLIN),
        Schedule(cadence=Biweekly(days=(Weekday.MONDAY,), at=NINE, anchor_date=date(2026, 3, 2))),
        Schedule(cadence=Monthly(day_of_month=31, at=NINE), jitter=timedelta(minutes=5)),
    ],
    ids=["none", "daily", "weekly in a zone", "anchored", "with jitter"],
)
def test_the_text_of_a_schedule_reads_as_the_same_schedule(schedule: Schedule | None) -> None:
    assert schedule_of_text(schedule_text(schedule)) == schedule


def test_text_that_is_no_schedule_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        schedule_of_text('{"frequency": "never"}')


@pytest.mark.parametrize(
    ("wished", "default", "of_job", "job_zone", "expected"),
    [
        pytest.param(
            daily("Asia/Tokyo"),
            daily(BERLIN),
            daily("America/Lima"),
            "Africa/Cairo",
            (NINE, Origin.USER, "Asia/Tokyo", Origin.USER),
            id="the user's own",
        ),
        pytest.param(
            daily(),
            daily(BERLIN, time(7)),
            daily("America/Lima"),
            "Africa/Cairo",
            (NINE, Origin.USER, BERLIN, Origin.TENANT_DEFAULT),
            id="the zone of the tenant's default",
        ),
        pytest.param(
            daily(),
            daily(None, time(7)),
            daily("America/Lima"),
            "Africa/Cairo",
            (NINE, Origin.USER, "Africa/Cairo", Origin.JOB_DEFAULT),
            id="the zone of the job's schedule",
        ),
        pytest.param(
            None,
            None,
            daily("America/Lima", time(8)),
            "Africa/Cairo",
            (time(8), Origin.JOB_DEFAULT, "America/Lima", Origin.JOB_DEFAULT),
            id="the job's default",
        ),
        pytest.param(
            None,
            daily(None, time(7)),
            None,
            None,
            (time(7), Origin.TENANT_DEFAULT, "Europe/Paris", Origin.SERVER),
            id="the server's zone",
        ),
    ],
)
def test_each_part_of_a_schedule_comes_from_the_first_who_says_it(
    wished: Schedule | None,
    default: Schedule | None,
    of_job: Schedule | None,
    job_zone: str | None,
    expected: tuple[time, Origin, str, Origin],
) -> None:
    job = JobTimes(create_time=CREATED, schedule=of_job, time_zone=job_zone)

    found = effective_schedule(wished, default=default, job=job, server_zone="Europe/Paris")

    assert found is not None
    assert isinstance(found.schedule.cadence, Daily)
    at = found.schedule.cadence.at
    assert (at, found.origin, found.time_zone, found.zone_origin) == expected


def test_without_any_schedule_there_is_none() -> None:
    job = JobTimes(create_time=CREATED)

    assert effective_schedule(None, default=None, job=job, server_zone="UTC") is None


def test_two_weeks_are_counted_from_the_local_day_on_which_the_job_was_created() -> None:
    wished = Schedule(cadence=Biweekly(days=(Weekday.MONDAY,), at=NINE), time_zone=BERLIN)

    found = effective_schedule(
        wished, default=None, job=JobTimes(create_time=CREATED), server_zone="UTC"
    )

    assert found is not None
    assert isinstance(found.schedule.cadence, Biweekly)
    assert found.schedule.cadence.anchor_date == date(2026, 3, 5)


ANCHORED = Biweekly(days=(Weekday.MONDAY,), at=NINE, anchor_date=date(2026, 3, 4))


@pytest.mark.parametrize(
    ("cadence", "instant", "label", "start", "end"),
    [
        pytest.param(
            Daily(at=NINE),
            "2026-03-29T10:00+02:00",
            "2026-03-29",
            "2026-03-29T00:00+01:00",
            "2026-03-30T00:00+02:00",
            id="a day of 23 hours",
        ),
        pytest.param(
            Daily(at=NINE),
            "2026-10-25T23:59+01:00",
            "2026-10-25",
            "2026-10-25T00:00+02:00",
            "2026-10-26T00:00+01:00",
            id="a day of 25 hours",
        ),
        pytest.param(
            Weekly(days=(Weekday.MONDAY,), at=NINE),
            "2027-01-03T12:00+01:00",
            "2026-W53",
            "2026-12-28T00:00+01:00",
            "2027-01-04T00:00+01:00",
            id="an ISO week over New Year",
        ),
        pytest.param(
            ANCHORED,
            "2026-03-15T12:00+01:00",
            "2026-W10/2",
            "2026-03-02T00:00+01:00",
            "2026-03-16T00:00+01:00",
            id="the second of two weeks",
        ),
        pytest.param(
            ANCHORED,
            "2026-03-01T12:00+01:00",
            "2026-W08/2",
            "2026-02-16T00:00+01:00",
            "2026-03-02T00:00+01:00",
            id="two weeks before the anchor",
        ),
        pytest.param(
            Monthly(day_of_month=1, at=NINE),
            "2026-12-31T23:30+01:00",
            "2026-12",
            "2026-12-01T00:00+01:00",
            "2027-01-01T00:00+01:00",
            id="a month at the end of the year",
        ),
        pytest.param(
            Hourly(minute=30),
            "2026-10-25T02:30+02:00",
            "2026-10-25T02:00+0200",
            "2026-10-25T02:00+02:00",
            "2026-10-25T02:00+01:00",
            id="the first of two hours",
        ),
        pytest.param(
            Hourly(minute=30),
            "2026-10-25T02:30+01:00",
            "2026-10-25T02:00+0100",
            "2026-10-25T02:00+01:00",
            "2026-10-25T03:00+01:00",
            id="the second of two hours",
        ),
        pytest.param(
            Cron(expression="0 9 * * 1"),
            "2026-03-30T09:00+02:00",
            "2026-03-30",
            "2026-03-30T00:00+02:00",
            "2026-03-31T00:00+02:00",
            id="cron once a day",
        ),
        pytest.param(
            Cron(expression="*/5 * * * *"),
            "2026-03-30T09:10:30.5+02:00",
            "2026-03-30T09:10+0200",
            "2026-03-30T09:10+02:00",
            "2026-03-30T09:11+02:00",
            id="cron each five minutes",
        ),
    ],
)
def test_an_instant_lies_in_a_local_period(
    cadence: Cadence, instant: str, label: str, start: str, end: str
) -> None:
    period = period_of(Schedule(cadence=cadence), BERLIN, datetime.fromisoformat(instant))

    assert period.label == label
    assert period.start == datetime.fromisoformat(start)
    assert period.end == datetime.fromisoformat(end)


def test_an_hour_that_the_clock_cuts_in_half_ends_there() -> None:
    # On Lord Howe Island the clock goes back by half an hour, from 02:00 to 01:30.
    before, after = (
        datetime.fromisoformat(f"2026-04-05T01:45{offset}") for offset in ("+11:00", "+10:30")
    )
    hourly = Schedule(cadence=Hourly(minute=45))

    first, second = (period_of(hourly, "Australia/Lord_Howe", each) for each in (before, after))

    assert (first.start, first.end) == (before - timedelta(minutes=45), second.start)
    assert second.end - second.start == timedelta(minutes=30)
    assert first.label != second.label


@pytest.mark.parametrize("zone", ["UTC", BERLIN, "America/St_Johns", "Australia/Lord_Howe"])
@pytest.mark.parametrize(
    "cadence",
    [
        Hourly(minute=15),
        Daily(at=time(2, 30)),
        Weekly(days=(Weekday.SUNDAY,), at=time(2, 30)),
        ANCHORED,
        Monthly(day_of_month=31, at=time(0, 5)),
        Cron(expression="30 2 * * *"),
        Cron(expression="30 1,2,3 * * *"),
        Cron(expression="*/20 * * * *"),
    ],
    ids=lambda cadence: type(cadence).__name__,
)
def test_no_two_due_times_of_a_schedule_lie_in_one_period(cadence: Cadence, zone: str) -> None:
    schedule = Schedule(cadence=cadence, time_zone=zone)
    found = due_times(schedule, zone=zone, after=datetime(2026, 3, 20, tzinfo=UTC), created=CREATED)

    periods = []
    for _, due in zip(range(1500), found, strict=False):
        period = period_of(schedule, "UTC", due.instant)
        assert period.start <= due.instant < period.end
        periods.append(period)

    assert len({period.label for period in periods}) == len(periods)
    assert all(one.end <= two.start for one, two in pairwise(periods))
