"""DeleteBatch makes a batch that is over disappear, once and for its owner only."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from batchwork.v1.batch_service_pb2 import (
    DeleteBatchRequest,
    GetBatchRequest,
    GetItemRequest,
    ListBatchesRequest,
    ListItemsRequest,
    WatchBatchRequest,
)

from tests.rpc.api import ADA, BOB, OLGA, Api, as_caller, refused


async def over(api: Api, *items: str, metadata: Any = (), **fields: Any) -> str:
    batch = await api.create_batch(*items, metadata=metadata, **fields)
    await api.finished(batch.batch_id, metadata=metadata)
    return batch.batch_id


async def test_a_deleted_batch_is_nowhere_to_be_found(api):
    batch_id = await over(api, "a")

    await api.batches.DeleteBatch(DeleteBatchRequest(batch_id=batch_id))

    for call in (
        api.batches.GetBatch(GetBatchRequest(batch_id=batch_id)),
        api.batches.ListItems(ListItemsRequest(batch_id=batch_id)),
        api.batches.GetItem(GetItemRequest(batch_id=batch_id, item_id="a")),
        api.batches.WatchBatch(WatchBatchRequest(batch_id=batch_id)),
        api.batches.DeleteBatch(DeleteBatchRequest(batch_id=batch_id)),
    ):
        assert (await refused(call)).code is grpc.StatusCode.NOT_FOUND
    assert not (await api.batches.ListBatches(ListBatchesRequest())).batches


async def test_its_id_can_be_used_again(api):
    batch_id = await over(api, "a", batch_id="nightly")
    await api.batches.DeleteBatch(DeleteBatchRequest(batch_id=batch_id))

    again = await over(api, "b", "c", batch_id="nightly")

    listed = await api.batches.ListBatches(ListBatchesRequest())
    assert [(batch.batch_id, batch.counts.total) for batch in listed.batches] == [(again, 2)]


async def test_the_same_request_id_deletes_once(api):
    batch_id = await over(api, "a", batch_id="nightly")
    request = DeleteBatchRequest(batch_id=batch_id, request_id="request-1")
    await api.batches.DeleteBatch(request)
    await over(api, "a", batch_id="nightly")

    await api.batches.DeleteBatch(request)

    await api.batches.GetBatch(GetBatchRequest(batch_id="nightly"))


async def test_a_request_id_with_another_batch_is_refused(api):
    first, second = await over(api, "a"), await over(api, "b")
    await api.batches.DeleteBatch(DeleteBatchRequest(batch_id=first, request_id="request-1"))

    refusal = await refused(
        api.batches.DeleteBatch(DeleteBatchRequest(batch_id=second, request_id="request-1"))
    )

    assert refusal.code is grpc.StatusCode.ALREADY_EXISTS
    assert refusal.reason == "REQUEST_ID_REUSED"


async def test_a_request_that_was_refused_can_come_again(api, processor):
    processor.gate = asyncio.Event()
    batch = await api.create_batch("a")
    await processor.started.wait()
    request = DeleteBatchRequest(batch_id=batch.batch_id, request_id="request-1")
    await refused(api.batches.DeleteBatch(request))
    processor.gate.set()
    await api.finished(batch.batch_id)

    await api.batches.DeleteBatch(request)

    refusal = await refused(api.batches.GetBatch(GetBatchRequest(batch_id=batch.batch_id)))
    assert refusal.code is grpc.StatusCode.NOT_FOUND


async def test_a_batch_that_is_not_over_is_not_deleted(api, processor):
    processor.gate = asyncio.Event()
    batch = await api.create_batch("a")
    await processor.started.wait()

    refusal = await refused(api.batches.DeleteBatch(DeleteBatchRequest(batch_id=batch.batch_id)))

    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.reason == "WRONG_STATE"
    assert refusal.metadata["state"] == "RUNNING"
    processor.gate.set()
    await api.finished(batch.batch_id)


@pytest.mark.parametrize("key", [BOB, OLGA], ids=["another tenant", "an operator"])
async def test_nobody_deletes_the_batch_of_another_tenant(guarded, key):
    batch_id = await over(guarded, "a", metadata=as_caller(ADA))

    refusal = await refused(
        guarded.batches.DeleteBatch(DeleteBatchRequest(batch_id=batch_id), metadata=as_caller(key))
    )

    assert refusal.code is grpc.StatusCode.NOT_FOUND
    await guarded.batches.GetBatch(GetBatchRequest(batch_id=batch_id), metadata=as_caller(ADA))


async def test_the_id_is_required(api):
    refusal = await refused(api.batches.DeleteBatch(DeleteBatchRequest()))

    assert list(refusal.violations) == ["batch_id"]
