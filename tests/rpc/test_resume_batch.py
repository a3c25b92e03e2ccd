"""ResumeBatch goes on with a paused batch."""

from __future__ import annotations

import asyncio

import grpc
from batchwork.v1.batch_pb2 import (
    BATCH_STATE_PAUSED,
    BATCH_STATE_RUNNING,
    BATCH_STATE_SUCCEEDED,
    BatchOptions,
)
from batchwork.v1.batch_service_pb2 import (
    GetBatchRequest,
    PauseBatchRequest,
    ResumeBatchRequest,
)

from tests.rpc.api import ADA, BOB, as_caller, refused


async def test_what_was_left_is_processed(api, processor):
    processor.gate = asyncio.Event()
    options = BatchOptions(chunk_size=1, max_concurrent_items=1)
    batch = await api.create_batch("a", "b", "c", options=options)
    await processor.started.wait()
    await api.batches.PauseBatch(PauseBatchRequest(batch_id=batch.batch_id, note="Wait."))

    response = await api.batches.ResumeBatch(ResumeBatchRequest(batch_id=batch.batch_id))
    processor.gate.set()
    done = await api.finished(batch.batch_id)

    assert response.batch.state == BATCH_STATE_RUNNING
    assert (response.batch.state_reason, response.batch.state_message) == ("", "")
    assert done.state == BATCH_STATE_SUCCEEDED
    assert sorted(call.item_id for call in processor.calls) == ["a", "b", "c"]


async def test_resuming_what_is_not_paused_changes_nothing(api, processor):
    processor.gate = asyncio.Event()
    batch = await api.create_batch()
    await processor.started.wait()

    before = await api.batches.GetBatch(GetBatchRequest(batch_id=batch.batch_id))
    response = await api.batches.ResumeBatch(ResumeBatchRequest(batch_id=batch.batch_id))

    assert response.batch.state == BATCH_STATE_RUNNING
    assert response.batch.update_time == before.batch.update_time
    processor.gate.set()


async def test_a_resume_that_comes_again_after_a_pause_resumes_nothing(api, processor):
    processor.gate = asyncio.Event()
    batch = await api.create_batch()
    await processor.started.wait()
    await api.batches.PauseBatch(PauseBatchRequest(batch_id=batch.batch_id))
    request = ResumeBatchRequest(batch_id=batch.batch_id, request_id="request-1")

    await api.batches.ResumeBatch(request)
    await api.batches.PauseBatch(PauseBatchRequest(batch_id=batch.batch_id))
    again = await api.batches.ResumeBatch(request)

    assert again.batch.state == BATCH_STATE_PAUSED
    processor.gate.set()


async def test_a_batch_that_is_done_cannot_be_resumed(api):
    batch = await api.create_batch()
    await api.finished(batch.batch_id)

    refusal = await refused(api.batches.ResumeBatch(ResumeBatchRequest(batch_id=batch.batch_id)))

    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.reason == "WRONG_STATE"
    assert refusal.metadata["state"] == "SUCCEEDED"


async def test_another_tenants_batch_is_not_there(guarded):
    batch = await guarded.create_batch(metadata=as_caller(ADA))

    refusal = await refused(
        guarded.batches.ResumeBatch(
            ResumeBatchRequest(batch_id=batch.batch_id), metadata=as_caller(BOB)
        )
    )

    assert refusal.code is grpc.StatusCode.NOT_FOUND


async def test_the_id_is_required(api):
    refusal = await refused(api.batches.ResumeBatch(ResumeBatchRequest()))

    assert list(refusal.violations) == ["batch_id"]
