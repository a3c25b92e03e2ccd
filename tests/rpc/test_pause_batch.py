"""PauseBatch keeps items from starting until somebody resumes the batch."""

from __future__ import annotations

import asyncio

import grpc
from batchwork.v1.batch_pb2 import BATCH_STATE_PAUSED, BATCH_STATE_SUCCEEDED, BatchOptions
from batchwork.v1.batch_service_pb2 import (
    GetBatchRequest,
    PauseBatchRequest,
    ResumeBatchRequest,
)
from batchwork_server.errors import RateLimited

from tests.rpc.api import ADA, BOB, as_caller, refused, until

ONE_BY_ONE = BatchOptions(chunk_size=1, max_concurrent_items=1)


async def test_items_in_flight_finish_and_no_other_starts(api, processor):
    processor.gate = asyncio.Event()
    batch = await api.create_batch("a", "b", "c", options=ONE_BY_ONE)
    await processor.started.wait()

    response = await api.batches.PauseBatch(
        PauseBatchRequest(batch_id=batch.batch_id, note="The list is checked again.")
    )
    processor.gate.set()
    idle = await until(api, batch.batch_id, lambda batch: batch.counts.running == 0)

    assert response.batch.state == BATCH_STATE_PAUSED
    assert response.batch.state_reason == "PAUSED_BY_CALLER"
    assert response.batch.state_message == "The list is checked again."
    assert not response.batch.HasField("resume_time")
    assert idle.state == BATCH_STATE_PAUSED
    assert [call.item_id for call in processor.calls] == ["a"]
    assert (idle.counts.succeeded, idle.counts.pending) == (1, 2)


async def test_pausing_twice_changes_nothing(api, processor):
    processor.gate = asyncio.Event()
    batch = await api.create_batch()
    await processor.started.wait()

    first = await api.batches.PauseBatch(PauseBatchRequest(batch_id=batch.batch_id, note="First."))
    second = await api.batches.PauseBatch(PauseBatchRequest(batch_id=batch.batch_id, note="Other."))

    assert second.batch.state_message == "First."
    assert second.batch.update_time == first.batch.update_time
    processor.gate.set()


async def test_a_pause_that_comes_again_after_a_resume_pauses_nothing(api, processor):
    processor.gate = asyncio.Event()
    batch = await api.create_batch()
    await processor.started.wait()
    request = PauseBatchRequest(batch_id=batch.batch_id, request_id="request-1")

    await api.batches.PauseBatch(request)
    await api.batches.ResumeBatch(ResumeBatchRequest(batch_id=batch.batch_id))
    again = await api.batches.PauseBatch(request)
    processor.gate.set()

    assert again.batch.state != BATCH_STATE_PAUSED
    assert (await api.finished(batch.batch_id)).state == BATCH_STATE_SUCCEEDED


async def test_a_request_id_that_paused_another_batch_is_refused(api, processor):
    processor.gate = asyncio.Event()
    first, second = await api.create_batch(), await api.create_batch()
    await api.batches.PauseBatch(PauseBatchRequest(batch_id=first.batch_id, request_id="request-1"))

    refusal = await refused(
        api.batches.PauseBatch(PauseBatchRequest(batch_id=second.batch_id, request_id="request-1"))
    )

    assert refusal.code is grpc.StatusCode.ALREADY_EXISTS
    assert refusal.reason == "REQUEST_ID_REUSED"
    processor.gate.set()


async def test_a_caller_keeps_a_batch_paused_that_would_have_resumed_by_itself(api, processor):
    processor.on("item-1", RateLimited("RATE_LIMIT", "Slow down."))
    batch = await api.create_batch()
    limited = await until(api, batch.batch_id, lambda batch: batch.state == BATCH_STATE_PAUSED)

    await api.batches.PauseBatch(PauseBatchRequest(batch_id=batch.batch_id, note="Later."))

    response = await api.batches.GetBatch(GetBatchRequest(batch_id=batch.batch_id))
    assert limited.state_reason == "PROVIDER_RATE_LIMITED"
    assert limited.state_message == "RATE_LIMIT: Slow down."
    assert limited.HasField("resume_time")
    assert response.batch.state_reason == "PAUSED_BY_CALLER"
    assert response.batch.state_message == "Later."
    assert not response.batch.HasField("resume_time")


async def test_a_batch_that_is_done_cannot_be_paused(api):
    batch = await api.create_batch()
    await api.finished(batch.batch_id)

    refusal = await refused(api.batches.PauseBatch(PauseBatchRequest(batch_id=batch.batch_id)))

    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.reason == "WRONG_STATE"
    assert refusal.metadata["state"] == "SUCCEEDED"


async def test_another_tenants_batch_is_not_there(guarded, processor):
    processor.gate = asyncio.Event()
    batch = await guarded.create_batch(metadata=as_caller(ADA))

    refusal = await refused(
        guarded.batches.PauseBatch(
            PauseBatchRequest(batch_id=batch.batch_id), metadata=as_caller(BOB)
        )
    )

    assert refusal.code is grpc.StatusCode.NOT_FOUND
    processor.gate.set()


async def test_every_wrong_field_is_told_at_once(api):
    refusal = await refused(
        api.batches.PauseBatch(PauseBatchRequest(note="n" * 501, request_id="r" * 129))
    )

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {"batch_id", "note", "request_id"}
