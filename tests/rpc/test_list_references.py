"""ListReferences shows what users were given of the results of batches."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from batchwork.v1.batch_service_pb2 import (
    DeleteBatchRequest,
    ListReferencesRequest,
)
from batchwork.v1.job_service_pb2 import RunJobRequest
from batchwork.v1.reference_pb2 import Reference, ReferenceState
from batchwork_server.domain.selection import LoadedItem
from batchwork_server.errors import ItemFailed

from tests.fakes import START
from tests.rpc.api import ADA, BOB, OLGA, Api, as_caller, make_job, refused

EDITORS: dict[str, Any] = {"distribute_results": True, "distribution": {"users": ["ada", "bob"]}}


async def load(server, tenant_id: str = "default") -> None:
    store = server.application.store
    users = [("ada", True), ("bob", True), ("ida", False)]
    post = LoadedItem(item_id="post-1", data_json="{}")
    async with store.transaction() as tx:
        await store.users.load(tx, tenant_id=tenant_id, users=users, now=START)
        await store.categories.load(
            tx, tenant_id=tenant_id, category="posts", items=[post], now=START
        )


@pytest.fixture
async def posts(server) -> None:
    await load(server)


async def run(api: Api, job_id: str = "job-1", *, metadata=()) -> str:
    """Runs a job to its end and returns the id of its batch."""
    run = await api.jobs.RunJob(RunJobRequest(job_id=job_id), metadata=metadata)
    await api.finished(run.batch.batch_id, metadata=metadata)
    return run.batch.batch_id


async def references(api: Api, *, metadata=(), **fields) -> list[Reference]:
    request = ListReferencesRequest(**fields)
    response = await api.batches.ListReferences(request, metadata=metadata)
    return list(response.references)


def fates(found: list[Reference]) -> dict[str, tuple[str, str]]:
    return {
        each.user_id: (
            ReferenceState.Name(each.state).removeprefix("REFERENCE_STATE_"),
            each.reason,
        )
        for each in found
    }


@pytest.mark.usefixtures("posts")
async def test_each_user_whom_the_job_names_is_given_the_results(api):
    await api.import_jobs(make_job(purpose_id="growth", **EDITORS))
    batch_id = await run(api)

    found = await references(api)

    assert fates(found) == {"ada": ("DELIVERED", ""), "bob": ("DELIVERED", "")}
    first = found[0]
    assert (first.batch_id, first.job_id, first.purpose_id) == (batch_id, "job-1", "growth")
    assert first.display_name == "Welcome"
    assert first.HasField("deliver_time")
    assert first.deliver_time.ToNanoseconds() >= first.create_time.ToNanoseconds()


@pytest.mark.usefixtures("posts")
async def test_without_distribute_results_nobody_is_given_anything(api):
    await api.import_jobs(make_job(distribution={"users": ["ada"]}, distribute_results=False))
    await run(api)

    assert await references(api) == []


@pytest.mark.usefixtures("posts")
async def test_until_the_batch_is_over_a_reference_is_pending(api, processor):
    processor.gate = asyncio.Event()
    await api.import_jobs(make_job(**EDITORS))
    started = await api.jobs.RunJob(RunJobRequest(job_id="job-1"))
    await processor.started.wait()

    meanwhile = await references(api)
    processor.gate.set()
    await api.finished(started.batch.batch_id)

    assert fates(meanwhile)["ada"] == ("PENDING", "")
    assert not meanwhile[0].HasField("deliver_time")
    assert fates(await references(api))["ada"] == ("DELIVERED", "")


@pytest.mark.usefixtures("posts")
async def test_who_is_no_valid_user_gets_nothing_and_it_says_why(api):
    users = {"users": ["ada", "ida", "nobody"]}
    await api.import_jobs(make_job(distribute_results=True, distribution=users))
    await run(api)

    assert fates(await references(api)) == {
        "ada": ("DELIVERED", ""),
        "ida": ("FAILED", "USER_INACTIVE"),
        "nobody": ("FAILED", "USER_NOT_FOUND"),
    }


@pytest.mark.usefixtures("posts")
async def test_of_a_batch_that_failed_there_is_nothing_to_have(api, processor):
    processor.on("post-1", ItemFailed("BROKEN", "It is broken.", retryable=False))
    await api.import_jobs(make_job(**EDITORS))
    await run(api)

    found = await references(api, user_id="ada")

    assert fates(found) == {"ada": ("FAILED", "NO_RESULTS")}
    assert not found[0].HasField("deliver_time")


@pytest.mark.usefixtures("posts")
async def test_pages_go_from_the_newest_batch_to_the_oldest(api):
    await api.import_jobs(make_job(**EDITORS))
    batches = [await run(api) for _ in range(3)]

    found, token = [], ""
    while True:
        page = await api.batches.ListReferences(
            ListReferencesRequest(page_size=4, page_token=token)
        )
        found += [(each.batch_id, each.user_id) for each in page.references]
        token = page.next_page_token
        if not token:
            break

    assert found == [(batch, user) for batch in reversed(batches) for user in ("ada", "bob")]


@pytest.mark.usefixtures("posts")
async def test_filters_keep_a_user_or_a_batch(api):
    await api.import_jobs(make_job(**EDITORS))
    first, second = await run(api), await run(api)

    of_ada = await references(api, user_id="ada")
    of_first = await references(api, batch_id=first)
    await api.batches.DeleteBatch(DeleteBatchRequest(batch_id=second))
    left = await references(api, user_id="ada")

    assert [each.batch_id for each in of_ada] == [second, first]
    assert [each.user_id for each in of_first] == ["ada", "bob"]
    assert [each.batch_id for each in left] == [first], "it goes with its batch"


async def test_tenants_do_not_see_each_other_s(guarded, guarded_server):
    for key, tenant_id in ((ADA, "blue"), (BOB, "green")):
        await load(guarded_server, tenant_id)
        await guarded.import_jobs(make_job(**EDITORS), metadata=as_caller(key))
        await run(guarded, metadata=as_caller(key))

    blue = await references(guarded, metadata=as_caller(ADA))
    both = await references(guarded, tenant_id="-", metadata=as_caller(OLGA))
    refusal = await refused(
        guarded.batches.ListReferences(
            ListReferencesRequest(tenant_id="blue"), metadata=as_caller(BOB)
        )
    )

    assert {each.tenant_id for each in blue} == {"blue"}
    assert len(both) == 4
    assert refusal.code is grpc.StatusCode.PERMISSION_DENIED


async def test_everything_that_is_wrong_is_told_at_once(api):
    request = ListReferencesRequest(user_id="a\nb", batch_id="a b", page_size=-1, page_token="x")

    refusal = await refused(api.batches.ListReferences(request))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {"user_id", "batch_id", "page_size", "page_token"}
