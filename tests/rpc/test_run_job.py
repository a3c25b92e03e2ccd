"""RunJob makes a batch of a job, now."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from batchwork.v1.batch_pb2 import BATCH_STATE_CANCELLED
from batchwork.v1.batch_service_pb2 import (
    CANCEL_MODE_STOP_IN_FLIGHT,
    CancelBatchRequest,
    ListBatchesRequest,
)
from batchwork.v1.job_service_pb2 import DeleteJobRequest, PlanJobRequest, RunJobRequest
from batchwork.v1.policy_pb2 import (
    OVERLAP_CANCEL_PREVIOUS,
    OVERLAP_QUEUE_ONE,
    OVERLAP_SKIP,
)
from batchwork.v1.preference_pb2 import Preference
from batchwork.v1.preference_service_pb2 import SetPreferenceRequest
from batchwork_server.bootstrap import Serving, serving
from batchwork_server.domain.selection import LoadedItem

from tests.fakes import START
from tests.rpc.api import Api, make_job, refused


@pytest.fixture
async def posts(server) -> None:
    await load_posts(server)


async def load_posts(server: Serving) -> None:
    store = server.application.store
    async with store.transaction() as tx:
        await store.users.load(
            tx, tenant_id="default", users=[("ada", True), ("bob", True)], now=START
        )
        await store.categories.load(
            tx,
            tenant_id="default",
            category="posts",
            items=[
                LoadedItem(item_id="post-1", user_id="ada", data_json="{}"),
                LoadedItem(item_id="post-2", user_id="bob", data_json="{}"),
            ],
            now=START,
        )


@pytest.mark.usefixtures("posts")
async def test_a_run_is_a_batch_that_knows_its_job(api, processor):
    await api.import_jobs(make_job("job-1", purpose_id="growth"))

    response = await api.jobs.RunJob(RunJobRequest(job_id="job-1"))
    done = await api.finished(response.batch.batch_id)

    assert (done.job_id, done.job_revision, done.purpose_id) == ("job-1", 1, "growth")
    assert done.counts.succeeded == 2


@pytest.mark.usefixtures("posts")
async def test_a_run_has_the_policies_of_its_job(api, settings):
    job = make_job(
        "job-1",
        retry_policy={"max_backoff": 7},
        failure_policy={"max_failed": 3},
        batch_timeout=90,
    )
    await api.import_jobs(job)

    options = (await api.jobs.RunJob(RunJobRequest(job_id="job-1"))).batch.options

    assert options.retry_policy.max_backoff.seconds == 7
    assert options.retry_policy.multiplier == settings.retry_multiplier
    assert options.failure_policy.max_failed == 3
    assert options.batch_timeout.seconds == 90


@pytest.mark.usefixtures("posts")
async def test_a_run_can_be_restricted_to_users(api, processor):
    await api.import_jobs(make_job("job-1"))

    response = await api.jobs.RunJob(RunJobRequest(job_id="job-1", user_ids=["bob"]))
    await api.finished(response.batch.batch_id)

    assert [call.item_id for call in processor.calls] == ["post-2"]


@pytest.mark.usefixtures("posts")
async def test_a_run_of_a_preference_based_job_has_an_item_for_each_user_who_wants_it(
    api, processor
):
    await api.import_jobs(make_job("job-1", preference_based=True, feature_type="digest"))
    for user_id, enabled in (("ada", True), ("bob", False), ("eve", True)):
        wish = Preference(user_id=user_id, feature_type="digest", enabled=enabled)
        wish.template_overrides.update({"tone": "casual", "item_limit": 1})
        await api.preferences.SetPreference(SetPreferenceRequest(preference=wish))

    response = await api.jobs.RunJob(RunJobRequest(job_id="job-1"))
    done = await api.finished(response.batch.batch_id)

    assert done.batch_type.startswith("PREFERENCE_INDIVIDUAL_")
    assert (done.counts.succeeded, done.counts.skipped) == (1, 1), "eve is no user"
    [call] = processor.calls
    assert (call.item_id, call.user_id) == ("ada", "ada")
    assert call.data == {
        "user_id": "ada",
        "template_overrides": {"tone": "casual", "item_limit": 1},
        "items": [{}],
    }


@pytest.mark.usefixtures("posts")
@pytest.mark.parametrize(
    ("changes", "data"),
    [
        pytest.param(
            {"type": "object"},
            {"category": "posts", "count": 2, "items": [{}, {}]},
            id="object",
        ),
        pytest.param(
            {"type": "combined", "category": None, "categories": ["posts", "users"]},
            {
                "categories": {
                    "posts": {"category": "posts", "count": 2, "items": [{}, {}]},
                    "users": {"category": "users", "count": 1, "items": [{"n": 1}]},
                }
            },
            id="combined",
        ),
    ],
)
async def test_a_run_of_an_object_job_is_one_item(server, api, processor, changes, data):
    store = server.application.store
    async with store.transaction() as tx:
        item = LoadedItem(item_id="ada", data_json='{"n":1}')
        await store.categories.load(
            tx, tenant_id="default", category="users", items=[item], now=START
        )
    await api.import_jobs(make_job("job-1", **changes))

    response = await api.jobs.RunJob(RunJobRequest(job_id="job-1"))
    done = await api.finished(response.batch.batch_id)

    assert done.counts.succeeded == 1
    [call] = processor.calls
    assert call.data == data


@pytest.mark.usefixtures("posts")
async def test_the_same_request_id_returns_the_first_run(api):
    await api.import_jobs(make_job("job-1"))
    request = RunJobRequest(job_id="job-1", request_id="request-1")

    first = await api.jobs.RunJob(request)
    second = await api.jobs.RunJob(request)

    assert second.batch.batch_id == first.batch.batch_id


@pytest.mark.usefixtures("posts")
async def test_the_same_request_id_returns_the_first_run_also_of_a_deleted_job(api):
    await api.import_jobs(make_job("job-1"))
    request = RunJobRequest(job_id="job-1", request_id="request-1")
    first = await api.jobs.RunJob(request)
    await api.jobs.DeleteJob(DeleteJobRequest(job_id="job-1"))

    second = await api.jobs.RunJob(request)

    assert second.batch.batch_id == first.batch.batch_id


@pytest.fixture
async def running(api, posts, processor) -> AsyncIterator[str]:
    """The id of a run of the job that goes on until it is cancelled."""
    processor.gate = asyncio.Event()
    await api.import_jobs(make_job("job-1"))
    yield (await api.jobs.RunJob(RunJobRequest(job_id="job-1"))).batch.batch_id
    processor.gate.set()


async def test_a_run_goes_beside_another_one(api, running):
    response = await api.jobs.RunJob(RunJobRequest(job_id="job-1"))

    assert response.batch.batch_id != running


async def test_a_run_that_may_not_overlap_is_refused_and_names_the_other(api, running):
    request = RunJobRequest(job_id="job-1", overlap=OVERLAP_SKIP, request_id="request-1")

    refusal = await refused(api.jobs.RunJob(request))
    await api.batches.CancelBatch(
        CancelBatchRequest(batch_id=running, mode=CANCEL_MODE_STOP_IN_FLIGHT)
    )
    await api.finished(running)
    response = await api.jobs.RunJob(request)

    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.reason == "WRONG_STATE"
    assert repr(running) in refusal.message
    assert response.batch.batch_id != running


async def test_a_run_can_take_the_place_of_another_one(api, running):
    request = RunJobRequest(job_id="job-1", overlap=OVERLAP_CANCEL_PREVIOUS)

    response = await api.jobs.RunJob(request)
    old = await api.finished(running)

    assert (old.state, old.state_reason) == (BATCH_STATE_CANCELLED, "NEWER_RUN")
    assert response.batch.batch_id in old.state_message


@pytest.mark.usefixtures("posts")
async def test_a_run_on_request_cannot_wait(api):
    await api.import_jobs(make_job("job-1"))

    refusal = await refused(
        api.jobs.RunJob(RunJobRequest(job_id="job-1", overlap=OVERLAP_QUEUE_ONE))
    )

    assert list(refusal.violations) == ["overlap"]
    assert "no batch yet" in refusal.violations["overlap"]


@pytest.mark.usefixtures("posts")
async def test_a_request_id_with_other_content_is_refused(api):
    await api.import_jobs(make_job("job-1"))
    await api.jobs.RunJob(RunJobRequest(job_id="job-1", request_id="request-1"))

    other = RunJobRequest(job_id="job-1", request_id="request-1", user_ids=["ada"])
    refusal = await refused(api.jobs.RunJob(other))

    assert refusal.code is grpc.StatusCode.ALREADY_EXISTS
    assert refusal.reason == "REQUEST_ID_REUSED"


@pytest.mark.usefixtures("posts")
async def test_a_job_of_one_object_cannot_be_restricted_to_users(api):
    await api.import_jobs(make_job("job-1", type="object"))

    refusal = await refused(api.jobs.RunJob(RunJobRequest(job_id="job-1", user_ids=["ada"])))

    assert list(refusal.violations) == ["user_ids"]


async def test_a_category_without_items_is_unknown(api):
    await api.import_jobs(make_job("job-1"))

    refusal = await refused(api.jobs.RunJob(RunJobRequest(job_id="job-1")))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason == "UNKNOWN_CATEGORY"


async def test_a_job_that_is_not_there_cannot_run(api):
    refusal = await refused(api.jobs.RunJob(RunJobRequest(job_id="no-such-job")))

    assert refusal.code is grpc.StatusCode.NOT_FOUND


async def test_all_that_is_wrong_is_answered_at_once(api):
    request = RunJobRequest(request_id="r\n", user_ids=["ada", "", "b\0"])

    refusal = await refused(api.jobs.RunJob(request))

    assert sorted(refusal.violations) == ["job_id", "request_id", "user_ids[1]", "user_ids[2]"]


async def test_a_run_has_at_most_ten_thousand_users(api):
    request = RunJobRequest(job_id="job-1", user_ids=map(str, range(10_001)))

    refusal = await refused(api.jobs.RunJob(request))

    assert list(refusal.violations) == ["user_ids"]


async def token_of_plan(api: Api, **fields: Any) -> str:
    planned = await api.jobs.PlanJob(PlanJobRequest(job_id="job-1", **fields))
    return planned.plan_token


async def refused_as_stale(api: Api, token: str, **fields: Any) -> str:
    """Returns what the server says has changed, and looks that nothing was stored."""
    request = RunJobRequest(job_id="job-1", plan_token=token, **fields)

    refusal = await refused(api.jobs.RunJob(request))

    assert refusal.code is grpc.StatusCode.ABORTED
    assert refusal.reason == "PLAN_STALE"
    assert not (await api.batches.ListBatches(ListBatchesRequest())).batches
    return refusal.metadata["changed"]


@pytest.mark.usefixtures("posts")
@pytest.mark.parametrize("user_ids", [[], ["bob", "ada"]], ids=["all users", "some users"])
async def test_what_was_planned_runs_while_nothing_has_changed(api, processor, user_ids):
    await api.import_jobs(make_job("job-1"))
    token = await token_of_plan(api, user_ids=user_ids)

    request = RunJobRequest(job_id="job-1", user_ids=user_ids[::-1], plan_token=token)
    batch = (await api.jobs.RunJob(request)).batch
    await api.finished(batch.batch_id)

    assert sorted(call.item_id for call in processor.calls) == ["post-1", "post-2"]


@pytest.mark.usefixtures("posts")
@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        pytest.param({"name": "Good bye"}, "job", id="its name"),
        pytest.param({"schedule": {"frequency": "hourly"}}, "job", id="what no batch has"),
        pytest.param({"retry_limit": 9}, "job,options", id="its options"),
        pytest.param({"filters": {"max_items": 1}}, "job,items", id="its filters"),
    ],
)
async def test_a_job_that_was_changed_does_not_run_as_it_was_planned(api, changes, changed):
    await api.import_jobs(make_job("job-1"))
    token = await token_of_plan(api)

    await api.import_jobs(make_job("job-1", **changes))

    assert await refused_as_stale(api, token) == changed


@pytest.mark.usefixtures("posts")
@pytest.mark.parametrize(
    "item",
    [
        pytest.param(LoadedItem(item_id="post-3", data_json="{}"), id="one more"),
        pytest.param(
            LoadedItem(item_id="post-1", user_id="ada", data_json='{ "n": 1 }'), id="other data"
        ),
        pytest.param(
            LoadedItem(item_id="post-1", user_id="bob", data_json="{}"), id="another user"
        ),
    ],
)
async def test_an_item_that_was_added_or_changed_is_not_what_was_planned(server, api, item):
    await api.import_jobs(make_job("job-1"))
    token = await token_of_plan(api)

    store = server.application.store
    async with store.transaction() as tx:
        await store.categories.load(
            tx, tenant_id="default", category="posts", items=[item], now=START
        )

    assert "items" in (await refused_as_stale(api, token)).split(",")


@pytest.mark.usefixtures("posts")
async def test_an_item_that_is_gone_is_not_what_was_planned(server, api):
    await api.import_jobs(make_job("job-1"))
    token = await token_of_plan(api)

    async with server.application.store.transaction() as tx:
        await tx.connection.exec_driver_sql("DELETE FROM category_items WHERE item_id = 'post-1'")

    assert await refused_as_stale(api, token) == "items"


@pytest.mark.usefixtures("posts")
async def test_an_item_whose_user_became_inactive_is_not_what_was_planned(server, api):
    await api.import_jobs(make_job("job-1"))
    token = await token_of_plan(api)

    store = server.application.store
    async with store.transaction() as tx:
        await store.users.load(tx, tenant_id="default", users=[("ada", False)], now=START)

    assert await refused_as_stale(api, token) == "items"


@pytest.mark.usefixtures("posts")
async def test_another_wish_of_a_user_is_not_what_was_planned(api):
    await api.import_jobs(make_job("job-1", preference_based=True, feature_type="digest"))
    wish = Preference(user_id="ada", feature_type="digest", enabled=True)
    await api.preferences.SetPreference(SetPreferenceRequest(preference=wish))
    token = await token_of_plan(api)

    wish.template_overrides.update({"tone": "casual"})
    await api.preferences.SetPreference(SetPreferenceRequest(preference=wish))

    assert await refused_as_stale(api, token) == "items"


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        pytest.param({"templates": {"parameters": {"tone": "dry"}}}, "template", id="template"),
        pytest.param({"settings": {"chunk_size": 7}}, "options", id="options"),
    ],
)
async def test_a_server_that_would_process_otherwise_does_not_run_what_was_planned(
    settings, processors, changes, changed
):
    async with (
        serving(settings, processors=processors) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        await load_posts(server)
        await Api(channel).import_jobs(make_job("job-1"))
        token = await token_of_plan(Api(channel))

    file = settings.templates_dir / "echo.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes.get("templates", {})))
    settings = replace(settings, **changes.get("settings", {}))

    async with (
        serving(settings, processors=processors) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        assert await refused_as_stale(Api(channel), token) == changed


@pytest.mark.usefixtures("posts")
async def test_a_repeated_run_is_answered_although_its_plan_is_stale_by_now(api):
    await api.import_jobs(make_job("job-1"))
    token = await token_of_plan(api)
    request = RunJobRequest(job_id="job-1", plan_token=token, request_id="request-1")
    first = await api.jobs.RunJob(request)

    await api.import_jobs(make_job("job-1", name="Good bye"))
    second = await api.jobs.RunJob(request)

    assert second.batch.batch_id == first.batch.batch_id


@pytest.mark.usefixtures("posts")
async def test_a_repeat_that_overtakes_its_first_call_is_no_stale_run(server, api, monkeypatch):
    """The first call is not durable when the repeat looks for it, but is when it would store."""
    await api.import_jobs(make_job("job-1"))
    token = await token_of_plan(api)
    request = RunJobRequest(job_id="job-1", plan_token=token, request_id="request-1")
    first = await api.jobs.RunJob(request)
    await api.import_jobs(make_job("job-1", name="Good bye"))

    async def find_nothing(**_request: str) -> None:
        return None

    monkeypatch.setattr(server.application.store.requests, "find", find_nothing)
    second = await api.jobs.RunJob(request)

    assert second.batch.batch_id == first.batch.batch_id


@pytest.mark.usefixtures("posts")
async def test_a_plan_is_one_of_its_job_and_its_users(api):
    await api.import_jobs(make_job("job-1"), make_job("job-2"))
    token = await token_of_plan(api, user_ids=["ada"])

    for request in (
        RunJobRequest(job_id="job-1", plan_token=token),
        RunJobRequest(job_id="job-1", plan_token=token, user_ids=["ada", "bob"]),
        RunJobRequest(job_id="job-2", plan_token=token, user_ids=["ada"]),
    ):
        refusal = await refused(api.jobs.RunJob(request))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert list(refusal.violations) == ["plan_token"]


@pytest.mark.usefixtures("posts")
@pytest.mark.parametrize("token", ["nonsense", "W10", "x" * 5000, "\u00fc"])
async def test_what_is_no_plan_token_is_refused(api, token):
    await api.import_jobs(make_job("job-1"))

    refusal = await refused(api.jobs.RunJob(RunJobRequest(job_id="job-1", plan_token=token)))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == ["plan_token"]
    assert not (await api.batches.ListBatches(ListBatchesRequest())).batches
