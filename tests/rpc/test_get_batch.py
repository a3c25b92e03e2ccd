"""GetBatch returns a batch as it is."""

from __future__ import annotations

import grpc
from batchwork.v1.batch_pb2 import BATCH_STATE_SUCCEEDED
from batchwork.v1.batch_service_pb2 import GetBatchRequest

from tests.rpc.api import refused


async def test_a_finished_batch_tells_what_became_of_its_items(api):
    created = await api.create_batch("a", "b")
    await api.finished(created.batch_id)

    response = await api.batches.GetBatch(GetBatchRequest(batch_id=created.batch_id))

    assert response.batch.state == BATCH_STATE_SUCCEEDED
    assert response.batch.counts.succeeded == 2
    assert response.batch.progress_ratio == 1.0
    assert response.batch.HasField("end_time")


async def test_a_batch_that_is_not_there_is_named(api):
    refusal = await refused(api.batches.GetBatch(GetBatchRequest(batch_id="no-such-batch")))

    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert refusal.message == "There is no batch 'no-such-batch'."
    assert refusal.details == ["ErrorInfo", "ResourceInfo"]


async def test_an_id_that_no_batch_can_have_is_a_violation(api):
    refusal = await refused(api.batches.GetBatch(GetBatchRequest(batch_id="a\0b")))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == ["batch_id"]


async def test_a_missing_id_is_a_violation(api):
    refusal = await refused(api.batches.GetBatch(GetBatchRequest()))

    assert refusal.violations == {"batch_id": "This field is required."}
