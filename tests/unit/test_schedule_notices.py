"""What is noticed about schedules: no zone, short months, and clocks that change."""

from __future__ import annotations

from typing import Any

import pytest
from batchwork_server.application.schedule_notices import schedule_notices
from batchwork_server.domain.job import parse_job

from tests.fakes import START


def noticed(schedule: dict[str, Any] | None, **changes: Any) -> list[tuple[str, str]]:
    """Returns the notices about a job with the schedule: the reason, and where and what."""
    fields = {"id": "job-1", "type": "individual", "category": "posts", "operation": "echo"}
    job, violations = parse_job(fields | {"schedule": schedule} | changes)
    assert job is not None, violations
    found = schedule_notices(job, path="job", zone="Europe/Berlin", now=START)
    return [(notice.reason, f"{notice.path}: {notice.message}") for notice in found]


def daily(**changes: Any) -> dict[str, Any]:
    return {"frequency": "daily", "at": "09:00", "time_zone": "Europe/Berlin"} | changes


def monthly(**changes: Any) -> dict[str, Any]:
    return daily(frequency="monthly", day_of_month=31) | changes


def cron(expression: str) -> dict[str, Any]:
    return {"frequency": "cron", "expression": expression, "time_zone": "UTC"}


@pytest.mark.parametrize(
    "schedule",
    [
        pytest.param(None, id="none"),
        pytest.param(daily(), id="an hour that every clock has"),
        pytest.param(daily(at="02:30", time_zone="UTC"), id="a clock that never changes"),
        pytest.param(monthly(day_of_month=28), id="day 28"),
        pytest.param(monthly(day_of_month=-1), id="the last day"),
        pytest.param(cron("0 9 28-31 * *"), id="cron on day 28, too"),
        pytest.param(cron("0 9 31 * 1"), id="cron on day 31 or Monday"),
        pytest.param({"frequency": "hourly", "time_zone": "Europe/Berlin"}, id="hourly"),
    ],
)
def test_nothing_is_noticed_about(schedule: dict[str, Any] | None) -> None:
    assert noticed(schedule) == []


def test_the_zone_that_is_used_instead_is_named() -> None:
    [(reason, message)] = noticed({"frequency": "daily", "at": "09:00"})

    assert reason == "NO_TIME_ZONE"
    assert message.startswith("job.schedule.time_zone: ")
    assert '"Europe/Berlin"' in message


@pytest.mark.parametrize(
    ("schedule", "done"),
    [
        pytest.param(monthly(), "due on their last day", id="clamp"),
        pytest.param(monthly(month_end="skip"), "not due in those", id="skip"),
        pytest.param(monthly(day_of_month=29), "no day 29", id="day 29"),
        pytest.param(cron("0 9 30,31 * *"), "no day 30", id="cron"),
    ],
)
def test_days_that_some_months_do_not_have_are_noticed(schedule: dict[str, Any], done: str) -> None:
    [(reason, message)] = noticed(schedule)

    assert reason == "SHORT_MONTHS"
    assert done in message


@pytest.mark.parametrize(
    ("changes", "done"),
    [
        pytest.param({}, ["out on 2026-03-29; it is due at 03:00", "the first time"], id="both"),
        pytest.param({"on_gap": "skip"}, ["twice on 2026-10-25; it is due the first"], id="fold"),
        pytest.param({"on_gap": "skip", "on_fold": "both"}, ["both times"], id="twice"),
        pytest.param({"end_date": "2026-10-01"}, ["leaves 02:30 out"], id="before the fold"),
    ],
)
def test_times_that_the_clock_does_not_show_once_are_noticed(
    changes: dict[str, str], done: list[str]
) -> None:
    found = noticed(daily(at="02:30", **changes))

    assert [reason for reason, _ in found] == ["CLOCK_CHANGE"] * len(done)
    assert all(part in message for part, (_, message) in zip(done, found, strict=True))


def test_the_schedule_of_users_goes_by_the_zone_of_the_job() -> None:
    wish = {"frequency": "daily", "preferred_time": "09:00"}
    users = {"type": "preference", "feature_type": "posts", "default_preferences": wish}

    [(_, alone)] = noticed(None, **users)
    [(_, beside)] = noticed(daily(time_zone="Asia/Tokyo"), **users)

    assert '"Europe/Berlin"' in alone
    assert beside.startswith("job.default_preferences.time_zone: ")
    assert '"Asia/Tokyo"' in beside
