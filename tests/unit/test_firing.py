"""What becomes of due times, by the policies of their job."""

from __future__ import annotations

from datetime import timedelta

import pytest
from batchwork_server.domain.firing import MAX_CAUGHT_UP, PROMPT, NextRun, decide
from batchwork_server.domain.job_policies import CatchUp, Overlap

from tests.fakes import START

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

F, C = "FIRED", "CAUGHT_UP"
MISSED, OUTSIDE, OVERLAP = "MISSED", "OUTSIDE_WINDOW", "OVERLAP"


def runs(count: int) -> list[NextRun]:
    """Returns hourly runs, the first at ``START``."""
    times = [START + number * HOUR for number in range(count)]
    return [NextRun(due_time=time, start_time=time) for time in times]


def fates(count: int, *, late: timedelta, **policies) -> list[str]:
    """Returns what becomes of hourly runs, of which the newest should have begun so long ago."""
    *up, following = runs(count + 1)
    decided = decide(up, following, now=up[-1].start_time + late, **policies)
    assert [each.run for each in decided] == up
    return [each.reason or each.decision for each in decided]


@pytest.mark.parametrize(
    ("count", "late", "catch_up", "window", "expected"),
    [
        pytest.param(1, timedelta(0), CatchUp.NONE, None, [F], id="on time"),
        pytest.param(1, PROMPT - timedelta(seconds=1), CatchUp.NONE, None, [F], id="nearly so"),
        pytest.param(1, PROMPT, CatchUp.NONE, None, [MISSED], id="late"),
        pytest.param(3, HOUR / 2, CatchUp.LATEST, DAY, [MISSED, MISSED, C], id="latest"),
        pytest.param(3, timedelta(0), CatchUp.LATEST, DAY, [MISSED, MISSED, F], id="one is due"),
        pytest.param(3, HOUR / 2, CatchUp.LATEST, None, [OUTSIDE, OUTSIDE, C], id="one period"),
        pytest.param(1, HOUR / 2, CatchUp.LATEST, HOUR / 3, [OUTSIDE], id="short window"),
        pytest.param(1, HOUR / 2, CatchUp.LATEST, HOUR / 2, [C], id="window just long enough"),
        pytest.param(3, HOUR / 2, CatchUp.NONE, DAY, [MISSED] * 3, id="none"),
        pytest.param(3, HOUR / 2, CatchUp.ALL, DAY, [C, C, C], id="all"),
        pytest.param(3, timedelta(0), CatchUp.ALL, DAY, [C, C, F], id="all, and one is due"),
        pytest.param(3, HOUR / 2, CatchUp.ALL, 2 * HOUR, [OUTSIDE, C, C], id="all in a window"),
    ],
)
def test_missed_runs_are_made_up_for_by_the_policy(count, late, catch_up, window, expected):
    found = fates(count, late=late, catch_up=catch_up, window=window, overlap=Overlap.ALLOW)

    assert found == expected


def test_all_makes_up_for_no_more_than_its_cap():
    found = fates(
        MAX_CAUGHT_UP + 3,
        late=HOUR / 2,
        catch_up=CatchUp.ALL,
        window=30 * DAY,
        overlap=Overlap.ALLOW,
    )

    assert found == [MISSED] * 3 + [C] * MAX_CAUGHT_UP


@pytest.mark.parametrize(
    ("overlap", "is_running", "expected"),
    [
        pytest.param(Overlap.SKIP, False, [OVERLAP, OVERLAP, C], id="the newest alone"),
        pytest.param(Overlap.SKIP, True, [OVERLAP] * 3, id="none beside another"),
        pytest.param(Overlap.ALLOW, True, [C] * 3, id="beside another"),
    ],
)
def test_overlapping_runs_are_left_out_unless_they_are_allowed(overlap, is_running, expected):
    found = fates(
        3, late=HOUR / 2, catch_up=CatchUp.ALL, window=DAY, overlap=overlap, is_running=is_running
    )

    assert found == expected


def test_the_last_run_of_a_schedule_stays_worth_making_up_for():
    up = runs(1)

    [decided] = decide(up, None, now=START + 100 * DAY)

    assert decided.decision == C


def test_a_skipped_run_says_how_late_that_was_decided():
    *up, following = runs(2)

    [decided] = decide(up, following, now=START + HOUR / 2, catch_up=CatchUp.NONE)

    assert decided.message == (
        "It was decided 1800 s after it should have begun; catch_up is none."
    )
