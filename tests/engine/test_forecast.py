"""The forecast counts whom runs will be for: also who says nothing, and nobody who rests."""

from __future__ import annotations

from datetime import datetime

import pytest
from batchwork_server.application.forecast import Forecast

from tests.engine.groups import AT_SIX, AT_TEN, DAY, FEATURE, HOUR, JOB, TEN, GroupServer
from tests.factories import TENANT


async def forecast(
    server: GroupServer, feature_type: str = FEATURE
) -> list[tuple[datetime, int, int]]:
    """Returns when how many users are due in how many runs, in the day that begins now."""
    told = await Forecast(
        store=server.store, views=server.views, clock=server.clock, zone="UTC"
    ).forecast_load(
        tenant_id=TENANT,
        feature_type=feature_type,
        start=server.clock.now(),
        end=server.clock.now() + DAY,
        bucket=HOUR,
    )
    return [(each.start_time, each.user_count, each.run_count) for each in told]


@pytest.mark.parametrize("feature_type", [FEATURE, ""], ids=["a feature", "all"])
async def test_who_says_nothing_is_counted_before_anybody_says_anything(
    server: GroupServer, feature_type: str
):
    # The story: a job over a million users was foretold as nothing.
    await server.add_users("ada", "bob", "eve")
    await server.add_users("gone", active=False)
    await server.put_job(include_all_users=True, default_preferences=AT_TEN)

    before = await forecast(server, feature_type)
    await server.scheduler.run_once()
    with_group = await forecast(server, feature_type)

    assert before == with_group == [(TEN, 3, 1)]
    await server.run_at(TEN)
    [batch] = await server.batches_of()
    assert len(await server.items_of(batch)) == 3


async def test_who_says_nothing_is_in_the_run_of_those_who_name_no_schedule(server: GroupServer):
    await server.add_users("ada", "bob", "eve", "out")
    await server.put_job(include_all_users=True, default_preferences=AT_TEN)
    await server.wish("ada")
    await server.wish("bob", **AT_SIX)
    await server.wish("out", enabled=False)

    assert await forecast(server) == [(TEN, 2, 1), (TEN + 8 * HOUR, 1, 1)]


async def test_only_the_jobs_that_include_them_count_who_says_nothing(server: GroupServer):
    await server.add_users("ada", "bob")
    await server.put_job(include_all_users=True, default_preferences=AT_TEN)
    await server.put_job("job_other", default_preferences=AT_SIX)
    await server.wish("ada")

    assert await forecast(server) == [(TEN, 2, 1), (TEN + 8 * HOUR, 1, 1)]


async def test_a_default_that_is_not_enabled_keeps_who_says_nothing_out(server: GroupServer):
    await server.add_users("ada")
    await server.put_job(include_all_users=True, default_preferences=AT_TEN)
    await server.set_default(enabled=False)

    assert await forecast(server) == []


async def test_a_job_that_is_paused_is_for_nobody(server: GroupServer):
    await server.add_users("ada")
    await server.put_job(include_all_users=True, default_preferences=AT_TEN)
    await server.jobs.pause_job(JOB, tenant_id=TENANT)

    assert await forecast(server) == []


async def test_who_rests_is_not_counted(server: GroupServer):
    await server.put_job()
    for user_id in ("ada", "bob"):
        await server.wish(user_id, **AT_TEN)
    await server.wish("eve", **AT_SIX)
    for user_id in ("bob", "eve"):
        await server.set_active(user_id, active=False)

    assert await forecast(server) == [(TEN, 1, 1)]
