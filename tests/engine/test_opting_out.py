"""A user who does not want a feature any more is spared, also in a batch that runs already."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from batchwork_server.domain.batch import Batch, Counts
from batchwork_server.domain.filters import ReferenceFilter
from batchwork_server.domain.job import DataSource, JobShape, PreferenceSource
from batchwork_server.domain.preference import Preference
from batchwork_server.domain.submission import Idempotency, Submission
from batchwork_server.errors import ItemFailed, StoreUnavailable

from tests.engine.conftest import CALLER, Worker, gated
from tests.factories import TENANT
from tests.fakes import START, FakeProcessor

USERS = ("ann", "bob", "eve")


async def put(
    worker: Worker,
    user_id: str,
    *,
    enabled: bool = True,
    active: bool = True,
    revision: int = 1,
    **overrides: Any,
) -> None:
    preference = Preference(
        tenant_id=TENANT,
        user_id=user_id,
        feature_type="digest",
        enabled=enabled,
        schedule=None,
        template_overrides=overrides,
        revision=revision,
        active=active,
        create_time=START,
        update_time=START,
    )
    async with worker.store.transaction() as tx:
        await worker.store.preferences.lock(tx, [], tenant_id=TENANT)
        await worker.store.preferences.put(tx, [preference], tenant_id=TENANT, now=START)
        await worker.store.inactive_users.put(tx, {user_id: active}, tenant_id=TENANT)


async def run(worker: Worker, **changes: Any) -> Batch:
    """Runs a preference-based job over all users."""
    worker.users.add(*USERS)
    for user_id in USERS:
        await put(worker, user_id)
    return await worker.batches.create_batch(
        Submission(
            **{
                "template_id": "scripted",
                "feature_type": "digest",
                "preference_source": PreferenceSource.DYNAMIC,
                "data_source": DataSource.USERS,
            }
            | changes
        ),
        caller=CALLER,
        idempotency=Idempotency(),
    )


async def test_who_opts_out_during_a_run_is_skipped_from_then_on(start_worker):
    work = FakeProcessor()
    worker = await start_worker(work, slots=1)
    async with gated(work) as gate:
        batch = await run(worker)
        await work.started.wait()
        await put(worker, "ann", enabled=False, revision=2)
        await put(worker, "eve", enabled=False, revision=2)
        gate.set()
        batch = await worker.finish(batch)

    assert batch.counts == Counts(total=3, succeeded=2, skipped=1)
    assert [call.user_id for call in work.calls] == ["ann", "bob"], "ann was in flight"
    item = await worker.store.batches.get_item(batch, "eve")
    assert item.skip_reason == "PREFERENCE_DISABLED"


async def test_who_has_no_preference_any_more_is_served(start_worker, monkeypatch):
    work = FakeProcessor()
    worker = await start_worker(work)
    asked = []

    async def gone(user_id, **key):
        asked.append(key | {"user_id": user_id})

    monkeypatch.setattr(worker.store.opt_outs, "reason_of", gone)
    batch = await worker.finish(await run(worker))

    assert batch.counts == Counts(total=3, succeeded=3)
    assert {key["user_id"] for key in asked} == set(USERS)
    assert {(key["tenant_id"], key["feature_type"]) for key in asked} == {(TENANT, "digest")}


async def test_a_batch_that_no_preference_drives_asks_nobody(start_worker, monkeypatch):
    worker = await start_worker(FakeProcessor())

    async def refuse(*_users, **_key):
        pytest.fail("There is no preference to look at.")

    monkeypatch.setattr(worker.store.opt_outs, "reason_of", refuse)
    monkeypatch.setattr(worker.store.opt_outs, "take_out", refuse)
    batch = await worker.finish(await worker.submit(["ann"], data_source=DataSource.USERS))

    assert batch.counts.total == 1


async def test_while_it_cannot_be_told_who_wants_it_nothing_is_done_or_lost(
    start_worker, monkeypatch
):
    work = FakeProcessor()
    worker = await start_worker(work)
    reason_of = worker.store.opt_outs.reason_of
    failures = iter([True] * 4)

    async def flaky(user_id, **key):
        if next(failures, False):
            raise StoreUnavailable("The database does not answer.")
        return await reason_of(user_id, **key)

    monkeypatch.setattr(worker.store.opt_outs, "reason_of", flaky)
    batch = await worker.finish(await run(worker))

    assert batch.counts == Counts(total=3, succeeded=3)
    assert sorted(call.item_id for call in work.calls) == list(USERS)


SHARED = {"shape": JobShape.OBJECT, "delivers_own": True}
SOURCES = pytest.mark.parametrize("source", [DataSource.USERS, DataSource.CATEGORIES])


def users_of(call) -> list[str]:
    """Returns for whom the processor was asked to work."""
    if "users" in call.data:
        assert call.data["count"] == len(call.data["users"])
        return [member["user_id"] for member in call.data["users"]]
    user_ids: list[str] = call.data["user_ids"]
    return user_ids


async def fates(worker: Worker, batch: Batch) -> dict[str, tuple[str, str]]:
    """Returns the states of the references of a batch, and why they are so."""
    wanted = ReferenceFilter(tenant_id=TENANT, batch_id=batch.batch_id)
    found, _ = await worker.store.references.list(wanted, page_size=10, after=None)
    return {each.recipient.user_id: (each.state.value, each.reason) for each in found}


@pytest.fixture
def once_failing() -> FakeProcessor:
    """What comes to nothing at the first attempt at each item."""

    class OnceFailing(FakeProcessor):
        async def process(self, call):
            result = await super().process(call)
            if self.attempts(call.item_id) == 1:
                raise ItemFailed("BUSY", "Come again.", retryable=True)
            return result

    return OnceFailing()


@SOURCES
async def test_who_opts_out_of_an_item_that_others_share_is_left_out_of_it(
    start_worker, once_failing, source
):
    worker = await start_worker(once_failing)
    async with gated(once_failing) as gate:
        batch = await run(worker, data_source=source, **SHARED)
        await once_failing.started.wait()
        await put(worker, "ann", enabled=False, revision=2)
        await put(worker, "eve", active=False, revision=2)
        gate.set()
        batch = await worker.finish(batch)

    assert batch.counts == Counts(total=1, succeeded=1, retries=1)
    assert [users_of(call) for call in once_failing.calls] == [list(USERS), ["bob"]]
    assert await fates(worker, batch) == {
        "ann": ("FAILED", "PREFERENCE_DISABLED"),
        "bob": ("DELIVERED", ""),
        "eve": ("FAILED", "TENANT_INACTIVE"),
    }


async def test_who_was_left_out_stays_out_of_later_attempts(start_worker):
    work = FakeProcessor()
    worker = await start_worker(work, retry_limit=0)
    async with gated(work) as gate:
        batch = await run(worker, **SHARED)
        await work.started.wait()
        work.on(work.calls[0].item_id, *[ItemFailed("BROKEN", "It broke.", retryable=True)] * 2)
        gate.set()
        batch = await worker.finish(batch)

    for enabled in (False, True):
        await put(worker, "ann", enabled=enabled, revision=2)
        await worker.retry(batch)
        batch = await worker.finish(batch)

    assert [users_of(call) for call in work.calls] == [list(USERS), ["bob", "eve"], ["bob", "eve"]]
    assert (await fates(worker, batch))["ann"] == ("FAILED", "PREFERENCE_DISABLED")


@SOURCES
async def test_an_item_is_skipped_of_which_nobody_is_left(start_worker, once_failing, source):
    worker = await start_worker(once_failing)
    async with gated(once_failing) as gate:
        batch = await run(worker, data_source=source, **SHARED)
        await once_failing.started.wait()
        for user_id in USERS:
            await put(worker, user_id, active=False, revision=2)
        gate.set()
        batch = await worker.finish(batch)

    assert batch.counts == Counts(total=1, skipped=1, retries=1)
    assert len(once_failing.calls) == 1
    [item] = await worker.items(batch)
    assert item.skip_reason == "TENANT_INACTIVE"
    assert set((await fates(worker, batch)).values()) == {("FAILED", "TENANT_INACTIVE")}


async def test_who_rests_since_a_run_began_is_told_apart_from_who_opted_out(start_worker):
    work = FakeProcessor()
    worker = await start_worker(work, slots=1)
    async with gated(work) as gate:
        batch = await run(worker)
        await work.started.wait()
        await put(worker, "eve", active=False, revision=2)
        gate.set()
        batch = await worker.finish(batch)

    item = await worker.store.batches.get_item(batch, "eve")
    assert item.skip_reason == "TENANT_INACTIVE"


async def test_an_attempt_begins_when_that_is_known(start_worker, clock, monkeypatch):
    # The story: a slow answer counted as the processor's time, and the item was given up before
    # its processor had begun.
    worker = await start_worker(slots=1, clock=clock)
    asked, answered = asyncio.Event(), asyncio.Event()

    async def slow(_user_id: str, **_key: str) -> None:
        asked.set()
        await answered.wait()

    monkeypatch.setattr(worker.store.opt_outs, "reason_of", slow)
    batch = await run(worker)
    await asked.wait()
    for _ in range(10):
        clock.advance(timedelta(minutes=1))
        for _ in range(50):
            await asyncio.sleep(0)
    answered.set()
    batch = await worker.end_of(batch)

    assert batch.counts == Counts(total=3, succeeded=3)
    assert {item.start_time for item in await worker.items(batch)} == {clock.now()}
