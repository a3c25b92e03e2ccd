"""A user has one run at most in a period, whatever zone and cadence their schedule has by then."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta

import pytest
from batchwork_server.domain.group_schedules import next_due
from batchwork_server.domain.preference_groups import Period, period_of
from batchwork_server.domain.schedule import Cadence, Daily, Monthly, Schedule, Weekday, Weekly
from hypothesis import example, given
from hypothesis import strategies as st

from tests.factories import make_user_run

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
TOKYO, LOS_ANGELES = "Asia/Tokyo", "America/Los_Angeles"
ZONES = (TOKYO, LOS_ANGELES, "UTC", "Pacific/Kiritimati", "Pacific/Niue", "Australia/Lord_Howe")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)

Told = tuple[datetime, Period]


def lived(start: datetime, stays: Sequence[tuple[timedelta, Schedule]]) -> list[Told]:
    """Returns the runs of a user who has one schedule after the other, each for a while."""
    runs: list[Told] = []
    now = start
    for stay, schedule in stays:
        end = now + stay
        while True:
            due = next_due(schedule, now, created=CREATED)
            if due is None or due > end:
                break
            period = period_of(schedule, "UTC", due)
            if not runs or not make_user_run(*runs[-1]).is_in(period):
                runs.append((due, period))
            now = due
        now = end
    return runs


def at(hour: int) -> time:
    return time(hour)


cadences: st.SearchStrategy[Cadence] = st.one_of(
    st.builds(Daily, at=st.builds(at, st.integers(0, 23))),
    st.builds(
        Weekly, days=st.sampled_from([(day,) for day in Weekday]), at=st.builds(at, st.just(9))
    ),
    st.builds(Monthly, day_of_month=st.integers(1, 31), at=st.builds(at, st.just(9))),
)
schedules = st.builds(Schedule, cadence=cadences, time_zone=st.sampled_from(ZONES))
days = st.builds(
    Schedule,
    cadence=st.builds(Daily, at=st.builds(at, st.integers(0, 23))),
    time_zone=st.sampled_from(ZONES),
)
stays_of = st.integers(1, 60).map(lambda hours: hours * HOUR)


def daily(hour: int, zone: str) -> Schedule:
    return Schedule(cadence=Daily(at=time(hour)), time_zone=zone)


@given(stays=st.lists(st.tuples(stays_of, schedules), min_size=1, max_size=8))
@example(stays=[(12 * HOUR, daily(9, TOKYO)), (2 * DAY, daily(9, LOS_ANGELES))])
def test_no_period_of_days_has_two_runs_by_its_dates(stays: list[tuple[timedelta, Schedule]]):
    runs = lived(datetime(2026, 3, 9, 23, tzinfo=UTC), stays)

    for (due, before), (_, period) in itertools.pairwise(runs):
        assert period.first_day is not None
        assert before.day_of(due) < period.first_day
    assert len({period.label for _, period in runs}) == len(runs)


@given(stays=st.lists(st.tuples(stays_of, days), max_size=4), last=days)
def test_who_stays_in_a_zone_has_a_run_on_every_date_after_three(
    stays: list[tuple[timedelta, Schedule]], last: Schedule
):
    start = datetime(2026, 3, 9, 23, tzinfo=UTC)
    moved = start + sum((stay for stay, _ in stays), timedelta())

    runs = lived(start, [*stays, (9 * DAY, last)])

    due = [instant for instant, _ in runs if instant > moved + 3 * DAY]
    assert len(due) >= 5
    assert all(later - sooner <= 26 * HOUR for sooner, later in itertools.pairwise(due))


@pytest.mark.parametrize(
    ("first", "then", "expected"),
    [
        pytest.param(
            daily(9, TOKYO),
            daily(9, LOS_ANGELES),
            ["2026-03-10", "2026-03-11", "2026-03-12"],
            id="to the west: the date comes again, and is done",
        ),
        pytest.param(
            daily(9, LOS_ANGELES),
            daily(9, TOKYO),
            ["2026-03-10", "2026-03-11", "2026-03-12"],
            id="to the east: the next date is soon there",
        ),
    ],
)
def test_each_date_is_served_once(first: Schedule, then: Schedule, expected: list[str]):
    first_due = next_due(first, datetime(2026, 3, 9, 23, 30, tzinfo=UTC), created=CREATED)
    assert first_due is not None

    runs = lived(first_due - HOUR, [(2 * HOUR, first), (4 * DAY, then)])

    assert [period.label for _, period in runs][:3] == expected


def test_a_run_from_before_dates_were_noted_counts_by_its_instant():
    period = period_of(daily(9, "UTC"), "UTC", datetime(2026, 3, 10, 9, tzinfo=UTC))
    old = make_user_run(period.start, period)
    assert old.is_in(period)

    without = make_user_run(
        period.start,
        period,
        due_time=period.start - HOUR,
        period_start=period.start - DAY,
        due_day=None,
        period_day=None,
    )
    assert not without.is_in(period)
