"""ListBatches shows batches a page at a time, newest first."""

from __future__ import annotations

from datetime import timedelta

import grpc
import pytest
from batchwork.v1.batch_pb2 import (
    BATCH_STATE_FAILED,
    BATCH_STATE_SUCCEEDED,
    BATCH_STATE_UNSPECIFIED,
    BatchOptions,
)
from batchwork.v1.batch_service_pb2 import ListBatchesRequest
from batchwork.v1.item_pb2 import ItemInput
from google.protobuf.timestamp_pb2 import Timestamp

from tests.rpc.api import refused


async def ids(api, **fields) -> list[str]:
    response = await api.batches.ListBatches(ListBatchesRequest(**fields))
    return [batch.batch_id for batch in response.batches]


async def test_the_newest_batch_comes_first(api):
    for name in ("first", "second", "third"):
        await api.create_batch(batch_id=name)

    assert await ids(api) == ["third", "second", "first"]


async def test_pages_add_up_to_the_whole(api):
    for number in range(5):
        await api.create_batch(batch_id=f"batch-{number}")

    found, token = [], ""
    while True:
        page = await api.batches.ListBatches(ListBatchesRequest(page_size=2, page_token=token))
        found.append([batch.batch_id for batch in page.batches])
        token = page.next_page_token
        if not token:
            break

    assert found == [["batch-4", "batch-3"], ["batch-2", "batch-1"], ["batch-0"]]


async def test_a_batch_that_comes_meanwhile_does_not_shift_the_pages(api):
    for number in range(3):
        await api.create_batch(batch_id=f"batch-{number}")
    first = await api.batches.ListBatches(ListBatchesRequest(page_size=2))

    await api.create_batch(batch_id="newcomer")

    assert await ids(api, page_size=2, page_token=first.next_page_token) == ["batch-0"]


async def test_skip_leaves_out_the_newest(api):
    for number in range(3):
        await api.create_batch(batch_id=f"batch-{number}")

    assert await ids(api, skip=2) == ["batch-0"]


async def test_all_filters_have_to_hold(api, processor):
    processor.on("broken", RuntimeError("broken"))
    await api.create_batch("broken", batch_id="failed", options=BatchOptions(retry_limit=0))
    await api.create_batch(batch_id="labelled", labels={"team": "blue", "tier": "1"})
    await api.create_batch(batch_id="of-ada", items=[ItemInput(user_id="ada")])
    for batch_id in await ids(api):
        await api.finished(batch_id)

    assert await ids(api, states=[BATCH_STATE_FAILED]) == ["failed"]
    assert await ids(api, labels={"team": "blue"}) == ["labelled"]
    assert await ids(api, labels={"team": "blue", "tier": "2"}) == []
    assert await ids(api, user_id="ada") == ["of-ada"]
    assert await ids(api, states=[BATCH_STATE_SUCCEEDED], user_id="nobody") == []


async def test_created_after_is_closed_and_created_before_is_open(api):
    batch = await api.create_batch()
    later = Timestamp()
    later.FromDatetime(batch.create_time.ToDatetime() + timedelta(microseconds=1))

    assert await ids(api, created_after=batch.create_time) == [batch.batch_id]
    assert await ids(api, created_before=batch.create_time) == []
    assert await ids(api, created_before=later) == [batch.batch_id]


async def test_a_token_holds_only_with_the_filters_of_its_first_page(api):
    for number in range(2):
        await api.create_batch(batch_id=f"batch-{number}")
    first = await api.batches.ListBatches(ListBatchesRequest(page_size=1))

    other = ListBatchesRequest(page_token=first.next_page_token, operation="echo")
    refusal = await refused(api.batches.ListBatches(other))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == ["page_token"]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        pytest.param({"page_size": -1}, "page_size", id="negative page size"),
        pytest.param({"page_token": "garbage"}, "page_token", id="garbage for a token"),
        pytest.param({"skip": 100_001}, "skip", id="too much to skip"),
        pytest.param({"states": [BATCH_STATE_UNSPECIFIED]}, "states[0]", id="no state"),
        pytest.param({"states": [BATCH_STATE_FAILED, 99]}, "states[1]", id="unknown state"),
        pytest.param({"job_id": "?"}, "job_id", id="no job id"),
        pytest.param({"user_id": "a\0"}, "user_id", id="null character"),
        pytest.param({"labels": {"": "x"}}, "labels", id="label without a key"),
        pytest.param(
            {"created_after": Timestamp(seconds=2**60)}, "created_after", id="end of time"
        ),
    ],
)
async def test_bad_filters_are_violations(api, fields, path):
    refusal = await refused(api.batches.ListBatches(ListBatchesRequest(**fields)))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == [path]


async def test_skip_and_token_exclude_each_other(api):
    refusal = await refused(api.batches.ListBatches(ListBatchesRequest(skip=1, page_token="x")))

    assert sorted(refusal.violations) == ["page_token", "skip"]
