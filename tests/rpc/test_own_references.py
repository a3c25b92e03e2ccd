"""Runs of jobs that preferences drive give each user their own results."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from batchwork.v1.batch_service_pb2 import (
    CancelBatchRequest,
    CancelMode,
    GetItemRequest,
    ListReferencesRequest,
    RetryBatchRequest,
)
from batchwork.v1.job_service_pb2 import RunJobRequest
from batchwork.v1.preference_pb2 import Preference
from batchwork.v1.preference_service_pb2 import SetPreferenceRequest
from batchwork.v1.reference_pb2 import Reference
from batchwork_server.errors import ItemFailed

from tests.fakes import START
from tests.rpc.api import Api, make_job
from tests.rpc.test_list_references import fates, references


@pytest.fixture
async def wishing(server, api) -> None:
    """Three users who want posts, of whom one is nobody."""
    store = server.application.store
    async with store.transaction() as tx:
        users = [("ada", True), ("bob", True)]
        await store.users.load(tx, tenant_id="default", users=users, now=START)
    for user_id in ("ada", "bob", "nobody"):
        preference = Preference(user_id=user_id, feature_type="posts", enabled=True)
        await api.preferences.SetPreference(SetPreferenceRequest(preference=preference))


async def start(api: Api, **fields: Any) -> str:
    job = {"preference_based": True, "feature_type": "posts", "distribute_results": True}
    job = make_job("job-pref", **job | fields)
    del job["category"]
    await api.import_jobs(job)
    run = await api.jobs.RunJob(RunJobRequest(job_id="job-pref"))
    return run.batch.batch_id


async def run(api: Api, **fields: Any) -> str:
    batch_id = await start(api, **fields)
    await api.finished(batch_id)
    return batch_id


async def of_user(api: Api, user_id: str) -> Reference:
    [found] = await references(api, user_id=user_id)
    return found


@pytest.mark.usefixtures("wishing")
async def test_without_a_distribution_each_user_is_given_their_own(api):
    batch_id = await run(api)

    assert fates(await references(api, batch_id=batch_id)) == {
        "ada": ("DELIVERED", ""),
        "bob": ("DELIVERED", ""),
        "nobody": ("FAILED", "USER_NOT_FOUND"),
    }
    ada = await of_user(api, "ada")
    assert (ada.is_own, ada.item_id, ada.feature_type) == (True, "ada", "posts")
    item = await api.batches.GetItem(GetItemRequest(batch_id=batch_id, item_id=ada.item_id))
    assert ada.deliver_time == item.item.end_time
    assert not (await of_user(api, "nobody")).HasField("deliver_time")


@pytest.mark.usefixtures("wishing")
async def test_users_whom_the_job_names_are_given_the_whole_batch_besides(api):
    batch_id = await run(api, distribution={"users": ["bob"]})

    found = await references(api, batch_id=batch_id)

    assert [(each.user_id, each.is_own, each.item_id) for each in found] == [
        ("bob", False, ""),
        ("ada", True, "ada"),
        ("bob", True, "bob"),
        ("nobody", True, "nobody"),
    ]


@pytest.mark.usefixtures("wishing")
async def test_users_of_one_item_each_get_a_reference_to_it(api, processor):
    processor.gate = asyncio.Event()
    batch_id = await start(api, type="object")
    await processor.started.wait()

    meanwhile = fates(await references(api))
    processor.gate.set()
    await api.finished(batch_id)
    found = await references(api)

    assert meanwhile == {
        "ada": ("PENDING", ""),
        "bob": ("PENDING", ""),
        "nobody": ("FAILED", "USER_NOT_FOUND"),
    }
    assert fates(found)["bob"] == ("DELIVERED", "")
    assert len({each.item_id for each in found if each.user_id != "nobody"}) == 1
    assert [each.item_id for each in found if each.user_id == "nobody"] == [""]


@pytest.mark.usefixtures("wishing")
async def test_nobody_is_given_anything_when_the_job_does_not_distribute(api):
    await run(api, distribute_results=False)

    assert await references(api) == []


@pytest.mark.usefixtures("wishing")
async def test_each_state_follows_the_user_s_own_item(api, processor):
    processor.on("bob", ItemFailed("BROKEN", "It is broken.", retryable=False))

    batch_id = await run(api)
    before = fates(await references(api))
    await api.batches.RetryBatch(RetryBatchRequest(batch_id=batch_id))
    await api.finished(batch_id)
    after = fates(await references(api))

    assert (before["ada"], before["bob"]) == (("DELIVERED", ""), ("FAILED", "BROKEN"))
    assert (after["ada"], after["bob"]) == (("DELIVERED", ""), ("DELIVERED", ""))


@pytest.mark.usefixtures("wishing")
async def test_what_was_cancelled_is_not_delivered(api, processor):
    processor.gate = asyncio.Event()
    batch_id = await start(api)
    await processor.started.wait()

    mode = CancelMode.CANCEL_MODE_STOP_IN_FLIGHT
    await api.batches.CancelBatch(CancelBatchRequest(batch_id=batch_id, mode=mode))
    await api.finished(batch_id)

    assert fates(await references(api))["ada"] == ("FAILED", "CANCELLED")


@pytest.mark.usefixtures("wishing")
async def test_pages_go_through_named_and_own_references(api):
    ids = [await run(api, distribution={"users": ["ada"]}) for _ in range(2)]

    found, token = [], ""
    while True:
        request = ListReferencesRequest(page_size=3, page_token=token, job_id="job-pref")
        response = await api.batches.ListReferences(request)
        found += [(each.batch_id, each.user_id, each.is_own) for each in response.references]
        token = response.next_page_token
        if not token:
            break

    one = [("ada", False), ("ada", True), ("bob", True), ("nobody", True)]
    assert found == [(batch_id, *each) for batch_id in reversed(ids) for each in one]
