"""SealBatch ends the upload to a draft and starts the batch."""

from __future__ import annotations

from typing import Any

import grpc
from batchwork.v1.batch_pb2 import BATCH_STATE_PENDING, BATCH_STATE_SUCCEEDED
from batchwork.v1.batch_service_pb2 import CreateBatchRequest, SealBatchRequest
from batchwork.v1.item_pb2 import ItemInput

from tests.rpc.api import ADA, BOB, as_caller, refused


async def create_draft(api, *item_ids: str, metadata: Any = ()) -> None:
    items = [ItemInput(item_id=item_id) for item_id in item_ids]
    await api.batches.CreateBatch(
        CreateBatchRequest(operation="echo", draft=True, batch_id="bat-1", items=items),
        metadata=metadata,
    )


def sealing(**fields: Any) -> SealBatchRequest:
    return SealBatchRequest(batch_id="bat-1", **fields)


async def test_a_sealed_draft_runs_at_once(api, processor):
    await create_draft(api, "a", "b")
    assert processor.calls == []

    sealed = (await api.batches.SealBatch(sealing(expected_count=2))).batch
    done = await api.finished("bat-1")

    assert sealed.state == BATCH_STATE_PENDING
    assert not sealed.HasField("expire_time")
    assert done.state == BATCH_STATE_SUCCEEDED
    assert done.counts.succeeded == 2


async def test_a_draft_without_items_is_done_with_the_answer(api):
    await create_draft(api)

    sealed = (await api.batches.SealBatch(sealing(expected_count=0))).batch

    assert sealed.state == BATCH_STATE_SUCCEEDED
    assert sealed.HasField("end_time")


async def test_another_number_of_items_than_expected_is_refused(api):
    await create_draft(api, "a", "b")

    refusal = await refused(api.batches.SealBatch(sealing(expected_count=3)))

    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.reason == "COUNT_MISMATCH"
    assert refusal.metadata == {"expected": "3", "found": "2"}
    assert (await api.batches.SealBatch(sealing(expected_count=2))).batch.counts.total == 2


async def test_the_same_request_again_returns_the_batch(api):
    await create_draft(api, "a")
    request = sealing(request_id="r-1")

    await api.batches.SealBatch(request)
    await api.finished("bat-1")
    again = (await api.batches.SealBatch(request)).batch

    assert again.state == BATCH_STATE_SUCCEEDED
    refusal = await refused(api.batches.SealBatch(sealing(request_id="r-1", expected_count=1)))
    assert refusal.reason == "REQUEST_ID_REUSED"


async def test_a_batch_that_is_no_draft_cannot_be_sealed(api):
    await api.create_batch("a", batch_id="bat-1")

    refusal = await refused(api.batches.SealBatch(sealing()))

    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.reason == "WRONG_STATE"


async def test_a_draft_of_another_tenant_is_not_there(guarded):
    await create_draft(guarded, "a", metadata=as_caller(ADA))

    refusal = await refused(guarded.batches.SealBatch(sealing(), metadata=as_caller(BOB)))

    assert refusal.code is grpc.StatusCode.NOT_FOUND


async def test_what_a_seal_cannot_be_is_refused(api):
    refusal = await refused(
        api.batches.SealBatch(SealBatchRequest(batch_id="no id", expected_count=-1))
    )

    assert set(refusal.violations) == {"batch_id", "expected_count"}
