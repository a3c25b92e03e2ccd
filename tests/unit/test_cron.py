"""Cron expressions: what is read, and what is refused with which words."""

from __future__ import annotations

import re
from datetime import date

import pytest
from batchwork_server.domain.cron import parse_cron


@pytest.mark.parametrize(
    "text, minutes, hours",
    [
        pytest.param("5 4 * * *", (5,), (4,), id="one of each"),
        pytest.param("*/20 8-10 * * *", (0, 20, 40), (8, 9, 10), id="steps and ranges"),
        pytest.param("50/5 0,12 * * *", (50, 55), (0, 12), id="a step from a start, a list"),
        pytest.param("1-9/4,30 23 * * *", (1, 5, 9, 30), (23,), id="a step in a range"),
    ],
)
def test_minutes_and_hours_are_read(text: str, minutes: tuple[int, ...], hours: tuple[int, ...]):
    expression = parse_cron(text)

    assert (expression.minutes, expression.hours) == (minutes, hours)


def test_names_are_read_and_sunday_has_two_numbers():
    assert parse_cron("0 0 * JAN-mar sun").months == {1, 2, 3}
    assert parse_cron("0 0 * * sun") == parse_cron("0 0 * * 7") == parse_cron("0 0 * * 0")
    assert parse_cron("0 0 * * 5-7").days_of_week == {5, 6, 0}


@pytest.mark.parametrize(
    "text, allowed",
    [
        ("0 0 13 * *", ["2026-02-13", "2026-03-13"]),
        ("0 0 * 2 5", ["2026-02-06", "2026-02-13"]),
        ("0 0 13 * 6", ["2026-02-07", "2026-02-13", "2026-02-14"]),
        ("0 0 */15 * 0", ["2026-02-01"]),
    ],
)
def test_days_are_allowed_by_one_kind_or_by_either_when_both_are_restricted(
    text: str, allowed: list[str]
):
    expression = parse_cron(text)
    days = [date(2026, 2, day) for day in range(1, 15)] + [date(2026, 3, 13)]

    found = [day.isoformat() for day in days if expression.allows(day)]

    assert [day for day in found if day in allowed] == allowed
    assert date(2026, 2, 3) not in [day for day in days if expression.allows(day)]


@pytest.mark.parametrize(
    "text, words",
    [
        ("0 0 * *", "it has 4 fields"),
        ("0 0 * * * *", "it has 6 fields"),
        ("60 0 * * *", "'60' is no minute; it goes from 0 to 59"),
        ("0 24 * * *", "'24' is no hour"),
        ("0 0 0 * *", "'0' is no day of month"),
        ("0 0 * 13 *", "'13' is no month"),
        ("0 0 * foo *", "'foo' is no month"),
        ("0 0 * * 8", "'8' is no day of week"),
        ("0 0 * * sat-mon", "a range goes up"),
        ("*/0 0 * * *", "a step is not 0"),
        ("1, 0 * * *", "'' is no minute"),
        ("@daily", "it has 1 fields"),
        ("0 0 30 2 *", "no month of 2 has a day 30"),
        ("0 0 31 4,6 *", "no month of 4,6 has a day 31"),
    ],
)
def test_what_is_wrong_is_named(text: str, words: str):
    with pytest.raises(ValueError, match=re.escape(words)):
        parse_cron(text)
