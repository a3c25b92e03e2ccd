"""GetContext shows what became of batches, in the shape of the requirement documents."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import pytest
from batchwork.v1.batch_pb2 import BATCH_STATE_SUCCEEDED, BatchState
from batchwork.v1.batch_service_pb2 import GetContextRequest, UploadItemsRequest
from batchwork.v1.context_pb2 import Context
from batchwork.v1.item_pb2 import ItemInput
from batchwork.v1.job_service_pb2 import RunJobRequest
from batchwork.v1.preference_pb2 import Preference
from batchwork.v1.preference_service_pb2 import SetPreferenceRequest
from batchwork_client import connect, context_document
from batchwork_server.bootstrap import serving
from batchwork_server.domain.selection import LoadedItem
from batchwork_server.errors import ItemFailed

from tests.fakes import START
from tests.rpc.api import ADA, BOB, OLGA, Api, as_caller, make_job, refused
from tests.rpc.sources import load_category

USERS = {"data_source_type": "users", "processing_method": "individual"}
CATEGORIES = {"data_source_type": "categories", "processing_method": "individual"}
OF_CATEGORIES = (
    ItemInput(item_id="cat1", user_id="ada", data_json='{"user_ids": ["ada", "gone"]}'),
    ItemInput(item_id="cat2", user_id="nobody"),
)


async def add_users(server, *user_ids: str, tenant_id: str = "default") -> None:
    store = server.application.store
    users = [(user_id, True) for user_id in user_ids]
    async with store.transaction() as tx:
        await store.users.load(tx, tenant_id=tenant_id, users=users, now=START)


async def context_of(api: Api, *batch_ids: str, metadata=(), **fields) -> Context:
    request = GetContextRequest(batch_ids=batch_ids, **fields)
    response = await api.batches.GetContext(request, metadata=metadata)
    return response.context


async def lists_of(api: Api, *batch_ids: str, page_size: int) -> tuple[list[str], list[str]]:
    """Returns the valid and the invalid users of all pages."""
    valid: list[str] = []
    invalid: list[str] = []
    token = ""
    while True:
        request = GetContextRequest(batch_ids=batch_ids, page_size=page_size, page_token=token)
        response = await api.batches.GetContext(request)
        valid += response.context.items.valid_users
        invalid += response.context.items.invalid_users
        token = response.next_page_token
        if not token:
            return valid, invalid


async def finish(api: Api, *items: str | ItemInput, metadata=(), **fields) -> str:
    """Runs a batch to its end and returns its id."""
    inputs = [item if isinstance(item, ItemInput) else ItemInput(item_id=item) for item in items]
    batch = await api.create_batch(items=inputs, metadata=metadata, **fields)
    await api.finished(batch.batch_id, metadata=metadata)
    return batch.batch_id


def counts_in(context: Context) -> tuple[int, int, int, int]:
    """Returns what was validated: all, valid, invalid, unknown."""
    found = context.validation
    return found.total, found.valid, found.invalid, found.unknown


async def test_a_batch_of_users_has_the_context_of_the_documents(api, server, processor):
    valid = [f"user{number}" for number in range(10)]
    await add_users(server, *valid)
    for user_id in ("user8", "user9"):
        processor.on(user_id, ItemFailed("BROKEN", "It is broken.", retryable=False))

    batch_id = await finish(api, *valid, "invalid1", "invalid2", batch_metadata=USERS)
    document = context_document(await context_of(api, batch_id))

    results = document["results"]
    assert document.keys() == {"results"}
    assert results.keys() == {"metadata", "items", "progress", "validation"}
    assert results["items"] == {"valid_users": valid, "invalid_users": ["invalid1", "invalid2"]}
    assert results["progress"] == {
        "processed": 10,
        "succeeded": 8,
        "failed": 2,
        "total": 10,
        "percentage": 100,
    }
    assert results["validation"] == {"total": 12, "valid": 10, "invalid": 2}
    assert results["metadata"]["data_source_type"] == "users"


async def test_a_batch_of_categories_lists_categories(api, server):
    await add_users(server, "ada")
    items = [
        ItemInput(item_id="cat1", user_id="ada"),
        ItemInput(item_id="cat2"),
        ItemInput(item_id="cat3", user_id="nobody"),
    ]
    metadata = CATEGORIES | {"category_type": "product_category"}

    batch_id = await finish(api, *items, batch_metadata=metadata)
    results = context_document(await context_of(api, batch_id))["results"]

    assert results["metadata"]["data_source_type"] == "categories"
    assert results["metadata"]["category_type"] == "product_category"
    assert results["items"] == {
        "valid_categories": ["cat1", "cat2"],
        "invalid_categories": ["cat3"],
        "valid_users": ["ada"],
        "invalid_users": ["nobody"],
    }
    assert results["validation"] == {"total": 3, "valid": 2, "invalid": 1}


async def test_references_of_categories_stand_in_the_metadata_as_in_the_documents(api, server):
    users = [f"user{number}" for number in range(6)]
    await add_users(server, *users)
    named = [["user0", "user1", "gone1"], ["user2", "user3", "user4", "user5"], ["gone2"]]
    items = [
        ItemInput(item_id=f"cat{number}", data_json=json.dumps({"user_ids": user_ids}))
        for number, user_ids in enumerate(named, 1)
    ]
    metadata = CATEGORIES | {"category_type": "product_category"}

    batch_id = await finish(api, *items, batch_metadata=metadata)
    results = context_document(await context_of(api, batch_id))["results"]

    assert results["metadata"]["user_references"] == {"total": 8, "valid": 6, "invalid": 2}
    assert results["items"] == {
        "valid_categories": ["cat1", "cat2"],
        "invalid_categories": ["cat3"],
    }
    assert results["validation"] == {"total": 3, "valid": 2, "invalid": 1}


@pytest.mark.parametrize("method", ["individual", "batch"])
async def test_a_category_that_is_invalid_for_two_reasons_counts_once(api, method):
    """Of one item of all things its store knew no things, and each reason counted by itself."""
    items = [
        ItemInput(item_id="cat1", user_id="gone", data_json='{"user_ids": ["gone"]}'),
        ItemInput(item_id="cat2"),
    ]
    metadata = CATEGORIES | {"processing_method": method}

    both = await finish(api, *items, batch_metadata=metadata)
    alone = await finish(api, items[0], batch_metadata=metadata)

    assert counts_in(await context_of(api, both)) == (2, 1, 1, 0)
    assert counts_in(await context_of(api, alone)) == (1, 0, 1, 0)


async def test_a_thing_of_combined_categories_counts_once(api, server):
    await load_category(
        server, "news", {"n1": {"@user_id": "gone", "user_ids": ["gone"]}, "n2": {}}
    )
    await load_category(server, "sports", {"s1": {"@user_id": "gone"}})
    job = make_job("job-1", type="combined", categories=["news", "sports"])
    del job["category"]
    await api.import_jobs(job)

    run = await api.jobs.RunJob(RunJobRequest(job_id="job-1"))
    await api.finished(run.batch.batch_id)

    assert counts_in(await context_of(api, run.batch.batch_id)) == (3, 1, 2, 0)


async def test_a_category_in_an_upload_counts_once(api):
    draft = await api.create_batch(items=[], draft=True, batch_metadata=CATEGORIES)
    items = [
        ItemInput(item_id="cat1", user_id="gone", data_json='{"user_ids": ["gone"]}'),
        ItemInput(item_id="cat2", user_id="gone"),
        ItemInput(item_id="cat3"),
    ]
    page = UploadItemsRequest(batch_id=draft.batch_id, items=items)

    await api.batches.UploadItems(iter([page]))

    assert counts_in(await context_of(api, draft.batch_id)) == (3, 1, 2, 0)


async def test_a_context_grows_while_the_batch_runs(api, processor):
    processor.gate = asyncio.Event()
    batch = await api.create_batch("a", "b")
    await processor.started.wait()

    before = await context_of(api, batch.batch_id)
    processor.gate.set()
    await api.finished(batch.batch_id)
    after = await context_of(api, batch.batch_id)

    assert (before.progress.processed, before.progress.percent) == (0, 0)
    assert before.progress.total == 2
    assert not before.HasField("end_time")
    assert (after.progress.processed, after.progress.percent) == (2, 100)
    assert after.HasField("end_time")
    [where] = after.batches
    assert (where.state, where.result_count) == (BATCH_STATE_SUCCEEDED, 2)


async def test_lists_come_page_by_page_and_counts_with_each(api, server):
    users = [f"user{number}" for number in range(5)]
    await add_users(server, *users)
    batch_id = await finish(api, *users, batch_metadata=USERS)

    found, token = [], ""
    while True:
        request = GetContextRequest(batch_ids=[batch_id], page_size=2, page_token=token)
        response = await api.batches.GetContext(request)
        found.append(list(response.context.items.valid_users))
        assert response.context.validation.total == 5
        token = response.next_page_token
        if not token:
            break

    assert found == [users[:2], users[2:4], users[4:]]


async def test_a_user_with_several_items_is_listed_once(api, server):
    await add_users(server, "ada")
    items = [ItemInput(item_id=name, user_id="ada") for name in ("a", "b", "c")]

    batch_id = await finish(api, *items)
    pages = [
        await api.batches.GetContext(GetContextRequest(batch_ids=[batch_id], page_size=size))
        for size in (1, 3)
    ]

    assert [list(page.context.items.valid_users) for page in pages] == [["ada"], ["ada"]]
    token = pages[0].next_page_token
    request = GetContextRequest(batch_ids=[batch_id], page_size=1, page_token=token)
    following = await api.batches.GetContext(request)
    assert list(following.context.items.valid_users) == []


async def test_contexts_of_several_batches_are_merged(api, server):
    await add_users(server, "ada", "bob")
    first = await finish(api, "ada", "nobody", batch_metadata=USERS, labels={"week": "1"})
    await add_users(server, "nobody")
    second = await finish(api, "bob", "ada", "nobody", batch_metadata=USERS)

    for size in (1, 2, 100):
        valid, invalid = await lists_of(api, first, second, page_size=size)

        assert valid == ["ada", "bob", "nobody"]
        assert invalid == ["nobody"]

    merged = context_document(await context_of(api, first, second))["results"]
    assert merged["progress"]["processed"] == 4
    assert merged["validation"] == {"total": 5, "valid": 4, "invalid": 1}
    assert merged["metadata"]["batch_type"] == "INDIVIDUAL_USERS"
    assert merged["metadata"]["batches"][first]["labels"] == {"week": "1"}


async def test_the_users_of_one_object_are_listed(api, server):
    await add_users(server, "ada", "bob")
    together = {"data_source_type": "users", "processing_method": "batch"}

    batch_id = await finish(api, "ada", "bob", "nobody", batch_metadata=together)
    found = await context_of(api, batch_id)

    assert list(found.items.valid_users) == ["ada", "bob"]
    assert list(found.items.invalid_users) == ["nobody"]
    assert (found.validation.total, found.validation.valid) == (3, 2)
    assert found.progress.total == 1


async def test_categories_as_a_whole_are_listed_by_name(api, server):
    store = server.application.store
    async with store.transaction() as tx:
        for category in ("news", "sports"):
            thing = LoadedItem(item_id=f"{category}-1", data_json="{}")
            await store.categories.load(
                tx, tenant_id="default", category=category, items=[thing], now=START
            )
    jobs = [
        make_job("job-1", type="object", category="news"),
        make_job("job-2", type="combined", categories=["news", "sports"], category=None),
    ]
    await api.import_jobs(*({k: v for k, v in job.items() if v is not None} for job in jobs))
    ids = []
    for job_id in ("job-1", "job-2"):
        run = await api.jobs.RunJob(RunJobRequest(job_id=job_id))
        await api.finished(run.batch.batch_id)
        ids.append(run.batch.batch_id)

    one = await context_of(api, ids[0])
    both = await context_of(api, *ids)

    assert list(one.items.valid_categories) == ["news"]
    assert list(both.items.valid_categories) == ["news", "sports"]


async def run_for_preferences(api: Api, *wishing: str, **fields: Any) -> str:
    """Runs a preference-based job to its end and returns the id of its batch."""
    fields = {"preference_based": True, "feature_type": "posts"} | fields
    job = make_job("job-pref", **fields)
    del job["category"]
    await api.import_jobs(job)
    for user_id in wishing:
        preference = Preference(user_id=user_id, feature_type="posts", enabled=True)
        await api.preferences.SetPreference(SetPreferenceRequest(preference=preference))
    run = await api.jobs.RunJob(RunJobRequest(job_id="job-pref"))
    await api.finished(run.batch.batch_id)
    return run.batch.batch_id


@pytest.mark.parametrize("shape", ["individual", "object"])
async def test_a_run_for_preferences_lists_its_users(api, server, shape):
    await add_users(server, "ada", "bob")
    batch_id = await run_for_preferences(api, "ada", "bob", "nobody", type=shape)

    found = await context_of(api, batch_id)

    assert list(found.items.valid_users) == ["ada", "bob"]
    assert list(found.items.invalid_users) == ["nobody"]
    assert list(found.items.valid_categories) == []
    assert (found.validation.total, found.validation.invalid) == (3, 1)
    assert found.metadata["feature_type"] == "posts"


async def test_a_context_survives_a_restart(settings, processors):
    async with serving(settings, processors=processors) as first:
        await add_users(first, "ada")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{first.port}") as channel:
            api = Api(channel)
            batch_id = await finish(api, "ada", "nobody", batch_metadata=USERS)
            before = await context_of(api, batch_id)
    async with (
        serving(settings, processors=processors) as second,
        grpc.aio.insecure_channel(f"127.0.0.1:{second.port}") as channel,
    ):
        after = await context_of(Api(channel), batch_id)

    assert after == before
    assert list(after.items.valid_users) == ["ada"]


@pytest.mark.parametrize("kind", ["categories", "preferences", "preferences together"])
async def test_contexts_of_all_kinds_survive_a_restart(settings, processors, kind):
    async with serving(settings, processors=processors) as first:
        await add_users(first, "ada")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{first.port}") as channel:
            api = Api(channel)
            if kind == "categories":
                batch_id = await finish(api, *OF_CATEGORIES, batch_metadata=CATEGORIES)
            else:
                shape = "object" if kind.endswith("together") else "individual"
                batch_id = await run_for_preferences(api, "ada", "nobody", type=shape)
            before = await context_of(api, batch_id)
            of_ada = await context_of(api, batch_id, user_id="ada")
    async with (
        serving(settings, processors=processors) as second,
        grpc.aio.insecure_channel(f"127.0.0.1:{second.port}") as channel,
    ):
        after = await context_of(Api(channel), batch_id)
        of_ada_after = await context_of(Api(channel), batch_id, user_id="ada")

    assert (after, of_ada_after) == (before, of_ada)
    assert counts_in(after) == (2, 1, 1, 0)
    assert counts_in(of_ada_after) == (1, 1, 0, 0)
    assert after.user_references.total == (2 if kind == "categories" else 0)
    assert [each.feature_type for each in after.preferences] == (
        [] if kind == "categories" else ["posts"]
    )


async def test_contexts_with_references_are_merged(api, server):
    await add_users(server, "ada", "bob")
    first = await finish(api, *OF_CATEGORIES, batch_metadata=CATEGORIES)
    second = await finish(
        api,
        ItemInput(item_id="cat1", data_json='{"member_ids": ["bob"]}'),
        ItemInput(item_id="cat3", data_json='{"user_ids": ["gone"]}'),
        batch_metadata=CATEGORIES,
    )
    users = await finish(api, "ada", "nobody", batch_metadata=USERS)

    merged = await context_of(api, first, second, users)
    results = context_document(merged)["results"]

    assert results["metadata"]["user_references"] == {"total": 4, "valid": 2, "invalid": 2}
    assert results["validation"] == {"total": 6, "valid": 3, "invalid": 3}
    assert results["items"] == {
        "valid_categories": ["cat1"],
        "invalid_categories": ["cat2", "cat3"],
        "valid_users": ["ada"],
        "invalid_users": ["nobody"],
    }


async def test_the_client_puts_the_pages_together(api, server, monkeypatch):
    monkeypatch.setattr("batchwork_client.batches.LARGEST_PAGE", 2)
    users = [f"user{number}" for number in range(5)]
    await add_users(server, *users)
    batch_id = await finish(api, *users, "nobody", batch_metadata=USERS)

    async with connect(f"127.0.0.1:{server.port}") as batchwork:
        found = await batchwork.batches.get_context(batch_id)

    assert list(found.items.valid_users) == users
    assert list(found.items.invalid_users) == ["nobody"]
    assert json.loads(json.dumps(context_document(found))) == context_document(found)


async def test_tenants_do_not_see_each_other_s(guarded, guarded_server):
    ids = [
        await finish(guarded, "a", batch_id="same-id", metadata=as_caller(ADA)),
        await finish(guarded, "b", metadata=as_caller(BOB)),
    ]

    other = await refused(
        guarded.batches.GetContext(GetContextRequest(batch_ids=ids), metadata=as_caller(ADA))
    )
    naming = await refused(
        guarded.batches.GetContext(
            GetContextRequest(batch_ids=ids, tenant_id="-"), metadata=as_caller(ADA)
        )
    )
    both = await context_of(guarded, *ids, tenant_id="-", metadata=as_caller(OLGA))

    assert other.code is grpc.StatusCode.NOT_FOUND
    assert naming.code is grpc.StatusCode.PERMISSION_DENIED
    assert [each.tenant_id for each in both.batches] == ["blue", "green"]
    assert both.tenant_id == ""
    assert BatchState.Name(both.batches[0].state) == "BATCH_STATE_SUCCEEDED"


async def test_tenants_do_not_see_each_other_s_users(guarded, guarded_server):
    for key, tenant_id in ((ADA, "blue"), (BOB, "green")):
        await add_users(guarded_server, "eve", tenant_id=tenant_id)
        await finish(guarded, "eve", batch_metadata=USERS, metadata=as_caller(key))

    blue = await context_of(guarded, user_id="eve", metadata=as_caller(ADA))
    green = await context_of(guarded, user_id="eve", tenant_id="green", metadata=as_caller(OLGA))
    every = await refused(
        guarded.batches.GetContext(
            GetContextRequest(user_id="eve", tenant_id="-"), metadata=as_caller(OLGA)
        )
    )
    naming = await refused(
        guarded.batches.GetContext(
            GetContextRequest(user_id="eve", tenant_id="blue"), metadata=as_caller(BOB)
        )
    )

    assert [each.tenant_id for each in blue.batches] == ["blue"]
    assert [each.tenant_id for each in green.batches] == ["green"]
    assert set(every.violations) == {"tenant_id"}
    assert naming.code is grpc.StatusCode.PERMISSION_DENIED


async def test_everything_that_is_wrong_is_told_at_once(api):
    request = GetContextRequest(batch_ids=["a b", "good", "good"], page_size=-1, page_token="x")

    refusal = await refused(api.batches.GetContext(request))
    empty = await refused(api.batches.GetContext(GetContextRequest()))
    many = await refused(
        api.batches.GetContext(GetContextRequest(batch_ids=[f"bat-{n}" for n in range(101)]))
    )

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {
        *("batch_ids[0]", "batch_ids[2]", "page_size", "page_token"),
    }
    assert set(empty.violations) == {"batch_ids"}
    assert set(many.violations) == {"batch_ids"}
