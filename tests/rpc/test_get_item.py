"""GetItem returns one item with its attempts."""

from __future__ import annotations

import grpc
import pytest
from batchwork.v1.batch_pb2 import BatchOptions
from batchwork.v1.batch_service_pb2 import GetItemRequest
from batchwork.v1.item_pb2 import ITEM_STATE_SUCCEEDED
from batchwork_server.errors import ItemFailed
from batchwork_server.ports import ItemResult

from tests.rpc.api import refused


async def test_an_item_tells_its_attempts_oldest_first(api, processor):
    failed = ItemFailed("PROVIDER_BUSY", "Come back later.", retryable=True)
    processor.on("a", failed, ItemResult(value={"text": "Ahoi"}, quality_score=0.5))
    batch = await api.create_batch("a", options=BatchOptions(retry_limit=1))
    await api.finished(batch.batch_id)

    response = await api.batches.GetItem(GetItemRequest(batch_id=batch.batch_id, item_id="a"))

    item = response.item
    assert item.state == ITEM_STATE_SUCCEEDED
    assert item.result_json == '{"text":"Ahoi"}'
    assert item.quality_score == 0.5
    assert item.attempt_count == 2
    assert [attempt.error.reason for attempt in item.attempts] == ["PROVIDER_BUSY", ""]
    assert item.idempotency_key == f"{batch.batch_id}/a"


@pytest.mark.parametrize(
    ("batch_id", "item_id"),
    [
        pytest.param("batch-1", "no-such-item", id="no such item"),
        pytest.param("no-such-batch", "item-1", id="no such batch"),
    ],
)
async def test_what_is_not_there_is_not_found(api, batch_id, item_id):
    await api.create_batch(batch_id="batch-1")

    refusal = await refused(api.batches.GetItem(GetItemRequest(batch_id=batch_id, item_id=item_id)))

    assert refusal.code is grpc.StatusCode.NOT_FOUND


async def test_both_ids_are_required(api):
    refusal = await refused(api.batches.GetItem(GetItemRequest()))

    assert sorted(refusal.violations) == ["batch_id", "item_id"]
