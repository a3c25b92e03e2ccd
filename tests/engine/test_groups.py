"""Groups of preferences fire: every user at the time they want, once in each of their periods."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from batchwork_server import failpoints
from batchwork_server.application import group_pages
from batchwork_server.application.once import Once
from batchwork_server.domain.batch import BatchState
from batchwork_server.domain.filters import ReferenceFilter
from batchwork_server.errors import StoreUnavailable
from batchwork_server.store.database import Database

from tests.engine.groups import FEATURE, JOB, GroupServer
from tests.factories import TENANT
from tests.fakes import START, FakeClock

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
TEN = START + HOUR  # START is nine o'clock
NINE = {"frequency": "daily", "preferred_time": "09:00"}
AT_TEN = {"frequency": "daily", "preferred_time": "10:00"}
AT_SIX = {"frequency": "daily", "preferred_time": "18:00"}


@pytest.fixture
def server(database: Database, clock: FakeClock) -> GroupServer:
    return GroupServer(database, clock=clock)


async def test_a_group_becomes_one_batch_at_its_time(server: GroupServer):
    await server.add_users("ada", "bob", "eve")
    await server.put_job()
    await server.wish("ada", **AT_TEN, template_overrides={"tone": "dry"})
    await server.wish("bob", **AT_TEN)
    await server.wish("eve", **AT_SIX)

    await server.run_at(TEN - MINUTE)
    early = await server.batches_of()
    await server.run_at(TEN)
    await server.run_at(TEN + MINUTE)

    assert early == []
    [batch] = await server.batches_of()
    assert (batch.state, batch.counts.total) == (BatchState.PENDING, 2)
    request = batch.request
    assert (request.source, request.feature_type, request.due_time) == ("preference", FEATURE, TEN)
    assert batch.batch_id.startswith("bat_preference_")
    assert request.batch_metadata["frequency"] == "daily"
    assert (request.batch_metadata["at"], request.batch_metadata["time_zone"]) == ("10:00", "UTC")
    ada, bob = await server.items_of(batch)
    assert json.loads(ada.data_json)["template_overrides"] == {"tone": "dry"}
    assert len(json.loads(bob.data_json)["items"]) == 2
    [occurrence] = await server.occurrences_of()
    assert (occurrence.due_time, occurrence.decision) == (TEN, "FIRED")
    assert occurrence.batch_id == batch.batch_id
    assert str(occurrence.group_key) == request.batch_metadata["group_key"]


async def test_a_group_fires_every_day(server: GroupServer):
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **AT_TEN)

    await server.scheduler.run_once()
    for day in range(3):
        await server.run_at(TEN + day * DAY)

    assert await server.fates() == [{"ada": ""}] * 3


async def test_the_users_of_the_distribution_get_a_reference_to_each_run(server: GroupServer):
    await server.add_users("ada", "eva")
    await server.put_job(distribute_results=True, distribution={"users": ["eva"]})
    await server.wish("ada", **AT_TEN)

    await server.scheduler.run_once()
    await server.run_at(TEN)

    [batch] = await server.batches_of()
    wanted = ReferenceFilter(tenant_id=TENANT, batch_id=batch.batch_id)
    [named, own], _ = await server.store.references.list(wanted, page_size=10, after=None)
    assert (named.recipient.user_id, named.item) == ("eva", None)
    assert own.recipient.user_id == "ada"


async def test_disabled_users_are_not_members(server: GroupServer):
    await server.add_users("ada", "bob")
    await server.put_job()
    await server.wish("ada", **AT_TEN)
    await server.wish("bob", enabled=False, **AT_TEN)

    await server.scheduler.run_once()
    await server.run_at(TEN)

    assert await server.fates() == [{"ada": ""}]


async def test_who_cannot_be_served_is_skipped_with_the_reason_and_may_come_later(
    server: GroupServer,
):
    await server.add_users("ada", "ida")
    await server.add_users("joe", active=False)
    await server.put_job()
    for user in ("ada", "ida", "joe", "nobody"):
        await server.wish(user, **AT_TEN)
    await server.set_active("ida", active=False)

    await server.scheduler.run_once()
    await server.run_at(TEN)
    await server.add_users("joe")
    await server.wish("joe", **AT_SIX)
    await server.run_at(TEN + 8 * HOUR)

    first, second = await server.fates()
    assert first == {
        "ada": "",
        "ida": "TENANT_INACTIVE",
        "joe": "USER_INACTIVE",
        "nobody": "USER_NOT_FOUND",
    }
    assert second == {"joe": ""}


async def test_a_user_who_has_had_their_run_today_is_not_served_again(server: GroupServer):
    await server.add_users("ada", "eve")
    await server.put_job()
    await server.wish("ada", **AT_TEN)
    await server.wish("eve", **AT_SIX)

    await server.scheduler.run_once()
    await server.run_at(TEN)
    await server.wish("ada", **AT_SIX)
    await server.run_at(TEN + 8 * HOUR)
    await server.run_at(TEN + 8 * HOUR + DAY)

    assert await server.fates() == [
        {"ada": ""},
        {"ada": "ALREADY_DONE", "eve": ""},
        {"ada": "", "eve": ""},
    ]


async def test_a_user_who_moves_to_a_time_that_is_over_stays_a_guest_once(server: GroupServer):
    await server.add_users("ada", "eve")
    await server.put_job()
    await server.wish("ada", **AT_SIX)
    await server.wish("eve", **AT_SIX)

    await server.scheduler.run_once()
    await server.run_at(TEN)
    await server.wish("ada", **NINE)
    await server.run_at(TEN + 8 * HOUR)
    await server.run_at(START + DAY)
    await server.run_at(TEN + 8 * HOUR + DAY)

    assert await server.fates() == [{"ada": "", "eve": ""}, {"ada": ""}, {"eve": ""}]


async def test_who_opts_out_is_nobodys_guest(server: GroupServer):
    await server.add_users("ada", "eve")
    await server.put_job()
    await server.wish("ada", **AT_SIX)
    await server.wish("eve", **AT_SIX)

    await server.run_at(TEN)
    await server.wish("ada", enabled=False, **AT_SIX)
    await server.wish("ada", **NINE)
    await server.run_at(TEN + 8 * HOUR)

    assert await server.fates() == [{"eve": ""}]


async def test_a_new_default_moves_a_group_and_leaves_nobody_out(server: GroupServer):
    await server.add_users("ada")
    await server.set_default(**AT_SIX)
    await server.put_job()
    await server.wish("ada")

    await server.run_at(TEN)
    await server.set_default(**NINE)
    await server.run_at(TEN + 8 * HOUR)
    await server.run_at(START + DAY)
    await server.run_at(TEN + 8 * HOUR + DAY)

    assert [each.due_time for each in await server.occurrences_of()] == [
        TEN + 8 * HOUR,
        START + DAY,
    ]
    assert await server.fates() == [{"ada": ""}] * 2


async def test_overrides_are_those_of_the_user_over_the_tenants_over_the_jobs(
    server: GroupServer,
):
    await server.add_users("ada")
    await server.put_job(
        default_preferences=AT_TEN
        | {"template_overrides": {"tone": "job", "length": "job", "pace": "job"}}
    )
    await server.set_default(template_overrides={"tone": "tenant", "length": "tenant"})
    await server.wish("ada", template_overrides={"tone": "ada"})

    await server.scheduler.run_once()
    await server.run_at(TEN)

    [batch] = await server.batches_of()
    [item] = await server.items_of(batch)
    assert json.loads(item.data_json)["template_overrides"] == {
        "tone": "ada",
        "length": "tenant",
        "pace": "job",
    }


async def test_users_who_say_nothing_are_served_when_the_job_says_so(server: GroupServer):
    await server.add_users("ada", "bob", "eve", "off")
    await server.add_users("joe", active=False)
    await server.put_job(default_preferences=AT_TEN, include_all_users=True)
    await server.put_job("job_strict", default_preferences=AT_TEN)
    await server.wish("ada")
    await server.wish("eve", **AT_SIX)
    await server.wish("off", enabled=False)

    await server.scheduler.run_once()
    await server.run_at(TEN)

    assert await server.fates() == [{"ada": "", "bob": ""}]
    assert await server.fates("job_strict") == [{"ada": ""}]


async def test_users_who_say_nothing_are_left_alone_when_the_tenant_says_so(server: GroupServer):
    await server.add_users("ada", "bob")
    await server.put_job(default_preferences=AT_TEN, include_all_users=True)
    await server.set_default(enabled=False)
    await server.wish("ada")

    await server.scheduler.run_once()
    await server.run_at(TEN)

    assert await server.fates() == [{"ada": ""}]


async def test_a_shared_item_uses_up_the_period_of_everybody_in_it(server: GroupServer):
    await server.add_users("ada", "bob", "eve")
    await server.put_job(type="object", preference_based=True)
    await server.wish("ada", **AT_TEN)
    await server.wish("bob", **AT_TEN)
    await server.wish("eve", **AT_SIX)

    await server.scheduler.run_once()
    await server.run_at(TEN)
    await server.wish("ada", **AT_SIX)
    await server.run_at(TEN + 8 * HOUR)

    first, second = await server.batches_of()
    [shared] = await server.items_of(first)
    [other] = await server.items_of(second)
    assert json.loads(shared.data_json)["user_ids"] == ["ada", "bob"]
    assert json.loads(other.data_json)["user_ids"] == ["eve"]
    runs = await server.store.group_runs.runs_of(["ada", "bob"], job_id=JOB, tenant_id=TENANT)
    assert {run.item_id for run in runs.values()} == {shared.item_id}
    assert runs["ada"].look_reason == "ALREADY_DONE"


ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata")


@pytest.mark.parametrize(
    "day",
    [
        pytest.param(datetime(2026, 3, 7, tzinfo=UTC), id="New York in spring"),
        pytest.param(datetime(2026, 3, 28, tzinfo=UTC), id="Berlin in spring"),
        pytest.param(datetime(2026, 4, 4, tzinfo=UTC), id="Lord Howe in autumn, by half an hour"),
        pytest.param(datetime(2026, 10, 24, tzinfo=UTC), id="Berlin in autumn"),
        pytest.param(datetime(2026, 10, 31, tzinfo=UTC), id="New York in autumn"),
    ],
)
async def test_users_in_four_zones_are_served_once_on_each_day(database: Database, day: datetime):
    clock = FakeClock(day)
    server = GroupServer(database, clock=clock)
    await server.add_users(*ZONES)
    await server.put_job()
    for zone in ZONES:
        await server.wish(zone, frequency="daily", preferred_time="02:15", time_zone=zone)

    await server.scheduler.run_once()
    for hour in range(1, 3 * 24 + 1):
        await server.run_at(day + hour * HOUR)

    fates = await server.fates()
    assert Counter(user for users in fates for user in users) == dict.fromkeys(ZONES, 3)
    assert {reason for users in fates for reason in users.values()} == {""}


async def test_of_several_schedulers_one_fires_each_group(database: Database, clock: FakeClock):
    servers = [GroupServer(database, clock=clock) for _ in range(4)]
    users = [f"user_{n}" for n in range(30)]
    await servers[0].add_users(*users)
    await servers[0].put_job()
    for number, user in enumerate(users):
        at = {"frequency": "daily", "preferred_time": f"10:{number % 5:02}"}
        await servers[0].wish(user, **at)

    await asyncio.gather(*(server.scheduler.run_once() for server in servers))
    for day in range(2):
        clock.advance(TEN + 5 * MINUTE + day * DAY - clock.now())
        await asyncio.gather(*(server.scheduler.run_once() for server in servers))

    fates = await servers[0].fates()
    assert len(fates) == 10
    assert Counter(user for served in fates for user in served) == dict.fromkeys(users, 2)
    assert {reason for served in fates for reason in served.values()} == {""}


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_pages, "PAGE_USERS", 10)


USERS = [f"user_{n:03}" for n in range(45)]


async def large_group(server: GroupServer) -> None:
    await server.add_users(*USERS)
    await server.put_job()
    for user in USERS:
        await server.wish(user, **AT_TEN)
    await server.scheduler.run_once()


@pytest.mark.usefixtures("small_pages")
async def test_a_large_group_is_one_batch_filled_page_by_page(server: GroupServer):
    await large_group(server)

    await server.run_at(TEN)

    [batch] = await server.batches_of()
    assert (batch.state, batch.counts.total, batch.counts.pending) == (BatchState.PENDING, 45, 45)
    assert [item.item_id for item in await server.items_of(batch)] == USERS
    assert batch.request.user_validation.valid == 45


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("pages", [0, 1, 2, 3])
async def test_what_a_killed_server_leaves_half_filled_another_one_goes_on_with(
    database: Database, clock: FakeClock, pages: int
):
    dying, heir = (GroupServer(database, clock=clock) for _ in range(2))
    await large_group(dying)
    point = "fill.committed" if pages else "fire.committed"
    failpoints.arm(point, "raise", after=max(pages - 1, 0))
    try:
        with pytest.raises(failpoints.Failpoint):
            await dying.run_at(TEN)
    finally:
        failpoints.disarm()

    await heir.run_at(TEN + timedelta(seconds=29))
    [early] = await heir.batches_of()
    await heir.run_at(TEN + timedelta(seconds=31))
    await heir.run_at(TEN + timedelta(seconds=62))

    [batch] = await heir.batches_of()
    assert (early.state, early.counts.total) == (BatchState.DRAFT, 10 * (pages + 1))
    assert (batch.state, batch.counts.total) == (BatchState.PENDING, 45)
    assert [item.item_id for item in await heir.items_of(batch)] == USERS
    assert [each.decision for each in await heir.occurrences_of()] == ["FIRED"]


@pytest.mark.usefixtures("small_pages")
async def test_a_database_that_is_away_between_pages_loses_nobody(
    server: GroupServer, monkeypatch: pytest.MonkeyPatch
):
    await large_group(server)
    append, calls = server.store.uploads.append, 0

    async def sometimes(*args: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise StoreUnavailable("The database is away.")
        return await append(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(server.store.uploads, "append", sometimes)
    with pytest.raises(StoreUnavailable):
        await server.run_at(TEN)
    await server.run_at(TEN + timedelta(seconds=31))

    [batch] = await server.batches_of()
    assert (batch.state, batch.counts.total) == (BatchState.PENDING, 45)


@pytest.mark.usefixtures("small_pages")
async def test_changes_while_a_batch_is_filled_serve_nobody_twice(
    database: Database, clock: FakeClock
):
    """Between two pages one user moves on, another opts out, a third one comes back in front."""
    dying, heir = (GroupServer(database, clock=clock) for _ in range(2))
    await large_group(dying)
    failpoints.arm("fire.committed", "raise")
    try:
        with pytest.raises(failpoints.Failpoint):
            await dying.run_at(TEN)
    finally:
        failpoints.disarm()
    await heir.wish(USERS[0], **AT_SIX)  # is in the first page
    await heir.wish(USERS[30], **AT_SIX)  # would be in the fourth one
    await heir.wish(USERS[40], enabled=False, **AT_TEN)
    await heir.wish(USERS[1], **NINE)  # is in the first page; for NINE today is over

    await heir.run_at(TEN + MINUTE)
    await heir.run_at(TEN + 8 * HOUR)

    first, second = await heir.fates()
    assert first == dict.fromkeys([*USERS[:30], *USERS[31:40], *USERS[41:]], "")
    assert second == {USERS[0]: "ALREADY_DONE", USERS[30]: ""}


async def test_a_draft_that_somebody_cancels_is_filled_no_more(
    database: Database, clock: FakeClock, small_pages: None
):
    dying, heir = (GroupServer(database, clock=clock) for _ in range(2))
    await large_group(dying)
    failpoints.arm("fire.committed", "raise")
    try:
        with pytest.raises(failpoints.Failpoint):
            await dying.run_at(TEN)
    finally:
        failpoints.disarm()
    await heir.end_runs()

    await heir.run_at(TEN + MINUTE)
    await heir.run_at(TEN + DAY)

    first, second = await heir.batches_of()
    assert (first.state, first.counts.total) == (BatchState.CANCELLED, 10)
    assert second.counts.total == 45


async def test_a_run_that_goes_on_keeps_the_next_one_away(server: GroupServer):
    await server.add_users("ada")
    await server.put_job(overlap="skip")
    await server.wish("ada", frequency="hourly", minute=0)

    await server.run_at(START + MINUTE)
    await server.run_at(TEN)
    await server.run_at(TEN + HOUR)
    await server.end_runs()
    await server.run_at(TEN + 2 * HOUR)

    assert [each.reason or each.decision for each in await server.occurrences_of()] == [
        "FIRED",
        "OVERLAP",
        "FIRED",
    ]


async def test_a_run_that_waits_begins_when_the_one_before_it_is_over(server: GroupServer):
    await server.add_users("ada")
    await server.put_job(overlap="queue_one")
    await server.wish("ada", frequency="hourly", minute=0)

    await server.run_at(START + MINUTE)
    await server.run_at(TEN)
    await server.run_at(TEN + HOUR)
    await server.run_at(TEN + HOUR + 20 * MINUTE)
    waiting = await server.occurrences_of()
    await server.end_runs()
    await server.run_at(TEN + HOUR + 30 * MINUTE)

    assert [each.due_time for each in waiting] == [TEN]
    assert [(each.due_time, each.decision) for each in await server.occurrences_of()] == [
        (TEN, "FIRED"),
        (TEN + HOUR, "FIRED"),
    ]


async def test_a_newer_run_takes_the_place_of_the_one_before_it(server: GroupServer):
    await server.add_users("ada", "eve")
    await server.put_job(overlap="cancel_previous")
    await server.wish("ada", frequency="hourly", minute=0)
    await server.wish("eve", frequency="hourly", minute=30)

    await server.run_at(START + MINUTE)
    for half in range(3):
        await server.run_at(START + 30 * MINUTE + half * 30 * MINUTE)

    states = [batch.state for batch in await server.batches_of()]
    assert states == [BatchState.CANCELLING, BatchState.PENDING, BatchState.PENDING]


async def test_a_paused_job_has_not_missed_anything(server: GroupServer):
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", frequency="hourly", minute=0)

    await server.run_at(START + MINUTE)
    await server.jobs.pause_job(JOB, tenant_id=TENANT)
    await server.run_at(TEN)
    await server.run_at(TEN + HOUR + MINUTE)
    await server.jobs.resume_job(JOB, tenant_id=TENANT)
    await server.run_at(TEN + HOUR + 2 * MINUTE)
    await server.run_at(TEN + 2 * HOUR)

    assert [each.due_time for each in await server.occurrences_of()] == [TEN + 2 * HOUR]


async def test_after_a_long_silence_the_latest_run_is_made_up_for(server: GroupServer):
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **AT_TEN)

    await server.scheduler.run_once()
    await server.run_at(TEN + 3 * DAY + HOUR)

    assert [each.reason or each.decision for each in await server.occurrences_of()] == [
        *["OUTSIDE_WINDOW"] * 3,
        "CAUGHT_UP",
    ]
    assert await server.fates() == [{"ada": ""}]


async def test_a_run_that_cannot_be_made_is_told(server: GroupServer):
    await server.add_users("ada")
    await server.put_job(category="nothing")
    await server.wish("ada", **AT_TEN)

    await server.scheduler.run_once()
    await server.run_at(TEN)

    [occurrence] = await server.occurrences_of()
    assert (occurrence.decision, occurrence.reason) == ("SKIPPED", "RUN_FAILED")
    assert "nothing" in occurrence.message


async def test_who_waits_for_all_that_is_due_waits_for_groups_too(server: GroupServer):
    await server.add_users("ada")
    await server.put_job()
    await server.put_job("job_broken", category="nothing")
    await server.wish("ada", **AT_TEN)
    await server.run_at(START + MINUTE)
    once = Once(
        store=server.store,
        batches=server.batches,
        firing=server.firing,
        groups=server.groups,
        clock=server.clock,
        wakeups=server.wakeups,
    )
    server.clock.advance(TEN - server.clock.now())

    waiting = asyncio.create_task(once.run_due())
    async with asyncio.timeout(30):
        while not await server.batches_of():
            await asyncio.sleep(0)
    await server.end_runs()
    server.clock.advance(timedelta(seconds=1))
    async with asyncio.timeout(30):
        while not waiting.done():
            server.clock.advance(timedelta(seconds=1))
            await asyncio.sleep(0)
    outcome = await waiting

    assert [batch.request.job_id for batch in outcome.batches] == [JOB]
    [problem] = outcome.problems
    assert "job_broken" in problem


async def test_a_job_that_changes_between_the_look_and_the_firing_is_looked_at_again(
    server: GroupServer,
):
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **AT_TEN)
    await server.scheduler.run_once()
    await server.put_job(description="another one")

    server.clock.advance(TEN - server.clock.now())
    while await server.groups.fire_due():
        pass
    early = await server.batches_of()
    await server.run_at(TEN + timedelta(seconds=2))

    assert early == []
    [batch] = await server.batches_of()
    assert (batch.request.due_time, batch.request.job_revision) == (TEN, 2)


async def test_a_job_that_is_gone_fires_no_more(server: GroupServer):
    await server.add_users("ada")
    await server.put_job()
    await server.wish("ada", **AT_TEN)
    await server.scheduler.run_once()

    await server.jobs.delete_job(JOB, tenant_id=TENANT)
    await server.run_at(TEN)

    assert await server.occurrences_of() == []
    assert await server.store.group_schedules.due(now=TEN + 9 * DAY, limit=10) == []
