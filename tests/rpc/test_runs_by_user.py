"""What a run did for one user is found by that user, also where several share an item."""

from __future__ import annotations

import pytest
from batchwork.v1.batch_service_pb2 import (
    GetBatchStatisticsRequest,
    ListBatchesRequest,
    ListItemsRequest,
    RetryBatchRequest,
    StreamResultsRequest,
)
from batchwork.v1.item_pb2 import ITEM_STATE_FAILED, ITEM_STATE_SUCCEEDED
from batchwork_server.errors import ItemFailed

from tests.rpc.test_own_references import run, wishing  # noqa: F401  # fixture

pytestmark = pytest.mark.usefixtures("wishing")

MATRIX = pytest.mark.parametrize("data_source", ["users", "categories"])
SHAPES = pytest.mark.parametrize("shape", ["individual", "object"])


async def batches_of(api, **wanted) -> list[str]:
    response = await api.batches.ListBatches(ListBatchesRequest(**wanted))
    return [batch.batch_id for batch in response.batches]


async def items_of(api, batch_id: str, user_id: str) -> list[str]:
    request = ListItemsRequest(batch_id=batch_id, user_id=user_id)
    return [item.item_id for item in (await api.batches.ListItems(request)).items]


async def results_of(api, batch_id: str, user_id: str) -> list[str]:
    request = StreamResultsRequest(batch_id=batch_id, user_id=user_id)
    stream = api.batches.StreamResults(request)
    return [item.item_id async for response in stream for item in response.items]


async def counts_of(api, **wanted):
    response = await api.batches.GetBatchStatistics(GetBatchStatisticsRequest(**wanted))
    counts = response.total.item_counts
    return response.total.batch_count, counts.total, counts.succeeded, counts.skipped


@MATRIX
@SHAPES
async def test_batches_items_and_results_are_found_by_user(api, shape, data_source):
    batch_id = await run(api, type=shape, data_source=data_source)

    assert await batches_of(api, user_id="ada", feature_type="posts") == [batch_id]
    assert await batches_of(api, user_id="ada", feature_type="other") == []
    assert await batches_of(api, user_id="eve") == []
    [item_id] = await items_of(api, batch_id, "ada")
    assert await items_of(api, batch_id, "eve") == []
    assert await results_of(api, batch_id, "ada") == [item_id]
    assert await results_of(api, batch_id, "eve") == []


@MATRIX
@SHAPES
async def test_the_statistics_of_a_user_are_of_their_items(api, shape, data_source):
    await run(api, type=shape, data_source=data_source)

    assert await counts_of(api, user_id="ada") == (1, 1, 1, 0)
    assert await counts_of(api, user_id="nobody") == (1, 1, 0, 1)
    assert await counts_of(api, user_id="ada", feature_type="other") == (0, 0, 0, 0)
    assert await counts_of(api, user_id="eve") == (0, 0, 0, 0)


async def state_of_items(api, batch_id: str, user_id: str) -> list[int]:
    request = ListItemsRequest(batch_id=batch_id, user_id=user_id)
    return [item.state for item in (await api.batches.ListItems(request)).items]


async def item_of_ada(api, **fields) -> str:
    """Runs the job once to learn the id of the item."""
    [item_id] = await items_of(api, await run(api, **fields), "ada")
    return item_id


@SHAPES
async def test_what_failed_for_a_user_is_tried_again(api, processor, shape):
    item_id = await item_of_ada(api, type=shape)
    processor.on(item_id, ItemFailed("BROKEN", "It is broken.", retryable=False))
    batch_id = await run(api, type=shape)
    before = await state_of_items(api, batch_id, "ada")

    retry = RetryBatchRequest(batch_id=batch_id, user_id="ada")
    retried = (await api.batches.RetryBatch(retry)).retried_count
    await api.finished(batch_id)

    assert (before, retried) == ([ITEM_STATE_FAILED], 1)
    assert await state_of_items(api, batch_id, "ada") == [ITEM_STATE_SUCCEEDED]
