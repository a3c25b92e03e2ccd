"""Each user can be told what became of them in each of their periods, and why."""

from __future__ import annotations

from datetime import timedelta

import pytest
from batchwork_server.application.explaining import Explaining, UserPeriod
from batchwork_server.application.preference_views import PreferenceViews
from batchwork_server.domain.caller import Caller
from batchwork_server.domain.submission import Idempotency
from batchwork_server.store.database import Database

from tests.engine.groups import FEATURE, JOB, GroupServer
from tests.factories import TENANT
from tests.fakes import START, FakeClock, FakeTemplates

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TEN = START + HOUR
AT_TEN = {"frequency": "daily", "preferred_time": "10:00"}
AT_SIX = {"frequency": "daily", "preferred_time": "18:00"}


@pytest.fixture
def server(database: Database, clock: FakeClock) -> GroupServer:
    return GroupServer(database, clock=clock)


async def explain(server: GroupServer, user_id: str = "ada") -> list[UserPeriod]:
    """Returns the periods of a user, oldest first."""
    views = PreferenceViews(
        store=server.store, templates=FakeTemplates(), clock=server.clock, zone="UTC"
    )
    explaining = Explaining(store=server.store, views=views, clock=server.clock)
    periods, _ = await explaining.explain_user(
        user_id=user_id, feature_type=FEATURE, tenant_id=TENANT, start=START
    )
    return periods[::-1]


async def is_done(server: GroupServer) -> bool:
    """Tells whether the user had their run in the period that it is now."""
    views = PreferenceViews(
        store=server.store, templates=FakeTemplates(), clock=server.clock, zone="UTC"
    )
    view = await views.get_effective_preference(
        user_id="ada", feature_type=FEATURE, tenant_id=TENANT, job_id=JOB
    )
    return view.period_done


def in_short(periods: list[UserPeriod]) -> list[tuple[str, str, str]]:
    return [
        (each.period.label if each.period else "", each.decision, each.reason) for each in periods
    ]


async def test_each_day_is_told_with_its_run(server: GroupServer):
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **AT_TEN)
    await server.scheduler.run_once()
    await server.run_at(TEN)
    await server.run_at(TEN + DAY)
    assert await is_done(server)
    await server.run_at(START + 2 * DAY)

    periods = await explain(server)

    assert in_short(periods) == [
        ("2026-03-02", "DONE", ""),
        ("2026-03-03", "DONE", ""),
        ("2026-03-04", "NOT_YET", ""),
    ]
    assert not await is_done(server)
    first, second = await server.batches_of()
    assert [each.batch_id for each in periods] == [first.batch_id, second.batch_id, ""]
    assert [each.item_id for each in periods] == ["ada", "ada", ""]
    assert [each.due_time for each in periods] == [TEN, TEN + DAY, TEN + 2 * DAY]


async def test_a_skip_is_told_with_its_reason(server: GroupServer):
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **AT_TEN)
    await server.wish("nobody", **AT_TEN)
    await server.set_active("ada", active=False)
    await server.scheduler.run_once()
    await server.run_at(TEN)

    assert in_short(await explain(server)) == [("2026-03-02", "SKIPPED", "TENANT_INACTIVE")]
    assert in_short(await explain(server, "nobody")) == [
        ("2026-03-02", "SKIPPED", "USER_NOT_FOUND")
    ]


async def test_a_user_who_moved_was_done_and_not_skipped(server: GroupServer):
    await server.add_users("ada", "eve")
    await server.put_job()
    await server.wish("ada", **AT_TEN)
    await server.wish("eve", **AT_SIX)
    await server.scheduler.run_once()
    await server.run_at(TEN)
    await server.wish("ada", **AT_SIX)
    await server.run_at(TEN + 8 * HOUR)

    [period] = await explain(server)

    assert (period.decision, period.due_time) == ("DONE", TEN)


async def test_what_a_shared_item_did_is_told(server: GroupServer):
    await server.add_users("ada", "bob")
    await server.put_job(type="object", preference_based=True)
    await server.wish("ada", **AT_TEN)
    await server.wish("bob", **AT_TEN)
    await server.wish("nobody", **AT_TEN)
    await server.scheduler.run_once()
    await server.run_at(TEN)

    [done] = await explain(server)
    [skipped] = await explain(server, "nobody")

    [batch] = await server.batches_of()
    assert (done.decision, done.batch_id) == ("DONE", batch.batch_id)
    assert (skipped.decision, skipped.reason) == ("SKIPPED", "USER_NOT_FOUND")


async def test_a_due_time_that_the_group_left_out_is_told(server: GroupServer):
    await server.add_users("ada")
    await server.put_job(overlap="skip")
    await server.wish("ada", **AT_TEN)
    await server.scheduler.run_once()
    await server.run_at(TEN)
    await server.run_at(TEN + DAY)

    first, second = await explain(server)

    assert (first.decision, second.decision, second.reason) == ("DONE", "SKIPPED", "OVERLAP")
    assert "went on" in second.message


async def test_a_due_time_that_nobody_has_decided_about_is_told(server: GroupServer):
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **AT_TEN)
    server.clock.advance(2 * HOUR)

    assert in_short(await explain(server)) == [("2026-03-02", "SKIPPED", "NOT_FIRED")]


async def test_a_run_by_hand_is_not_one_of_the_periods(server: GroupServer):
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **AT_SIX)
    await server.scheduler.run_once()
    caller = Caller(tenant_id=TENANT, name="ada")
    await server.batches.run_job(JOB, caller=caller, idempotency=Idempotency())
    await server.run_at(TEN)

    assert in_short(await explain(server)) == [("2026-03-02", "NOT_YET", "")]
    await server.run_at(TEN + 8 * HOUR)
    assert in_short(await explain(server)) == [("2026-03-02", "DONE", "")]
