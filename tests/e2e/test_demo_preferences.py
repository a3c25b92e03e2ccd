"""What `make demo-preferences` runs: two days of a thousand users, and the sum at their end."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from examples.jumping_clock import JumpingClock
from examples.preference_ledger import Ledger

ROOT = Path(__file__).parents[2]

SUNDAY, MONDAY = date(2026, 3, 29), date(2026, 3, 30)

MORNING, WEEKLY = 1, 2


def make_ledger(**fates: list[str]) -> Ledger:
    """Makes the ledger of a few users on one Sunday, on which only the first group is due."""
    ledger = Ledger(days=[SUNDAY], due={(MORNING, SUNDAY)})
    for user_id, said in fates.items():
        ledger.users[user_id] = True
        ledger.group_of[user_id] = MORNING
        if said:
            ledger.fates[user_id, SUNDAY] = said
        ledger.served += said.count("SUCCEEDED")
        ledger.skipped += sum(fate not in ("SUCCEEDED", "FAILED") for fate in said)
    return ledger


def test_the_demo_ends_with_a_sum_that_adds_up(tmp_path: Path):
    demo = subprocess.run(
        [sys.executable, "-m", "examples.demo_preferences"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "BATCHWORK_LISTEN": "nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (demo.returncode, demo.stderr) == (0, "")
    assert "02:30:00 does not exist in Europe/Berlin" in demo.stdout
    assert "opts out in the middle of the run" in demo.stdout
    assert "WRONG" not in demo.stdout
    assert demo.stdout.splitlines()[-2:] == [
        "  The 5 ALREADY_DONE moved after their run; their day counts as served.",
        "  1000 users × 2 days = 2000 = 1883 served + 36 skipped + 1 opted out + 80 not due",
    ]


def test_users_who_are_served_skipped_away_or_not_due_add_up():
    ledger = make_ledger(ann=["SUCCEEDED"], bob=["USER_INACTIVE"], eve=[], joe=[])
    ledger.users["eve"] = False
    ledger.group_of["joe"] = WEEKLY

    assert ledger.fates_of_all() == {
        "SUCCEEDED": 1,
        "USER_INACTIVE": 1,
        "opted out": 1,
        "not due": 1,
    }
    assert ledger.problems() == []


def test_who_moved_after_their_run_counts_once():
    ledger = make_ledger(ann=["ALREADY_DONE", "SUCCEEDED"])

    assert ledger.sum() == 1
    assert ledger.problems() == []


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        pytest.param(["SUCCEEDED", "SUCCEEDED"], "TWICE", id="served twice"),
        pytest.param([], "UNEXPLAINED", id="forgotten"),
        pytest.param(["ALREADY_DONE"], "UNEXPLAINED", id="done, but never served"),
        pytest.param(["FAILED"], "FAILED", id="failed"),
    ],
)
def test_what_must_not_be_does_not_add_up(said: list[str], problem: str):
    problems = make_ledger(ann=said, bob=["SUCCEEDED"]).problems()

    assert problems[0].startswith(f"ann on 2026-03-29: {problem}")


def test_batches_that_count_something_else_do_not_add_up():
    ledger = make_ledger(ann=["SUCCEEDED"], bob=["SUCCEEDED"])
    ledger.served -= 1

    assert ledger.problems() == ["The sum is 1"]


def test_a_run_on_another_day_does_not_add_up():
    ledger = make_ledger(ann=["SUCCEEDED"])
    ledger.fates["ann", MONDAY] = ["SUCCEEDED"]

    assert ledger.problems() == ["ann has an item on 2026-03-30"]


async def test_a_jump_of_the_clock_ends_a_wait_that_it_jumps_over():
    start = datetime(2026, 3, 28, 22, 0, tzinfo=UTC)
    clock = JumpingClock(start)
    wait = asyncio.ensure_future(clock.wait(asyncio.Event(), timedelta(hours=3)))
    await asyncio.sleep(0)

    clock.jump_to(start + timedelta(hours=1))
    await asyncio.sleep(0)
    assert not wait.done()
    clock.jump_to(start + timedelta(hours=3))

    assert await wait is False
    assert clock.now() >= start + timedelta(hours=3)
    assert clock.monotonic() >= timedelta(hours=3).total_seconds()
