"""What a user can wish for, and what is refused."""

from __future__ import annotations

from datetime import time
from typing import Any

import pytest
from batchwork_server.domain.preference import (
    MAX_OVERRIDES_BYTES,
    Wish,
    check_key,
    check_wish,
    parse_wish,
)
from batchwork_server.domain.schedule import (
    Biweekly,
    Daily,
    Hourly,
    Monthly,
    Schedule,
    Weekday,
    Weekly,
)

PATH = "$.default_preferences"


@pytest.mark.parametrize(
    "document, cadence",
    [
        pytest.param({"frequency": "hourly", "minute": 5}, Hourly(minute=5), id="hourly"),
        pytest.param(
            {"frequency": "daily", "preferred_time": "09:00"}, Daily(at=time(9)), id="daily"
        ),
        pytest.param(
            {"frequency": "weekly", "preferred_day": "monday", "preferred_time": "10:00"},
            Weekly(days=(Weekday.MONDAY,), at=time(10)),
            id="weekly",
        ),
        pytest.param(
            {"frequency": "biweekly", "preferred_day": "Friday", "preferred_time": "10:00"},
            Biweekly(days=(Weekday.FRIDAY,), at=time(10)),
            id="biweekly",
        ),
        pytest.param(
            {"frequency": "monthly", "preferred_day": 31, "preferred_time": "10:00"},
            Monthly(day_of_month=31, at=time(10)),
            id="monthly",
        ),
    ],
)
def test_each_frequency_is_read(document: dict[str, Any], cadence: Any) -> None:
    assert parse_wish(document, path=PATH) == (Wish(schedule=Schedule(cadence=cadence)), [])


def test_a_wish_without_a_frequency_has_no_schedule() -> None:
    document = {"enabled": False, "template_overrides": {"tone": "casual"}}

    wish, violations = parse_wish(document, path=PATH)

    assert violations == []
    assert wish == Wish(enabled=False, template_overrides={"tone": "casual"})


@pytest.mark.parametrize(
    "document, path",
    [
        pytest.param([], PATH, id="no object"),
        pytest.param({"enabled": "yes"}, f"{PATH}.enabled", id="enabled is text"),
        pytest.param({"preferred_time": "09:00"}, f"{PATH}.frequency", id="time, no frequency"),
        pytest.param({"frequency": "daily"}, f"{PATH}.preferred_time", id="no time"),
        pytest.param(
            {"frequency": "monthly", "preferred_day": "monday", "preferred_time": "10:00"},
            f"{PATH}.preferred_day",
            id="a weekday in a month",
        ),
        pytest.param(
            {
                "frequency": "weekly",
                "preferred_day": ["monday", "friday"],
                "preferred_time": "10:00",
            },
            f"{PATH}.preferred_day",
            id="two days of the week",
        ),
        pytest.param({"template_overrides": []}, f"{PATH}.template_overrides", id="a list"),
        pytest.param({"frequencey": "daily"}, f"{PATH}.frequencey", id="unknown field"),
        pytest.param({"at": "09:00"}, f"{PATH}.at", id="spelled as in a job"),
    ],
)
def test_what_is_wrong_is_told_with_its_path(document: Any, path: str) -> None:
    wish, violations = parse_wish(document, path=PATH)

    assert wish is None
    assert [violation.path for violation in violations] == [path]


@pytest.mark.parametrize("cadence", [Weekly, Biweekly])
def test_a_wish_names_one_day_of_the_week(cadence: Any) -> None:
    days = (Weekday.MONDAY, Weekday.FRIDAY)
    wish = Wish(schedule=Schedule(cadence=cadence(days=days, at=time(9))))

    [violation] = check_wish(wish, path="preference")

    assert violation.path == "preference.schedule"


def test_overrides_are_bounded_as_json() -> None:
    frame = len('{"text":""}')
    fits = Wish(template_overrides={"text": "x" * (MAX_OVERRIDES_BYTES - frame)})
    too_large = Wish(template_overrides={"text": "x" * (MAX_OVERRIDES_BYTES - frame + 1)})

    assert check_wish(fits, path="preference") == []
    [violation] = check_wish(too_large, path="preference")

    assert violation.path == "preference.template_overrides"
    assert str(MAX_OVERRIDES_BYTES) in violation.message


@pytest.mark.parametrize(
    "overrides",
    [{"text": "\x00"}, {"text": "\ud800"}, {"n": float("inf")}, {"n": 2**63}],
    ids=["null character", "half a surrogate pair", "infinite", "beyond 64 bits"],
)
def test_overrides_that_no_database_can_hold_are_refused(overrides: dict[str, Any]) -> None:
    [violation] = check_wish(Wish(template_overrides=overrides), path="preference")

    assert violation.path.startswith("preference.template_overrides.")


def test_overrides_that_are_nested_without_end_are_refused() -> None:
    overrides: dict[str, Any] = {}
    for _ in range(2000):
        overrides = {"deeper": overrides}

    [violation] = check_wish(Wish(template_overrides=overrides), path="preference")

    assert "deep" in violation.message


def test_a_preference_is_found_by_names_of_one_line() -> None:
    violations = check_key("", "a\nb", path="preference")

    assert [violation.path for violation in violations] == [
        "preference.user_id",
        "preference.feature_type",
    ]
    assert check_key("user_1", "instagram_posts", path="preference") == []
