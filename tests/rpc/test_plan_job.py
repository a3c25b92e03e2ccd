"""PlanJob tells what a run would process now, and stores nothing."""

from __future__ import annotations

import json

import grpc
import pytest
from batchwork.v1.batch_pb2 import PlannedItem
from batchwork.v1.batch_service_pb2 import ListBatchesRequest
from batchwork.v1.job_service_pb2 import (
    PauseJobRequest,
    PlanJobRequest,
    PlanJobResponse,
    RunJobRequest,
)
from batchwork_server.bootstrap import serving
from batchwork_server.domain.selection import LoadedItem

from tests.fakes import START
from tests.rpc.api import Api, make_job, refused

TEXT = "ü" * 1000
DATA = json.dumps({"text": TEXT}, ensure_ascii=False)


async def load_posts(server, *items: LoadedItem) -> None:
    store = server.application.store
    async with store.transaction() as tx:
        users = [("ada", True), ("bob", True), ("eve", False)]
        await store.users.load(tx, tenant_id="default", users=users, now=START)
        await store.categories.load(
            tx, tenant_id="default", category="posts", items=items, now=START
        )


@pytest.fixture
async def posts(server) -> None:
    await load_posts(
        server,
        LoadedItem(item_id="post-1", user_id="ada", data_json='{"n":1}'),
        LoadedItem(item_id="post-2", user_id="eve", data_json='{"n":2}'),
        LoadedItem(item_id="post-3", data_json=DATA),
    )


async def plan(api, job_id="job-1", **fields) -> PlanJobResponse:
    planned: PlanJobResponse = await api.jobs.PlanJob(PlanJobRequest(job_id=job_id, **fields))
    return planned


@pytest.mark.usefixtures("posts")
async def test_a_plan_counts_what_would_be_processed_and_skipped(api):
    await api.import_jobs(make_job())

    planned = await plan(api)

    assert planned.plan.item_count == 2
    assert planned.plan.skips == {"USER_INACTIVE": 1}
    assert (planned.batch.counts.total, planned.batch.counts.skipped) == (3, 1)


@pytest.mark.usefixtures("posts")
async def test_a_plan_shows_the_first_items_with_the_beginning_of_their_data(api):
    await api.import_jobs(make_job())

    sample = (await plan(api)).plan.sample

    assert list(sample) == [
        PlannedItem(item_id="post-1", user_id="ada", data_beginning='{"n":1}', data_bytes=7),
        PlannedItem(
            item_id="post-2",
            user_id="eve",
            skip_reason="USER_INACTIVE",
            data_beginning='{"n":2}',
            data_bytes=7,
        ),
        PlannedItem(item_id="post-3", data_beginning=DATA[:500], data_bytes=len(DATA.encode())),
    ]


async def test_a_plan_shows_at_most_ten_items(api, server):
    await load_posts(server, *(LoadedItem(item_id=f"p-{n}", data_json="{}") for n in range(12)))
    await api.import_jobs(make_job())

    planned = await plan(api)

    assert [item.item_id for item in planned.plan.sample] == [f"p-{n}" for n in range(10)]
    assert planned.plan.item_count == 12


@pytest.mark.usefixtures("posts")
async def test_a_plan_is_the_batch_that_a_run_stores(api, processor):
    await api.import_jobs(make_job(filters={"min_likes": 3}, retry_limit=7, purpose_id="growth"))

    planned = (await plan(api)).batch
    stored = (await api.jobs.RunJob(RunJobRequest(job_id="job-1"))).batch

    assert planned.batch_id == ""
    assert [warning.path for warning in planned.warnings] == ["filters.min_likes"]
    assert (planned.job_revision, planned.template_id) == (1, "echo")
    assert planned.options.retry_limit == 7
    for name in ("batch_id", "create_time", "update_time", "start_time", "end_time", "state"):
        planned.ClearField(name)
        stored.ClearField(name)
    assert planned == stored


@pytest.mark.usefixtures("posts")
async def test_a_plan_stores_nothing_and_runs_nothing(api, processor):
    await api.import_jobs(make_job())

    await plan(api)

    assert not (await api.batches.ListBatches(ListBatchesRequest())).batches
    assert processor.calls == []


@pytest.mark.usefixtures("posts")
async def test_a_plan_can_be_restricted_to_users(api):
    await api.import_jobs(make_job())

    planned = await plan(api, user_ids=["ada"])

    assert planned.plan.sample_item_ids == ["post-1"]


@pytest.mark.usefixtures("posts")
async def test_a_paused_job_is_planned_as_any_other(api):
    await api.import_jobs(make_job(schedule={"frequency": "hourly"}))
    before = await plan(api)
    await api.jobs.PauseJob(PauseJobRequest(job_id="job-1"))

    paused = await plan(api)

    assert paused.plan == before.plan
    assert paused.plan_token == before.plan_token


@pytest.mark.usefixtures("posts")
async def test_two_plans_of_an_unchanged_world_have_the_same_token(api):
    await api.import_jobs(make_job())

    tokens = {(await plan(api)).plan_token for _ in range(2)}
    of_two_users = {
        (await plan(api, user_ids=user_ids)).plan_token
        for user_ids in (["ada", "bob"], ["bob", "ada"])
    }

    assert len(tokens) == len(of_two_users) == 1
    assert tokens != of_two_users


async def test_another_server_gives_the_same_plan_the_same_token(settings, processors):
    tokens = []
    for start in range(2):
        async with (
            serving(settings, processors=processors) as server,
            grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            api = Api(channel)
            if start == 0:
                await load_posts(server, LoadedItem(item_id="post-1", data_json="{}"))
                await api.import_jobs(make_job())
            tokens.append((await plan(api)).plan_token)

    assert tokens[0] == tokens[1]


async def test_a_job_that_is_not_there_cannot_be_planned(api):
    refusal = await refused(plan(api, "no-such-job"))

    assert refusal.code is grpc.StatusCode.NOT_FOUND


async def test_a_category_without_items_is_unknown(api):
    await api.import_jobs(make_job())

    refusal = await refused(plan(api))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason == "UNKNOWN_CATEGORY"


@pytest.mark.usefixtures("posts")
async def test_a_job_of_one_object_cannot_be_restricted_to_users(api):
    await api.import_jobs(make_job(type="object"))

    refusal = await refused(plan(api, user_ids=["ada"]))

    assert list(refusal.violations) == ["user_ids"]


async def test_all_that_is_wrong_is_answered_at_once(api):
    refusal = await refused(plan(api, "", user_ids=["ada", "", "b\0"]))

    assert sorted(refusal.violations) == ["job_id", "user_ids[1]", "user_ids[2]"]


async def test_a_plan_has_at_most_ten_thousand_users(api):
    refusal = await refused(plan(api, user_ids=map(str, range(10_001))))

    assert list(refusal.violations) == ["user_ids"]
