"""Durations in Go's notation."""

from __future__ import annotations

from datetime import timedelta

import pytest
from batchwork_server.domain.durations import parse_duration, render_duration
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("30", 30),
        ("0.5", 0.5),
        ("30m", 1800),
        ("1h30m", 5400),
        ("5m30s", 330),
        ("250ms", 0.25),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("100us", 0.0001),
        ("100µs", 0.0001),
        (" 30s ", 30),
    ],
)
def test_seconds_and_units_are_read(text: str, seconds: float):
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    ["", "soon", "-5s", "5 m", "5d", "m", "5m30", "1h30", "1e3", "nan", "٣s", "9" * 60 + "h"],
)
def test_what_is_no_duration_is_not_guessed(text: str):
    assert parse_duration(text) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.25, "250ms"),
        (1.5, "1.5s"),
        (59.9996, "1m0s"),
        (330, "5m30s"),
        (3600, "1h0m0s"),
        (90061, "25h1m1s"),
    ],
)
def test_a_duration_is_written_like_in_the_documents(seconds: float, text: str):
    assert render_duration(timedelta(seconds=seconds)) == text


@given(st.integers(0, 10**11))
def test_what_is_written_is_read_back(milliseconds: int):
    duration = timedelta(milliseconds=milliseconds)

    assert parse_duration(render_duration(duration)) == duration
