"""A user who does not want a feature any more is spared, also in a batch that runs already."""

from __future__ import annotations

import pytest
from batchwork_server.domain.batch import Batch, Counts
from batchwork_server.domain.job import DataSource, PreferenceSource
from batchwork_server.domain.preference import Preference
from batchwork_server.domain.submission import Idempotency, Submission
from batchwork_server.errors import StoreUnavailable

from tests.engine.conftest import CALLER, Worker, gated
from tests.factories import TENANT
from tests.fakes import START, FakeProcessor

USERS = ("ann", "bob", "eve")


async def put(worker: Worker, user_id: str, *, enabled: bool = True, revision: int = 1) -> None:
    preference = Preference(
        user_id=user_id,
        feature_type="digest",
        enabled=enabled,
        schedule=None,
        template_overrides={},
        revision=revision,
        create_time=START,
        update_time=START,
    )
    async with worker.store.transaction() as tx:
        await worker.store.preferences.lock(tx, [], tenant_id=TENANT)
        await worker.store.preferences.put(tx, [preference], tenant_id=TENANT, now=START)


async def run(worker: Worker) -> Batch:
    """Runs a preference-based job over all users."""
    worker.users.add(*USERS)
    for user_id in USERS:
        await put(worker, user_id)
    return await worker.batches.create_batch(
        Submission(
            template_id="scripted",
            feature_type="digest",
            preference_source=PreferenceSource.DYNAMIC,
            data_source=DataSource.USERS,
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

    async def gone(**key):
        asked.append(key)
        return False

    monkeypatch.setattr(worker.store.preferences, "is_disabled", gone)
    batch = await worker.finish(await run(worker))

    assert batch.counts == Counts(total=3, succeeded=3)
    assert {key["user_id"] for key in asked} == set(USERS)
    assert {(key["tenant_id"], key["feature_type"]) for key in asked} == {(TENANT, "digest")}


async def test_a_batch_that_no_preference_drives_asks_nobody(start_worker, monkeypatch):
    worker = await start_worker(FakeProcessor())

    async def refuse(**_key):
        pytest.fail("There is no preference to look at.")

    monkeypatch.setattr(worker.store.preferences, "is_disabled", refuse)
    batch = await worker.finish(await worker.submit(["ann"], data_source=DataSource.USERS))

    assert batch.counts.total == 1


async def test_while_it_cannot_be_told_who_wants_it_nothing_is_done_or_lost(
    start_worker, monkeypatch
):
    work = FakeProcessor()
    worker = await start_worker(work)
    is_disabled = worker.store.preferences.is_disabled
    failures = iter([True] * 4)

    async def flaky(**key):
        if next(failures, False):
            raise StoreUnavailable("The database does not answer.")
        return await is_disabled(**key)

    monkeypatch.setattr(worker.store.preferences, "is_disabled", flaky)
    batch = await worker.finish(await run(worker))

    assert batch.counts == Counts(total=3, succeeded=3)
    assert sorted(call.item_id for call in work.calls) == list(USERS)
