"""RetryBatch runs items of a batch that is over once more."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from batchwork.v1.batch_pb2 import (
    BATCH_STATE_CANCELLED,
    BATCH_STATE_PARTIALLY_SUCCEEDED,
    BATCH_STATE_SUCCEEDED,
    BatchOptions,
)
from batchwork.v1.batch_service_pb2 import (
    CANCEL_MODE_STOP_IN_FLIGHT,
    CancelBatchRequest,
    GetItemRequest,
    RetryBatchRequest,
)
from batchwork.v1.item_pb2 import ITEM_STATE_CANCELLED, ITEM_STATE_FAILED, ITEM_STATE_SUCCEEDED
from batchwork_server.errors import ItemFailed

from tests.rpc.api import ADA, BOB, as_caller, refused


def too_long() -> ItemFailed:
    return ItemFailed("TOO_LONG", "It has 300 characters.")


async def test_what_failed_runs_again_and_what_succeeded_is_untouched(api, processor):
    processor.on("b", too_long())
    batch = await api.create_batch("a", "b", "c")
    first = await api.finished(batch.batch_id)
    before = await item(api, batch, "a")

    response = await api.batches.RetryBatch(RetryBatchRequest(batch_id=batch.batch_id))
    done = await api.finished(batch.batch_id)

    assert first.state == BATCH_STATE_PARTIALLY_SUCCEEDED
    assert (response.retried_count, response.batch.attempt_number) == (1, 2)
    assert done.state == BATCH_STATE_SUCCEEDED
    assert (done.counts.succeeded, done.counts.failed, done.attempt_number) == (3, 0, 2)
    assert await item(api, batch, "a") == before
    again = await item(api, batch, "b")
    assert [attempt.number for attempt in again.attempts] == [1, 2]
    assert [attempt.error.reason for attempt in again.attempts] == ["TOO_LONG", ""]


@pytest.mark.parametrize(
    ("chosen", "tried_again"),
    [
        pytest.param({}, {"a", "b"}, id="whatever failed"),
        pytest.param({"error_reason": "TOO_LONG"}, {"a"}, id="by the reason"),
        pytest.param({"item_ids": ["b", "c"]}, {"b"}, id="by ids, of those that failed"),
        pytest.param({"item_ids": ["a"], "error_reason": "TOO_LONG"}, {"a"}, id="by both"),
    ],
)
async def test_the_filter_chooses(api, processor, chosen, tried_again):
    processor.on("a", too_long())
    processor.on("b", ItemFailed("TOO_SHORT", "It is empty."))
    batch = await api.create_batch("a", "b", "c")
    await api.finished(batch.batch_id)
    processor.calls.clear()

    response = await api.batches.RetryBatch(RetryBatchRequest(batch_id=batch.batch_id, **chosen))
    await api.finished(batch.batch_id)

    assert {call.item_id for call in processor.calls} == tried_again
    assert response.retried_count == len(tried_again)


async def test_what_was_cancelled_runs_when_it_is_asked_for(api, processor):
    processor.gate = asyncio.Event()
    batch = await api.create_batch("a", "b", options=BatchOptions(max_concurrent_items=1))
    await processor.started.wait()
    await api.batches.CancelBatch(
        CancelBatchRequest(batch_id=batch.batch_id, mode=CANCEL_MODE_STOP_IN_FLIGHT)
    )
    cancelled = await api.finished(batch.batch_id)
    processor.gate.set()

    response = await api.batches.RetryBatch(
        RetryBatchRequest(batch_id=batch.batch_id, states=[ITEM_STATE_FAILED, ITEM_STATE_CANCELLED])
    )
    done = await api.finished(batch.batch_id)

    assert cancelled.state == BATCH_STATE_CANCELLED
    assert response.retried_count == 2
    assert (response.batch.state_reason, response.batch.HasField("end_time")) == ("", False)
    assert (done.state, done.counts.succeeded) == (BATCH_STATE_SUCCEEDED, 2)


async def test_the_same_request_id_gets_the_same_count_and_runs_nothing_again(api, processor):
    processor.on("a", too_long())
    batch = await api.create_batch("a", "b")
    await api.finished(batch.batch_id)
    request = RetryBatchRequest(batch_id=batch.batch_id, request_id="request-1")

    first = await api.batches.RetryBatch(request)
    await api.finished(batch.batch_id)
    second = await api.batches.RetryBatch(request)

    assert (first.retried_count, second.retried_count) == (1, 1)
    assert second.batch.state == BATCH_STATE_SUCCEEDED
    assert second.batch.attempt_number == 2
    assert processor.attempts("a") == 2


async def test_a_filter_that_matches_nothing_is_refused_and_nothing_changes(api, processor):
    processor.on("a", too_long())
    batch = await api.create_batch("a", "b")
    before = await api.finished(batch.batch_id)
    request = RetryBatchRequest(
        batch_id=batch.batch_id, error_reason="BUSY", request_id="request-1"
    )

    refusal = await refused(api.batches.RetryBatch(request))
    again = await refused(api.batches.RetryBatch(request))

    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.reason == again.reason == "NOTHING_MATCHES"
    assert await api.finished(batch.batch_id) == before


async def test_a_batch_that_is_not_over_cannot_be_tried_again(api, processor):
    processor.gate = asyncio.Event()
    batch = await api.create_batch()
    await processor.started.wait()

    refusal = await refused(api.batches.RetryBatch(RetryBatchRequest(batch_id=batch.batch_id)))

    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert (refusal.reason, refusal.metadata["state"]) == ("WRONG_STATE", "RUNNING")
    processor.gate.set()


async def test_of_a_batch_that_succeeded_nothing_is_left_to_be_tried_again(api):
    batch = await api.create_batch()
    await api.finished(batch.batch_id)

    refusal = await refused(api.batches.RetryBatch(RetryBatchRequest(batch_id=batch.batch_id)))

    assert (refusal.reason, refusal.metadata["state"]) == ("WRONG_STATE", "SUCCEEDED")


async def test_another_tenants_batch_is_not_there(guarded, processor):
    processor.on("item-1", too_long())
    batch = await guarded.create_batch(metadata=as_caller(ADA))
    await guarded.finished(batch.batch_id, metadata=as_caller(ADA))

    refusal = await refused(
        guarded.batches.RetryBatch(
            RetryBatchRequest(batch_id=batch.batch_id), metadata=as_caller(BOB)
        )
    )

    assert refusal.code is grpc.StatusCode.NOT_FOUND


async def test_every_wrong_field_is_told_at_once(api):
    refusal = await refused(
        api.batches.RetryBatch(
            RetryBatchRequest(
                states=[ITEM_STATE_FAILED, ITEM_STATE_SUCCEEDED],
                item_ids=[f"i{n}" for n in range(1001)],
            )
        )
    )

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {"batch_id", "states[1]", "item_ids"}


async def item(api, batch, item_id: str):
    response = await api.batches.GetItem(GetItemRequest(batch_id=batch.batch_id, item_id=item_id))
    return response.item
