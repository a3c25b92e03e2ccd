"""The ledger lets a user have a run in a period by the same rule as the domain."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, time

import pytest
from batchwork_server.domain.group_schedules import UserRun
from batchwork_server.domain.preference_groups import period_of
from batchwork_server.domain.schedule import Daily, Hourly, Schedule, Weekday, Weekly
from batchwork_server.store.store import Store

from tests.factories import TENANT, make_user_run

ZONES = ("Asia/Tokyo", "America/Los_Angeles")
CADENCES = (
    Daily(at=time(9)),
    Hourly(minute=0),
    Weekly(days=(Weekday.TUESDAY,), at=time(9)),
)


def run_of(user_id: str, schedule: Schedule, due: datetime) -> UserRun:
    return make_user_run(due, period_of(schedule, "UTC", due), user_id=user_id)


async def claimed(store: Store, runs: list[UserRun]) -> list[UserRun]:
    """Claims each run by itself, and returns those that could be."""
    done = []
    for run in runs:
        async with store.transaction() as tx:
            if await store.group_runs.claim(tx, [run], job_id="job", tenant_id=TENANT):
                done.append(run)
    return done


@pytest.mark.parametrize("hours", [0, 1, 16, 17, 24, 40, 41])
async def test_a_run_is_claimed_unless_the_last_one_uses_up_its_period(store: Store, hours: int):
    schedules = [
        Schedule(cadence=cadence, time_zone=zone) for cadence in CADENCES for zone in ZONES
    ]
    first_due = datetime(2026, 3, 3, tzinfo=UTC)
    then_due = datetime(2026, 3, 3 + hours // 24, hours % 24, tzinfo=UTC)
    pairs = {
        f"user-{number}": (first, then)
        for number, (first, then) in enumerate(itertools.product(schedules, repeat=2))
    }
    first_runs = [run_of(user, first, first_due) for user, (first, _) in pairs.items()]
    then_runs = [run_of(user, then, then_due) for user, (_, then) in pairs.items()]
    expected = [
        then.user_id
        for last, then in zip(first_runs, then_runs, strict=True)
        if not last.is_in(period_of(pairs[then.user_id][1], "UTC", then_due))
    ]

    assert await claimed(store, first_runs) == first_runs
    assert [run.user_id for run in await claimed(store, then_runs)] == expected


async def test_a_run_comes_back_as_it_was_claimed(store: Store):
    run = run_of(
        "ada",
        Schedule(cadence=Daily(at=time(9)), time_zone="Asia/Tokyo"),
        datetime(2026, 3, 3, tzinfo=UTC),
    )
    await claimed(store, [run])

    assert await store.group_runs.runs_of(["ada"], job_id="job", tenant_id=TENANT) == {"ada": run}
