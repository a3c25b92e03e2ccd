"""When a group runs after its schedule has become another one, and who stays a guest."""

from __future__ import annotations

from datetime import UTC, datetime, time

import pytest
from batchwork_server.domain.group_schedules import is_guest, next_due_after_change
from batchwork_server.domain.schedule import Daily, Hourly, Schedule, Weekday, Weekly

CREATED = datetime(2026, 1, 1, tzinfo=UTC)


def at(hour: int, *, day: int = 3) -> datetime:
    """Returns an hour of a day of March 2026; the third is a Tuesday."""
    return datetime(2026, 3, day, hour, tzinfo=UTC)


def daily(hour: int, zone: str = "UTC") -> Schedule:
    return Schedule(cadence=Daily(at=time(hour)), time_zone=zone)


HOURLY = Schedule(cadence=Hourly(minute=0), time_zone="UTC")
MONDAYS = Schedule(cadence=Weekly(days=(Weekday.MONDAY,), at=time(9)), time_zone="UTC")


@pytest.mark.parametrize(
    ("schedule", "before", "expected"),
    [
        pytest.param(daily(14), at(18), at(14), id="due later today by the new one"),
        pytest.param(daily(9), at(18), at(18), id="over today by the new one"),
        pytest.param(daily(9), at(18, day=4), at(9, day=4), id="the old one has none today either"),
        pytest.param(daily(9), None, at(9, day=4), id="there was none"),
        pytest.param(MONDAYS, at(18, day=6), at(18, day=6), id="over this week"),
        pytest.param(MONDAYS, at(18, day=9), at(9, day=9), id="both next week"),
        pytest.param(HOURLY, at(18), at(13), id="the hour is over, and had no old due time"),
        pytest.param(None, at(18), None, id="nobody names one any more"),
        pytest.param(
            daily(9, "Asia/Tokyo"), at(14), at(14), id="a day elsewhere, until 15 o'clock here"
        ),
        pytest.param(
            daily(9, "Asia/Tokyo"), at(18), at(0, day=4), id="tomorrow is early elsewhere"
        ),
    ],
)
def test_a_new_schedule_leaves_no_period_without_a_run(schedule, before, expected):
    found = next_due_after_change(schedule, changed=at(12), before=before, created=CREATED)

    assert found == expected


@pytest.mark.parametrize(
    ("schedule", "due", "expected"),
    [
        pytest.param(daily(9), at(18), True, id="their own time is over"),
        pytest.param(daily(14), at(18), False, id="their own time is to come"),
        pytest.param(daily(9), at(18, day=4), False, id="the group is due tomorrow"),
        pytest.param(MONDAYS, at(18, day=8), True, id="the group is due on Sunday of the week"),
        pytest.param(None, at(18), False, id="they have no time at all"),
    ],
)
def test_a_guest_would_have_no_run_in_the_period(schedule, due, expected):
    assert is_guest(schedule, moved=at(12), due=due, created=CREATED) is expected
