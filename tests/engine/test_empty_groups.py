"""Groups that have no members any more wake nobody, and go when nobody can be their guest."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from batchwork_server.domain.group_schedules import MOVES_COUNT_FOR
from batchwork_server.domain.preference_groups import PreferenceGroup
from batchwork_server.engine import retention
from batchwork_server.engine.retention import Retention
from batchwork_server.store.database import Database

from tests.engine.groups import FEATURE, JOB, GroupServer
from tests.factories import TENANT
from tests.fakes import START, FakeClock

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
TEN = START + HOUR  # START is a Monday, nine o'clock
AT_TEN = {"frequency": "daily", "preferred_time": "10:00"}
AT_SIX = {"frequency": "daily", "preferred_time": "18:00"}


@pytest.fixture
def server(database: Database, clock: FakeClock) -> GroupServer:
    return GroupServer(database, clock=clock)


async def groups_of(server: GroupServer) -> dict[str, PreferenceGroup]:
    found, _ = await server.store.preference_groups.list(
        tenant_id=TENANT, feature_type=FEATURE, with_empty=True, page_size=100, after=None
    )
    return {
        "" if each.schedule is None else str(getattr(each.schedule.cadence, "at", "")): each
        for each in found
    }


async def next_look(server: GroupServer) -> Any:
    return await server.store.group_schedules.next_start_time(after=server.clock.now())


async def leave_ten_for_six(server: GroupServer) -> None:
    """Lets the only member of a group leave it, and the group have its last due time."""
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **AT_TEN)
    await server.scheduler.run_once()
    await server.run_at(TEN)
    await server.wish("ada", **AT_SIX)
    await server.run_at(TEN + 8 * HOUR)
    await server.run_at(TEN + DAY)


async def test_an_empty_group_wakes_nobody_after_its_next_due_time(server: GroupServer):
    await leave_ten_for_six(server)

    assert await next_look(server) == TEN + DAY + 8 * HOUR
    await server.run_at(TEN + DAY + 8 * HOUR)
    assert await next_look(server) == TEN + 2 * DAY + 8 * HOUR


async def test_a_group_that_gets_a_member_again_runs_from_then_on(server: GroupServer):
    await leave_ten_for_six(server)
    await server.add_users("bob")

    await server.run_at(TEN + 5 * DAY + MINUTE)
    before = await server.batches_of()
    await server.wish("bob", **AT_TEN)
    await server.run_at(TEN + 5 * DAY + 2 * MINUTE)
    at_once = await server.batches_of()
    await server.run_at(TEN + 6 * DAY)

    [*others, latest] = await server.batches_of()
    assert len(before) == len(at_once)
    assert latest.request.due_time == TEN + 6 * DAY
    assert (await server.fates())[-1] == {"bob": ""}
    assert others[: len(before)] == before


async def test_who_leaves_a_group_that_slept_is_its_guest(server: GroupServer):
    """They joined and left it while no scheduler looked."""
    await leave_ten_for_six(server)
    await server.add_users("bob")

    server.clock.advance(5 * DAY - 2 * HOUR)  # eight o'clock
    await server.wish("bob", **AT_TEN)
    await server.wish("bob", **AT_TEN | {"preferred_time": "07:00"})
    await server.run_at(TEN + 6 * DAY)

    [*_, latest] = await server.fates()
    assert latest == {"bob": ""}


async def test_a_pause_neither_wakes_a_group_that_sleeps_nor_makes_it_miss_anything(
    server: GroupServer,
):
    await leave_ten_for_six(server)
    await server.add_users("bob")
    await server.jobs.pause_job(JOB, tenant_id=TENANT)
    await server.run_at(TEN + 2 * DAY - HOUR)
    await server.wish("bob", **AT_TEN)
    await server.run_at(TEN + 2 * DAY + HOUR)

    await server.jobs.resume_job(JOB, tenant_id=TENANT)
    await server.run_at(TEN + 2 * DAY + 2 * HOUR)
    await server.run_at(TEN + 3 * DAY)

    occurrences = [
        each.due_time
        for each in await server.occurrences_of()
        if each.group_key == (await groups_of(server))["10:00:00"].group_key
    ]
    assert occurrences == [TEN, TEN + 3 * DAY]


async def test_the_group_of_the_silent_never_sleeps(server: GroupServer):
    await server.put_job(include_all_users=True, default_preferences=AT_TEN)
    await server.scheduler.run_once()
    await server.run_at(TEN)
    await server.add_users("ada")
    await server.run_at(TEN + DAY)

    assert await server.fates() == [{"ada": ""}]


async def test_an_empty_group_goes_when_nobody_can_be_its_guest_any_more(
    server: GroupServer, clock: FakeClock
):
    await leave_ten_for_six(server)
    loop = Retention(store=server.store, clock=clock)
    key = (await groups_of(server))["10:00:00"].group_key

    clock.advance(START + MOVES_COUNT_FOR - clock.now())
    await loop.run_once()
    kept = set(await groups_of(server))
    clock.advance(DAY)
    await loop.run_once()

    assert kept == {"10:00:00", "18:00:00"}
    assert set(await groups_of(server)) == {"18:00:00"}
    assert await server.store.group_schedules.get(JOB, key, tenant_id=TENANT) is None


async def test_a_group_that_is_gone_may_come_again(server: GroupServer, clock: FakeClock):
    await leave_ten_for_six(server)
    clock.advance(START + MOVES_COUNT_FOR + DAY - clock.now())  # nine o'clock
    await Retention(store=server.store, clock=clock).run_once()

    await server.wish("ada", **AT_TEN)
    await server.run_at(clock.now())
    await server.run_at(clock.now() + HOUR)

    [*_, latest] = await server.batches_of()
    assert latest.request.due_time == clock.now()


async def test_the_last_run_of_a_user_goes_when_no_period_and_no_batch_is_left_of_it(
    server: GroupServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(retention, "_RUNS_AT_ONCE", 2)
    users = ["ada", "bob", "cyd", "dan", "eve"]
    await server.add_users(*users)
    await server.put_job()
    for user in users:
        await server.wish(user, **AT_TEN)
    await server.scheduler.run_once()
    await server.run_at(TEN)
    await server.wish("eve", **AT_SIX)
    for user in ("bob", "cyd", "dan"):
        await server.wish(user, enabled=False)
    loop = Retention(store=server.store, clock=clock, batches_are_kept=30 * DAY)

    async def known() -> set[str]:
        runs = await server.store.group_runs.runs_of(users, job_id=JOB, tenant_id=TENANT)
        return set(runs)

    clock.advance(retention.RUNS_ARE_KEPT)
    for _ in range(4):
        await loop.run_once()
    all_of_them = await known()
    await server.wish("ada", **AT_SIX)
    await server.run_at(clock.now() + 8 * HOUR)  # serves ada and eve again
    for _ in range(4):
        await loop.run_once()

    assert all_of_them == set(users)
    assert await known() == {"ada", "eve"}
