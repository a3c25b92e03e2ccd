"""ListItems shows the items of a batch in their order, a page at a time."""

from __future__ import annotations

import grpc
import pytest
from batchwork.v1.batch_pb2 import BatchOptions
from batchwork.v1.batch_service_pb2 import ListItemsRequest
from batchwork.v1.item_pb2 import (
    ITEM_STATE_FAILED,
    ITEM_STATE_SKIPPED,
    ITEM_STATE_SUCCEEDED,
    ItemInput,
)
from batchwork_server.errors import ItemFailed, ItemSkipped
from batchwork_server.ports import ItemResult

from tests.rpc.api import refused


async def ids(api, batch_id: str, **fields) -> list[str]:
    request = ListItemsRequest(batch_id=batch_id, **fields)
    return [item.item_id for item in (await api.batches.ListItems(request)).items]


@pytest.fixture
async def batch_id(api, processor):
    """A batch whose items came to different ends."""
    processor.on("good", ItemResult(value=1, quality_score=0.9))
    processor.on("poor", ItemResult(value=1, quality_score=0.2))
    processor.on("failed", ItemFailed("BROKEN"))
    processor.on("skipped", ItemSkipped("NOTHING_TO_DO"))
    items = [ItemInput(item_id=name) for name in ("good", "poor", "failed", "skipped")]
    items.append(ItemInput(item_id="of-nobody", user_id="nobody"))
    batch = await api.create_batch(items=items, options=BatchOptions(retry_limit=0))
    await api.finished(batch.batch_id)
    return batch.batch_id


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({}, ["good", "poor", "failed", "skipped", "of-nobody"], id="all"),
        pytest.param({"states": [ITEM_STATE_SUCCEEDED]}, ["good", "poor"], id="one state"),
        pytest.param(
            {"states": [ITEM_STATE_FAILED, ITEM_STATE_SKIPPED]},
            ["failed", "skipped", "of-nobody"],
            id="two states",
        ),
        pytest.param({"user_id": "nobody"}, ["of-nobody"], id="user"),
        pytest.param({"error_reason": "BROKEN"}, ["failed"], id="error reason"),
        pytest.param({"skip_reason": "NOTHING_TO_DO"}, ["skipped"], id="skip reason"),
        pytest.param({"min_quality_score": 0.5}, ["good"], id="least quality"),
        pytest.param({"max_quality_score": 0.5}, ["poor"], id="most quality"),
        pytest.param({"min_quality_score": 0.0}, ["good", "poor"], id="any quality"),
    ],
)
async def test_filters_keep_what_was_asked_for(api, batch_id, fields, expected):
    assert await ids(api, batch_id, **fields) == expected


async def test_pages_add_up_to_the_whole(api, batch_id):
    first = await api.batches.ListItems(ListItemsRequest(batch_id=batch_id, page_size=3))

    rest = await ids(api, batch_id, page_size=3, page_token=first.next_page_token)

    assert [item.item_id for item in first.items] == ["good", "poor", "failed"]
    assert rest == ["skipped", "of-nobody"]


async def test_a_token_holds_only_for_its_batch(api, batch_id):
    first = await api.batches.ListItems(ListItemsRequest(batch_id=batch_id, page_size=1))
    other = await api.create_batch("a", "b")

    request = ListItemsRequest(batch_id=other.batch_id, page_token=first.next_page_token)
    refusal = await refused(api.batches.ListItems(request))

    assert list(refusal.violations) == ["page_token"]


async def test_a_page_ends_before_it_is_too_large_to_send(api):
    large = '"' + "x" * 900_000 + '"'
    items = [ItemInput(item_id=f"item-{number}", data_json=large) for number in range(5)]
    batch = await api.create_batch(items=items)

    response = await api.batches.ListItems(ListItemsRequest(batch_id=batch.batch_id))

    assert 0 < len(response.items) < 5
    assert response.next_page_token


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        pytest.param({"batch_id": ""}, "batch_id", id="no batch"),
        pytest.param({"min_quality_score": 1.1}, "min_quality_score", id="above 1"),
        pytest.param({"max_quality_score": float("nan")}, "max_quality_score", id="no number"),
        pytest.param({"page_size": -1}, "page_size", id="negative page size"),
        pytest.param({"states": [0]}, "states[0]", id="no state"),
    ],
)
async def test_bad_filters_are_violations(api, fields, path):
    request = ListItemsRequest(**{"batch_id": "batch-1"} | fields)

    refusal = await refused(api.batches.ListItems(request))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == [path]


async def test_a_batch_that_is_not_there_has_no_items_to_list(api):
    refusal = await refused(api.batches.ListItems(ListItemsRequest(batch_id="no-such-batch")))

    assert refusal.code is grpc.StatusCode.NOT_FOUND
