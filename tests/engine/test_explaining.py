"""Each user can be told what became of them in each of their periods, and why."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from batchwork_server.application import group_pages
from batchwork_server.application.explaining import Explaining
from batchwork_server.application.user_periods import UserPeriod
from batchwork_server.domain.batch import Batch
from batchwork_server.domain.caller import Caller
from batchwork_server.domain.item import ItemState
from batchwork_server.domain.submission import Idempotency
from batchwork_server.store.times import to_micros

from tests.engine.groups import AT_SIX, AT_TEN, DAY, FEATURE, HOUR, JOB, TEN, GroupServer
from tests.factories import TENANT, make_outcome
from tests.fakes import START
from tests.store.test_chunks import claim, record_of


async def explain(
    server: GroupServer,
    user_id: str = "ada",
    *,
    start: datetime = START,
    end: datetime | None = None,
) -> list[UserPeriod]:
    """Returns the periods of a user, oldest first."""
    explaining = Explaining(store=server.store, views=server.views, clock=server.clock)
    periods, _ = await explaining.explain_user(
        user_id=user_id, feature_type=FEATURE, tenant_id=TENANT, start=start, end=end
    )
    return periods[::-1]


async def is_done(server: GroupServer) -> bool:
    """Tells whether the user had their run in the period that it is now."""
    view = await server.views.get_effective_preference(
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


SHARED: dict[str, Any] = {"type": "object", "preference_based": True}


async def test_each_day_of_a_shared_item_is_told(server: GroupServer):
    # The story: one item for all stands under no user, so only the last run was known.
    await server.add_users("ada", "bob")
    await server.put_job(**SHARED)
    for user_id in ("ada", "bob", "nobody"):
        await server.wish(user_id, **AT_TEN)
    await server.scheduler.run_once()
    await server.run_at(TEN)
    await server.run_at(TEN + DAY)

    assert in_short(await explain(server)) == [
        ("2026-03-02", "DONE", ""),
        ("2026-03-03", "DONE", ""),
    ]
    assert in_short(await explain(server, "nobody")) == [
        ("2026-03-02", "SKIPPED", "USER_NOT_FOUND"),
        ("2026-03-03", "SKIPPED", "USER_NOT_FOUND"),
    ]
    batches = await server.batches_of()
    assert [each.batch_id for each in await explain(server)] == [b.batch_id for b in batches]


async def delete(server: GroupServer, batch: Batch, *, rows: bool) -> None:
    """Deletes a batch as somebody who asks for it; its rows go later."""
    await server.end_runs()
    async with server.store.transaction() as tx:
        assert await server.store.retention.delete(tx, batch.key)
    while rows and (await server.store.retention.remove_some(limit=1000)).row_count:
        pass


@pytest.mark.parametrize("fields", [{}, SHARED], ids=["own", "shared"])
@pytest.mark.parametrize("rows", [False, True], ids=["deleted", "purged"])
async def test_a_run_whose_batch_is_gone_has_still_been(
    server: GroupServer, fields: dict[str, Any], rows: bool
):
    await server.add_users("ada")
    await server.put_job(**fields)
    await server.wish("ada", **AT_TEN)
    await server.scheduler.run_once()
    await server.run_at(TEN)
    await server.run_at(TEN + DAY)
    first, second = await server.batches_of()
    for batch in (first, second):
        await delete(server, batch, rows=rows)

    monday, tuesday = await explain(server)

    assert (monday.decision, monday.reason) == ("DONE", "RUN_DELETED")
    assert (monday.batch_id, monday.due_time) == (first.batch_id, TEN)
    assert (tuesday.decision, tuesday.batch_id) == ("DONE", second.batch_id), "the ledger knows"


async def test_a_time_long_ago_is_told_of_a_user_with_many_runs(server: GroupServer):
    # The story: only the newest 200 batches after the start were looked at.
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", frequency="hourly", minute=0)
    await server.scheduler.run_once()
    for hour in range(1, 211):
        await server.run_at(START + hour * HOUR)

    told = await explain(server, end=START + 5 * HOUR)

    assert [each.due_time for each in told] == [START + hour * HOUR for hour in range(5)]
    assert {each.decision for each in told[1:]} == {"DONE"}


async def test_of_more_periods_than_are_told_the_newest_are(server: GroupServer):
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", frequency="hourly", minute=0)
    server.clock.advance(210 * HOUR)

    told = await explain(server)

    assert len(told) == 200
    assert told[-1].due_time == START + 209 * HOUR, "the end does not count"


async def test_a_period_is_told_whole_where_the_end_cuts_it(server: GroupServer):
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **AT_TEN)
    await server.scheduler.run_once()
    await server.run_at(TEN)
    await server.run_at(TEN + DAY)

    before_the_run = await explain(server, end=START + DAY + timedelta(minutes=1))
    at_midnight = await explain(server, end=START + 15 * HOUR)

    assert in_short(before_the_run) == [("2026-03-02", "DONE", ""), ("2026-03-03", "DONE", "")]
    assert in_short(at_midnight) == [("2026-03-02", "DONE", "")]


async def test_a_run_that_had_left_the_user_out_says_so(server: GroupServer):
    await server.add_users("ada", "bob")
    await server.put_job()
    await server.wish("ada", **AT_TEN)
    await server.wish("bob", **AT_TEN)
    await server.scheduler.run_once()
    server.clock.advance(HOUR + timedelta(seconds=10))
    await server.wish("ada", **AT_TEN, enabled=False)
    await server.scheduler.run_once()
    server.clock.advance(HOUR)
    await server.wish("ada", **AT_TEN)
    await server.run_at(TEN + 2 * HOUR)

    [told] = await explain(server)

    [batch] = await server.batches_of()
    assert (told.decision, told.reason) == ("SKIPPED", "NOT_IN_BATCH")
    assert told.batch_id == batch.batch_id
    assert "had left" in told.message


async def test_a_batch_that_is_being_filled_is_told(server: GroupServer, monkeypatch):
    monkeypatch.setattr(group_pages, "PAGE_USERS", 1)
    await server.add_users("ada", "aaa", "abc")
    await server.put_job()
    for user_id in ("aaa", "abc", "ada"):
        await server.wish(user_id, **AT_TEN)
    await server.scheduler.run_once()
    server.clock.advance(HOUR)
    [due] = await server.store.group_schedules.due(now=server.clock.now(), limit=1)
    await server.groups._look_at(due)

    [told] = await explain(server)

    [batch] = await server.batches_of()
    assert (told.decision, told.batch_id) == ("NOT_YET", batch.batch_id)
    assert "filled" in told.message


async def test_a_change_of_something_else_hides_nothing(server: GroupServer):
    # The story: whatever was edited later was told instead of the server that did not run.
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **AT_TEN)
    await server.scheduler.run_once()
    server.clock.advance(2 * HOUR)
    await server.wish("ada", **AT_TEN, template_overrides={"tone": "dry"})
    await server.put_job(priority="high")

    assert in_short(await explain(server)) == [("2026-03-02", "SKIPPED", "NOT_FIRED")]


async def test_who_joined_later_is_told_when(server: GroupServer):
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **AT_TEN, enabled=False)
    await server.scheduler.run_once()
    server.clock.advance(2 * HOUR)
    await server.wish("ada", **AT_TEN)
    server.clock.advance(HOUR)
    await server.wish("ada", **AT_TEN, template_overrides={"tone": "dry"})

    [told] = await explain(server)

    assert (told.reason, told.due_time) == ("CHANGED_LATER", TEN)
    assert "2026-03-02T11:00:00+00:00" in told.message


async def test_a_default_that_came_later_is_told(server: GroupServer):
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada")
    await server.scheduler.run_once()
    server.clock.advance(2 * HOUR)
    await server.set_default(**AT_TEN)
    await server.scheduler.run_once()

    assert in_short(await explain(server)) == [("2026-03-02", "SKIPPED", "CHANGED_LATER")]


async def test_days_on_which_the_job_was_paused_are_told_also_after_it_was_resumed(
    server: GroupServer,
):
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **AT_TEN)
    await server.scheduler.run_once()
    await server.run_at(TEN)
    server.clock.advance(HOUR)
    await server.jobs.pause_job(JOB, tenant_id=TENANT)
    await server.run_at(TEN + DAY)
    await server.run_at(TEN + 2 * DAY - HOUR)

    while_paused = await explain(server)
    await server.jobs.resume_job(JOB, tenant_id=TENANT)
    await server.scheduler.run_once()
    resumed = await explain(server)
    await server.run_at(TEN + 2 * DAY)
    later = await explain(server)

    done, paused = ("2026-03-02", "DONE", ""), ("2026-03-03", "SKIPPED", "JOB_PAUSED")
    assert in_short(while_paused) == [done, paused, ("2026-03-04", "NOT_YET", "JOB_PAUSED")]
    assert in_short(resumed) == [done, paused, ("2026-03-04", "NOT_YET", "")]
    assert in_short(later) == [done, paused, ("2026-03-04", "DONE", "")]


async def test_a_day_before_the_pause_was_not_paused(server: GroupServer):
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **AT_TEN)
    server.clock.advance(2 * HOUR)
    await server.jobs.pause_job(JOB, tenant_id=TENANT)

    assert in_short(await explain(server)) == [("2026-03-02", "SKIPPED", "NOT_FIRED")]


async def test_what_the_group_before_a_move_left_out_is_told(server: GroupServer):
    await server.add_users("ada")
    await server.put_job(overlap="skip")
    await server.wish("ada", **AT_TEN)
    await server.scheduler.run_once()
    await server.run_at(TEN)
    await server.run_at(TEN + DAY)
    server.clock.advance(HOUR)
    left = (await server.occurrences_of())[-1].group_key
    await server.wish("ada", **AT_TEN, time_zone="Asia/Tokyo")

    _, second, *_ = await explain(server)

    assert (second.decision, second.reason, second.group_key) == ("SKIPPED", "OVERLAP", left)
    assert second.due_time == TEN + DAY


async def test_a_guest_who_is_still_to_be_served_is_told_when(server: GroupServer):
    await server.add_users("ada", "bob")
    await server.put_job()
    for user_id in ("ada", "bob"):
        await server.wish(user_id, **AT_SIX)
    await server.scheduler.run_once()
    server.clock.advance(3 * HOUR)
    await server.wish("ada", **AT_TEN)
    await server.scheduler.run_once()

    [waiting] = await explain(server)
    await server.run_at(TEN + 8 * HOUR)
    [served] = await explain(server)

    assert (waiting.decision, waiting.reason) == ("NOT_YET", "")
    assert (waiting.due_time, waiting.group_key) == (TEN + 8 * HOUR, served.group_key)
    assert (served.decision, served.due_time) == ("DONE", TEN + 8 * HOUR)


async def test_who_rests_is_told_so_before_they_are_due(server: GroupServer):
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **AT_TEN)
    await server.set_active("ada", active=False)
    server.clock.advance(timedelta(minutes=1))

    assert in_short(await explain(server)) == [("2026-03-02", "NOT_YET", "TENANT_INACTIVE")]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param("inactive", ("SKIPPED", "TENANT_INACTIVE"), id="rests"),
        pytest.param("disabled", ("OPTED_OUT", "PREFERENCE_DISABLED"), id="opted out"),
    ],
)
async def test_who_rests_in_the_middle_of_a_run_has_not_opted_out(
    server: GroupServer, change: str, told: tuple[str, str]
):
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **AT_TEN)
    await server.scheduler.run_once()
    await server.run_at(TEN)
    server.clock.advance(timedelta(seconds=1))
    if change == "inactive":
        await server.set_active("ada", active=False)
    else:
        await server.wish("ada", **AT_TEN, enabled=False)
    server.clock.advance(timedelta(seconds=1))
    await skip_items(server)
    server.clock.advance(timedelta(seconds=1))
    if change == "inactive":
        await server.set_active("ada", active=True)
    else:
        await server.wish("ada", **AT_TEN)

    [period] = await explain(server)

    assert (period.decision, period.reason) == told


async def skip_items(server: GroupServer) -> None:
    """Leaves what a worker leaves that finds that the users do not want it any more."""
    now = server.clock.now()
    for chunk in await claim(server.store, now=now):
        skipped = [
            make_outcome(
                item.index,
                state=ItemState.SKIPPED,
                result_json=None,
                skip_reason="PREFERENCE_DISABLED",
                end_micros=to_micros(now),
            )
            for item in chunk.items
        ]
        await server.store.chunks.record([record_of(chunk, skipped)], now=now)


async def test_a_change_of_the_zone_is_told_day_by_day(server: GroupServer):
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **AT_TEN, time_zone="UTC")
    await server.scheduler.run_once()
    await server.run_at(TEN)
    server.clock.advance(HOUR)
    await server.wish("ada", **AT_TEN, time_zone="Asia/Tokyo")
    await server.scheduler.run_once()
    await server.run_at(TEN + DAY - 9 * HOUR)

    told = await explain(server)

    assert in_short(told) == [("2026-03-02", "DONE", ""), ("2026-03-03", "DONE", "")]
    assert [each.due_time for each in told] == [TEN, TEN + DAY - 9 * HOUR]


async def test_who_says_nothing_is_told_each_day(server: GroupServer):
    await server.add_users("ada")
    await server.put_job(include_all_users=True, default_preferences=AT_TEN)
    await server.scheduler.run_once()
    await server.run_at(TEN)
    server.clock.advance(2 * DAY)

    assert in_short(await explain(server)) == [
        ("2026-03-02", "DONE", ""),
        ("2026-03-03", "SKIPPED", "NOT_FIRED"),
        ("2026-03-04", "SKIPPED", "NOT_FIRED"),
    ]


async def test_a_due_time_that_waits_for_the_run_before_it_is_told(server: GroupServer):
    await server.add_users("ada")
    await server.put_job(overlap="queue_one")
    await server.wish("ada", **AT_TEN)
    await server.scheduler.run_once()
    await server.run_at(TEN)
    await server.run_at(TEN + DAY)
    server.clock.advance(timedelta(minutes=1))

    _, waiting = await explain(server)

    assert (waiting.decision, waiting.due_time) == ("NOT_YET", TEN + DAY)
    assert "waits" in waiting.message


async def test_a_run_that_was_made_up_for_days_later_is_told_of_its_own_day(server: GroupServer):
    await server.add_users("ada")
    await server.put_job(catch_up="all", catch_up_window=7 * 86_400)
    await server.wish("ada", **AT_TEN)
    await server.scheduler.run_once()
    await server.run_at(TEN + 2 * DAY - HOUR)
    await server.scheduler.run_once()

    [told] = await explain(server, end=START + 2 * HOUR)

    first, *_ = await server.batches_of()
    assert (told.decision, told.batch_id) == ("DONE", first.batch_id)
