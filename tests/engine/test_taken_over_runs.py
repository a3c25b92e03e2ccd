"""A run of a group keeps by what it began, whoever fills it and whatever changes meanwhile."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from batchwork_server import failpoints
from batchwork_server.application import group_pages
from batchwork_server.domain.batch import BatchState
from batchwork_server.domain.group_schedules import RunTerms
from batchwork_server.store.database import Database

from tests.engine.groups import JOB, GroupServer
from tests.factories import TENANT, make_loaded_item
from tests.fakes import START, FakeClock

TEN = START + timedelta(hours=1)  # START is nine o'clock
LEASE_OVER = TEN + timedelta(seconds=31)
AT_TEN = {"frequency": "daily", "preferred_time": "10:00"}
AT_SIX = {"frequency": "daily", "preferred_time": "18:00"}
USERS = [f"user_{n:03}" for n in range(45)]


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_pages, "PAGE_USERS", 10)


async def begin_and_die(server: GroupServer) -> None:
    """Begins a run for everybody, and leaves it after its first page."""
    await server.set_default(template_overrides={"b": 1}, **AT_TEN)
    await server.add_users(*USERS)
    await server.put_job(default_preferences={"template_overrides": {"a": 1}})
    for user in USERS:
        await server.wish(user)
    await server.scheduler.run_once()
    failpoints.arm("fire.committed", "raise")
    try:
        with pytest.raises(failpoints.Failpoint):
            await server.run_at(TEN)
    finally:
        failpoints.disarm()


async def change(server: GroupServer) -> None:
    server.categories.add("tips", make_loaded_item("tip_1"))
    await server.put_job(category="tips", default_preferences={"template_overrides": {"a": 2}})


async def make_impossible(server: GroupServer) -> None:
    await server.put_job(category="nothing")


async def delete(server: GroupServer) -> None:
    await server.jobs.delete_job(JOB, tenant_id=TENANT)


async def replace_by_another(server: GroupServer) -> None:
    await delete(server)
    await change(server)


async def set_another_default(server: GroupServer) -> None:
    await server.set_default(template_overrides={"a": 2, "b": 2}, **AT_SIX)


@pytest.mark.parametrize(
    "happens", [change, make_impossible, delete, replace_by_another, set_another_default]
)
async def test_a_run_that_is_taken_over_goes_by_what_it_began_with(
    database: Database, clock: FakeClock, happens: Callable[[GroupServer], Awaitable[None]]
):
    dying, heir = (GroupServer(database, clock=clock) for _ in range(2))
    await begin_and_die(dying)
    await happens(heir)

    await heir.run_at(TEN + timedelta(seconds=5))
    await heir.run_at(LEASE_OVER)
    await heir.run_at(LEASE_OVER + timedelta(seconds=31))

    batch = (await heir.batches_of())[0]
    assert (batch.state, batch.counts.total) == (BatchState.PENDING, 45)
    assert (batch.request.job_revision, batch.request.due_time) == (1, TEN)
    items = await heir.items_of(batch)
    assert [item.item_id for item in items] == USERS
    assert {item.skip_reason for item in items} == {None}
    told = [json.loads(item.data_json) for item in items]
    assert [each["template_overrides"] for each in told] == [{"a": 1, "b": 1}] * 45
    first_page = told[0]["items"]
    assert len(first_page) == 2
    assert all(each["items"] == first_page for each in told)


async def test_what_a_run_goes_by_is_kept_no_longer_than_it_is_filled(
    database: Database, clock: FakeClock
):
    dying, heir = (GroupServer(database, clock=clock) for _ in range(2))
    await begin_and_die(dying)

    kept = await kept_terms(heir)
    await heir.run_at(LEASE_OVER)

    assert kept is not None
    assert kept.job.revision == 1
    assert await kept_terms(heir) is None


async def test_what_a_cancelled_run_goes_by_is_forgotten(database: Database, clock: FakeClock):
    dying, heir = (GroupServer(database, clock=clock) for _ in range(2))
    await begin_and_die(dying)
    await heir.end_runs()

    await heir.run_at(LEASE_OVER)

    assert await kept_terms(heir) is None


async def kept_terms(server: GroupServer) -> RunTerms | None:
    """Returns by what the newest run of the only group goes, while it is filled."""
    [batch] = await server.batches_of()
    key = int(batch.request.batch_metadata["group_key"])
    row = await server.store.group_schedules.get(JOB, key, tenant_id=TENANT)
    assert row is not None
    return await server.store.group_fillings.get(row, batch_id=batch.batch_id)
