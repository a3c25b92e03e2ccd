"""GetBatchStatistics counts batches and their items."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from batchwork.v1.batch_pb2 import BATCH_STATE_FAILED, BATCH_STATE_SUCCEEDED, BatchOptions
from batchwork.v1.batch_service_pb2 import (
    STATISTICS_GROUP_FEATURE,
    STATISTICS_GROUP_JOB,
    STATISTICS_GROUP_OPERATION,
    STATISTICS_GROUP_TENANT,
    BatchStatistics,
    GetBatchRequest,
    GetBatchStatisticsRequest,
)
from batchwork.v1.item_pb2 import ItemInput
from batchwork.v1.job_service_pb2 import RunJobRequest
from batchwork.v1.preference_pb2 import Preference
from batchwork.v1.preference_service_pb2 import SetPreferenceRequest
from batchwork_server.domain.selection import LoadedItem
from batchwork_server.errors import ItemFailed

from tests.fakes import START
from tests.rpc.api import ADA, BOB, OLGA, as_caller, make_job, refused


async def count(api, metadata=(), **fields):
    request = GetBatchStatisticsRequest(**fields)
    return await api.batches.GetBatchStatistics(request, metadata=metadata)


def sizes(groups: list[BatchStatistics]) -> dict[str, int]:
    return {group.name: group.batch_count for group in groups}


async def test_without_batches_everything_is_nought(api):
    answer = await count(api)

    assert (answer.total.batch_count, answer.total.completion_ratio) == (0, 0)
    assert answer.total.item_counts.total == 0
    assert (len(answer.groups), answer.group_count) == (0, 0)


@pytest.fixture
async def posts(server) -> None:
    store = server.application.store
    post = LoadedItem(item_id="post-1", user_id="ada", data_json="{}")
    async with store.transaction() as tx:
        await store.users.load(tx, tenant_id="default", users=[("ada", True)], now=START)
        await store.categories.load(
            tx, tenant_id="default", category="posts", items=[post], now=START
        )


@pytest.fixture
async def history(api, processor) -> None:
    """Two batches that went well, and one of three items of which one failed."""
    processor.on("bad", *[ItemFailed("BROKEN", "It is broken.", retryable=False)] * 9)
    options = BatchOptions(retry_limit=0)
    for name, items in (
        ("first", ["a"]),
        ("second", ["a", "b"]),
        ("third", ["a", "b", "bad"]),
        ("fourth", ["bad"]),
    ):
        await api.create_batch(*items, batch_id=name, options=options)
        await api.finished(name)


@pytest.mark.usefixtures("history")
async def test_batches_are_counted_by_state_and_operation(api):
    total = (await count(api)).total

    assert total.batch_count == 4
    assert dict(total.batch_count_by_state) == {
        "SUCCEEDED": 2,
        "PARTIALLY_SUCCEEDED": 1,
        "FAILED": 1,
    }
    assert dict(total.batch_count_by_operation) == {"echo": 4}
    assert total.completion_ratio == 0.75
    assert (total.item_counts.total, total.item_counts.succeeded, total.item_counts.failed) == (
        7,
        5,
        2,
    )


@pytest.mark.usefixtures("history")
async def test_filters_and_a_window_bound_what_is_counted(api):
    second = (await api.batches.GetBatch(GetBatchRequest(batch_id="second"))).batch

    ended = await count(api, states=[BATCH_STATE_SUCCEEDED, BATCH_STATE_FAILED])
    later = await count(api, created_after=second.create_time)
    earlier = await count(api, created_before=second.create_time)
    elsewhere = await count(api, operation="paint")

    assert (ended.total.batch_count, ended.total.item_counts.total) == (3, 4)
    assert (later.total.batch_count, earlier.total.batch_count) == (3, 1)
    assert elsewhere.total.batch_count == 0


@pytest.mark.usefixtures("posts")
async def test_batches_are_counted_by_what_they_have_in_common(api):
    await api.import_jobs(
        make_job("often"),
        make_job("once"),
        make_job("wished", preference_based=True, feature_type="digest"),
    )
    wish = Preference(user_id="ada", feature_type="digest", enabled=True)
    await api.preferences.SetPreference(SetPreferenceRequest(preference=wish))
    for job_id in ("often", "once", "often", "wished"):
        run = await api.jobs.RunJob(RunJobRequest(job_id=job_id))
        await api.finished(run.batch.batch_id)
    await api.create_batch()

    by_job = await count(api, group_by=STATISTICS_GROUP_JOB)
    by_feature = await count(api, group_by=STATISTICS_GROUP_FEATURE)
    by_operation = await count(api, group_by=STATISTICS_GROUP_OPERATION, job_id="often")

    assert [group.name for group in by_job.groups] == ["often", "", "once", "wished"]
    assert sizes(by_job.groups) == {"often": 2, "": 1, "once": 1, "wished": 1}
    assert (by_job.group_count, by_job.total.batch_count) == (4, 5)
    assert sizes(by_feature.groups) == {"": 4, "digest": 1}
    assert sizes(by_operation.groups) == {"echo": 2}


@pytest.mark.usefixtures("posts")
async def test_of_a_user_only_the_items_of_the_user_are_counted(api):
    ours = ItemInput(item_id="x", user_id="ada", data_json="{}")
    theirs = ItemInput(item_id="y", user_id="nobody", data_json="{}")
    both = await api.create_batch(items=[ours, theirs])
    alone = await api.create_batch()
    for batch in (both, alone):
        await api.finished(batch.batch_id)

    ada = (await count(api, user_id="ada")).total
    nobody = (await count(api, user_id="nobody")).total

    assert (ada.batch_count, ada.item_counts.total, ada.item_counts.succeeded) == (1, 1, 1)
    assert (nobody.batch_count, nobody.item_counts.total, nobody.item_counts.skipped) == (1, 1, 1)


@pytest.mark.usefixtures("posts")
async def test_what_is_not_done_of_a_user_is_pending(api, processor):
    processor.gate = asyncio.Event()
    ours = ItemInput(item_id="x", user_id="ada", data_json="{}")
    batch = await api.create_batch(items=[ours, ItemInput(item_id="y")])
    await processor.started.wait()

    total = (await count(api, user_id="ada")).total
    processor.gate.set()
    await api.finished(batch.batch_id)

    assert (total.batch_count, total.completion_ratio) == (1, 0)
    assert (total.item_counts.total, total.item_counts.pending) == (1, 1)


async def test_only_the_tenant_s_own_batches_are_counted(guarded):
    for key, times in ((ADA, 2), (BOB, 1)):
        for _ in range(times):
            batch = await guarded.create_batch(metadata=as_caller(key))
            await guarded.finished(batch.batch_id, metadata=as_caller(key))

    ada = await count(guarded, as_caller(ADA), group_by=STATISTICS_GROUP_TENANT)
    olga = await count(guarded, as_caller(OLGA), group_by=STATISTICS_GROUP_TENANT, tenant_id="-")
    refusal = await refused(
        guarded.batches.GetBatchStatistics(
            GetBatchStatisticsRequest(tenant_id="blue"), metadata=as_caller(BOB)
        )
    )

    assert sizes(ada.groups) == {"blue": 2}
    assert sizes(olga.groups) == {"blue": 2, "green": 1}
    assert refusal.code is grpc.StatusCode.PERMISSION_DENIED


async def test_everything_that_is_wrong_is_told_at_once(api):
    request = GetBatchStatisticsRequest(job_id="a b", operation="a\nb")
    request.group_by = 99  # type: ignore[assignment]

    refusal = await refused(api.batches.GetBatchStatistics(request))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {"job_id", "group_by", "operation"}
