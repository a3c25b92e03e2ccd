"""CancelBatch keeps items from starting, and what is done stays done."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from batchwork.v1.batch_pb2 import BATCH_STATE_CANCELLED, BATCH_STATE_CANCELLING, BatchOptions
from batchwork.v1.batch_service_pb2 import (
    CANCEL_MODE_STOP_IN_FLIGHT,
    CancelBatchRequest,
    ListItemsRequest,
    PauseBatchRequest,
)
from batchwork.v1.item_pb2 import ITEM_STATE_CANCELLED

from tests.rpc.api import refused


async def test_items_in_flight_finish_and_the_others_are_cancelled(api, processor):
    processor.gate = asyncio.Event()
    options = BatchOptions(chunk_size=1, max_concurrent_items=1)
    batch = await api.create_batch("a", "b", "c", options=options)
    await processor.started.wait()

    response = await api.batches.CancelBatch(CancelBatchRequest(batch_id=batch.batch_id))
    processor.gate.set()
    done = await api.finished(batch.batch_id)

    assert response.batch.state == BATCH_STATE_CANCELLING
    assert done.state == BATCH_STATE_CANCELLED
    assert done.counts.succeeded == len(processor.calls)
    assert done.counts.succeeded + done.counts.cancelled == 3


@pytest.mark.arrow("batch T", "item H", "item M")
async def test_items_in_flight_are_stopped_when_the_caller_says_so(api, processor):
    processor.gate = asyncio.Event()
    batch = await api.create_batch("a", "b", "c")
    await processor.started.wait()

    response = await api.batches.CancelBatch(
        CancelBatchRequest(
            batch_id=batch.batch_id, mode=CANCEL_MODE_STOP_IN_FLIGHT, note="Wrong list."
        )
    )
    done = await api.finished(batch.batch_id)

    assert response.batch.state_reason == done.state_reason == "CANCELLED_BY_CALLER"
    assert response.batch.state_message == done.state_message == "Wrong list."
    assert done.state == BATCH_STATE_CANCELLED
    assert (done.counts.cancelled, done.counts.retries) == (3, 0)
    found = await api.batches.ListItems(ListItemsRequest(batch_id=batch.batch_id))
    assert {item.state for item in found.items} == {ITEM_STATE_CANCELLED}
    assert {item.attempt_count for item in found.items} == {0}, "a stopped attempt does not count"


async def test_a_second_cancel_can_stop_what_the_first_one_left_in_flight(api, processor):
    processor.gate = asyncio.Event()
    batch = await api.create_batch()
    await processor.started.wait()

    first = await api.batches.CancelBatch(
        CancelBatchRequest(batch_id=batch.batch_id, note="The first word.")
    )
    second = await api.batches.CancelBatch(
        CancelBatchRequest(batch_id=batch.batch_id, mode=CANCEL_MODE_STOP_IN_FLIGHT)
    )
    done = await api.finished(batch.batch_id)

    assert (first.batch.state, second.batch.state) == (BATCH_STATE_CANCELLING,) * 2
    assert done.counts.cancelled == 1
    assert done.state_message == "The first word."


async def test_a_paused_batch_can_be_cancelled(api, processor):
    processor.gate = asyncio.Event()
    batch = await api.create_batch("a", "b", options=BatchOptions(max_concurrent_items=1))
    await processor.started.wait()
    await api.batches.PauseBatch(PauseBatchRequest(batch_id=batch.batch_id))

    await api.batches.CancelBatch(CancelBatchRequest(batch_id=batch.batch_id))
    processor.gate.set()
    done = await api.finished(batch.batch_id)

    assert done.state == BATCH_STATE_CANCELLED
    assert (done.counts.succeeded, done.counts.cancelled) == (1, 1)


async def test_a_note_that_is_too_long_and_an_unknown_mode_are_violations(api):
    request = CancelBatchRequest(batch_id="bat-1", note="n" * 501, mode=9)  # type: ignore[arg-type]

    refusal = await refused(api.batches.CancelBatch(request))

    assert set(refusal.violations) == {"note", "mode"}


async def test_cancelling_twice_changes_nothing(api, processor):
    processor.gate = asyncio.Event()
    batch = await api.create_batch()
    await processor.started.wait()
    request = CancelBatchRequest(batch_id=batch.batch_id)

    first = await api.batches.CancelBatch(request)
    second = await api.batches.CancelBatch(request)

    assert first.batch == second.batch
    processor.gate.set()


async def test_the_same_request_id_gets_the_same_kind_of_answer(api, processor):
    processor.gate = asyncio.Event()
    batch = await api.create_batch()
    await processor.started.wait()
    request = CancelBatchRequest(batch_id=batch.batch_id, request_id="request-1")

    await api.batches.CancelBatch(request)
    processor.gate.set()
    await api.finished(batch.batch_id)
    again = await api.batches.CancelBatch(request)

    assert again.batch.state == BATCH_STATE_CANCELLED


async def test_a_batch_that_is_done_cannot_be_cancelled(api):
    batch = await api.create_batch()
    await api.finished(batch.batch_id)

    refusal = await refused(api.batches.CancelBatch(CancelBatchRequest(batch_id=batch.batch_id)))

    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.reason == "WRONG_STATE"
    assert refusal.metadata["state"] == "SUCCEEDED"
    assert refusal.details == ["ErrorInfo", "PreconditionFailure"]


async def test_a_batch_that_is_not_there_cannot_be_cancelled(api):
    refusal = await refused(api.batches.CancelBatch(CancelBatchRequest(batch_id="no-such-batch")))

    assert refusal.code is grpc.StatusCode.NOT_FOUND


async def test_the_id_is_required(api):
    refusal = await refused(api.batches.CancelBatch(CancelBatchRequest()))

    assert list(refusal.violations) == ["batch_id"]
