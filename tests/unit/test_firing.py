"""What becomes of due times, by the policies of their job."""

from __future__ import annotations

from datetime import timedelta

import pytest
from batchwork_server.domain.firing import MAX_CAUGHT_UP, PROMPT, NextRun, decide
from batchwork_server.domain.job_policies import CatchUp, Overlap

from tests.fakes import START

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

F, C, Q = "FIRED", "CAUGHT_UP", "QUEUED"
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


ON_TIME, LATE = timedelta(0), HOUR / 2
SKIP, QUEUE_ONE, ALLOW = Overlap.SKIP, Overlap.QUEUE_ONE, Overlap.ALLOW
CANCEL = Overlap.CANCEL_PREVIOUS
LATEST, ALL, NONE = CatchUp.LATEST, CatchUp.ALL, CatchUp.NONE


@pytest.mark.parametrize(
    ("overlap", "busy", "catch_up", "late", "expected"),
    [
        pytest.param(SKIP, "", LATEST, ON_TIME, [MISSED, MISSED, F], id="skip"),
        pytest.param(SKIP, "", ALL, LATE, [C, Q, Q], id="skip, all"),
        pytest.param(SKIP, "", ALL, ON_TIME, [C, Q, Q], id="skip, all, and one is due"),
        pytest.param(SKIP, "", NONE, ON_TIME, [MISSED, MISSED, F], id="skip, none"),
        pytest.param(SKIP, "running", LATEST, LATE, [MISSED, MISSED, OVERLAP], id="skip, busy"),
        pytest.param(SKIP, "running", ALL, LATE, [Q, Q, Q], id="skip, busy, all"),
        pytest.param(SKIP, "waiting", LATEST, LATE, [MISSED, MISSED, OVERLAP], id="skip, queue"),
        pytest.param(SKIP, "waiting", ALL, ON_TIME, [Q, Q, Q], id="skip, queue, all"),
        pytest.param(QUEUE_ONE, "", LATEST, ON_TIME, [MISSED, MISSED, F], id="queue"),
        pytest.param(QUEUE_ONE, "", ALL, LATE, [C, Q, Q], id="queue, all"),
        pytest.param(QUEUE_ONE, "", NONE, LATE, [MISSED] * 3, id="queue, none"),
        pytest.param(QUEUE_ONE, "running", LATEST, ON_TIME, [MISSED, MISSED, Q], id="queue, busy"),
        pytest.param(QUEUE_ONE, "running", LATEST, LATE, [MISSED, MISSED, Q], id="queue, late"),
        pytest.param(QUEUE_ONE, "running", ALL, ON_TIME, [Q, Q, Q], id="queue, busy, all"),
        pytest.param(
            QUEUE_ONE, "both", LATEST, ON_TIME, [MISSED, MISSED, OVERLAP], id="queue full"
        ),
        pytest.param(QUEUE_ONE, "both", ALL, LATE, [Q, Q, Q], id="full, all"),
        pytest.param(CANCEL, "", ALL, LATE, [OVERLAP, OVERLAP, C], id="cancel, all"),
        pytest.param(CANCEL, "running", LATEST, ON_TIME, [MISSED, MISSED, F], id="cancel, busy"),
        pytest.param(CANCEL, "both", ALL, ON_TIME, [OVERLAP, OVERLAP, F], id="cancel, busy, all"),
        pytest.param(CANCEL, "running", NONE, LATE, [MISSED] * 3, id="cancel, none"),
        pytest.param(ALLOW, "both", ALL, LATE, [C, C, C], id="allow"),
        pytest.param(ALLOW, "both", LATEST, ON_TIME, [MISSED, MISSED, F], id="allow, latest"),
    ],
)
def test_what_would_run_beside_another_run_goes_by_the_policy(
    overlap, busy, catch_up, late, expected
):
    found = fates(
        3,
        late=late,
        catch_up=catch_up,
        window=DAY,
        overlap=overlap,
        is_running=busy in ("running", "both"),
        is_waiting=busy in ("waiting", "both"),
    )

    assert found == expected


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        pytest.param(SKIP, [OVERLAP, OVERLAP, F], id="skip"),
        pytest.param(QUEUE_ONE, [F, Q, OVERLAP], id="queue one"),
        pytest.param(CANCEL, [OVERLAP, OVERLAP, F], id="cancel previous"),
        pytest.param(ALLOW, [F, F, F], id="allow"),
    ],
)
def test_of_several_that_are_on_time_at_once_the_policy_chooses(overlap, expected):
    up = [NextRun(due_time=run.due_time, start_time=START + 2 * HOUR) for run in runs(3)]

    decided = decide(up, None, now=START + 2 * HOUR, overlap=overlap)

    assert [each.reason or each.decision for each in decided] == expected


def test_what_is_queued_says_what_it_becomes_and_what_is_skipped_says_that_one_waits():
    *up, following = runs(3)
    late = decide(up[1:], following, now=START + 1.5 * HOUR, overlap=QUEUE_ONE, is_running=True)
    full = decide(
        up[1:], following, now=START + HOUR, overlap=QUEUE_ONE, is_running=True, is_waiting=True
    )

    assert (late[0].queued_as, late[0].starts) == (C, False)
    assert late[0].message == (
        "It was decided 1800 s after it should have begun. It waits for other runs of the job."
    )
    assert full[0].message == "Another due time of the job waited already."


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
