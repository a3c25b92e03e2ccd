"""When a user is due next, by their schedule, their last run, and the group that they left."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from tests.engine.groups import AT_SIX, AT_TEN, DAY, FEATURE, HOUR, JOB, SIX, TEN, GroupServer
from tests.factories import TENANT
from tests.fakes import START


async def next_runs(server: GroupServer, user_id: str = "ada") -> list[datetime]:
    """Returns when a user is due next, as both calls tell it that do."""
    view = await server.views.get_effective_preference(
        user_id=user_id, feature_type=FEATURE, tenant_id=TENANT, job_id=JOB
    )
    preference = await server.store.preferences.get(
        user_id=user_id, feature_type=FEATURE, tenant_id=TENANT
    )
    if preference is not None:
        assert await server.views.next_runs(preference, tenant_id=TENANT) == view.next_runs
    return [run.due.instant for run in view.next_runs]


async def test_who_is_due_later_today_is(server: GroupServer):
    await server.put_job()
    await server.wish("ada", **AT_TEN)

    assert await next_runs(server) == [TEN]


async def test_who_had_their_run_today_is_due_tomorrow_wherever_they_move(server: GroupServer):
    # The story: told 18:00 today, at which they were skipped as ALREADY_DONE.
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **AT_TEN)
    await server.scheduler.run_once()
    await server.run_at(TEN)
    await server.wish("ada", **AT_SIX)

    assert await next_runs(server) == [SIX + DAY]


async def test_who_had_their_run_this_week_is_due_in_the_next_one(server: GroupServer):
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **AT_TEN)
    await server.scheduler.run_once()
    await server.run_at(TEN)
    await server.wish("ada", frequency="weekly", preferred_day="friday", preferred_time="10:00")

    assert await next_runs(server) == [TEN + 11 * DAY]


async def test_who_moves_to_a_time_that_is_over_is_due_with_the_group_that_they_left(
    server: GroupServer,
):
    # The story: told tomorrow, and served today.
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **AT_SIX)
    await server.scheduler.run_once()
    server.clock.advance(3 * HOUR)
    await server.wish("ada", **AT_TEN)
    await server.scheduler.run_once()

    before = await next_runs(server)
    await server.run_at(SIX)
    after = await next_runs(server)

    assert (before, after) == ([SIX], [TEN + DAY])
    [batch] = await server.batches_of()
    assert batch.request.due_time == SIX


async def test_of_two_moves_the_group_that_is_still_due_counts(server: GroupServer):
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **AT_SIX)
    await server.scheduler.run_once()
    server.clock.advance(3 * HOUR)
    await server.wish("ada", **AT_TEN)
    await server.scheduler.run_once()
    server.clock.advance(HOUR)
    await server.wish("ada", frequency="daily", preferred_time="11:00")
    await server.scheduler.run_once()

    assert await next_runs(server) == [SIX]
    await server.run_at(SIX)
    assert len(await server.batches_of()) == 1


async def test_who_moves_and_opts_out_is_nobody_s_guest(server: GroupServer):
    await server.put_job()
    await server.wish("ada", **AT_SIX)
    await server.scheduler.run_once()
    server.clock.advance(3 * HOUR)
    await server.wish("ada", **AT_TEN)
    await server.wish("ada", **AT_TEN, enabled=False)

    assert await next_runs(server) == []


async def test_who_rests_is_not_due(server: GroupServer):
    await server.put_job()
    await server.wish("ada", **AT_TEN)
    await server.set_active("ada", active=False)

    assert await next_runs(server) == []


async def test_while_a_job_is_paused_nobody_is_due(server: GroupServer):
    await server.put_job()
    await server.wish("ada", **AT_TEN)
    await server.jobs.pause_job(JOB, tenant_id=TENANT)

    assert await next_runs(server) == []
    await server.jobs.resume_job(JOB, tenant_id=TENANT)
    assert await next_runs(server) == [TEN]


async def test_who_says_nothing_is_due_where_the_job_includes_them(server: GroupServer):
    await server.put_job(default_preferences=AT_TEN)
    without = await next_runs(server)
    await server.put_job(default_preferences=AT_TEN, include_all_users=True)

    assert (without, await next_runs(server)) == ([], [TEN])


async def test_a_group_that_keeps_its_due_time_once_says_when(server: GroupServer):
    await server.add_users("ada")
    await server.put_job()
    await server.set_default(**AT_SIX)
    await server.wish("ada")
    await server.scheduler.run_once()
    server.clock.advance(3 * HOUR)
    await server.set_default(**AT_TEN)
    await server.scheduler.run_once()

    before = await next_runs(server)
    await server.run_at(SIX)

    assert (before, await next_runs(server)) == ([SIX], [TEN + DAY])
    assert len(await server.batches_of()) == 1


async def test_a_run_that_is_due_and_has_not_begun_is_the_next_one(server: GroupServer):
    await server.add_users("ada")
    await server.put_job(overlap="queue_one")
    await server.wish("ada", **AT_TEN)
    await server.scheduler.run_once()
    await server.run_at(TEN)
    await server.run_at(TEN + DAY)
    server.clock.advance(HOUR)

    waiting = await next_runs(server)
    await server.end_runs()
    await server.run_at(TEN + DAY + 2 * HOUR)

    assert (waiting, await next_runs(server)) == ([TEN + DAY], [TEN + 2 * DAY])


async def test_a_run_that_is_spread_is_due_until_it_begins(server: GroupServer):
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **AT_TEN, jitter=3000)
    await server.scheduler.run_once()
    server.clock.advance(HOUR + timedelta(seconds=1))
    start = await server.store.group_schedules.next_start_time(after=server.clock.now())
    assert start is not None

    before = await next_runs(server)
    await server.run_at(start)

    assert (before, await next_runs(server)) == ([TEN], [TEN + DAY])


MOVES: dict[int, dict[str, Any]] = {
    3: AT_SIX,
    12: AT_TEN,
    14: {"frequency": "hourly", "minute": 0},
    20: {"frequency": "daily", "preferred_time": "02:00", "time_zone": "Asia/Tokyo"},
    30: AT_SIX,
    31: AT_TEN,
    40: {"frequency": "weekly", "preferred_day": "wednesday", "preferred_time": "11:00"},
}


async def test_what_is_told_is_what_comes(server: GroupServer):
    await server.add_users("ada", "bob")
    await server.put_job()
    for fields in MOVES.values():
        await server.wish("bob", **fields)  # the groups are there before the user moves
    await server.wish("ada", **AT_TEN)
    await server.scheduler.run_once()
    told = await next_runs(server)

    served: set[datetime] = set()
    for hour in range(1, 60):
        await server.run_at(START + hour * HOUR)
        runs = await server.store.group_runs.runs_of(["ada"], job_id=JOB, tenant_id=TENANT)
        due = runs["ada"].due_time if "ada" in runs else None
        if due is not None and due not in served:
            served.add(due)
            assert told == [due]
        else:
            assert told[0] > server.clock.now()
        if hour in MOVES:
            await server.wish("ada", **MOVES[hour])
            await server.scheduler.run_once()
        told = await next_runs(server)

    assert len(served) >= 5
