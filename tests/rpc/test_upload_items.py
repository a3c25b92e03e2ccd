"""UploadItems fills a draft, however many items come and however often they are sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import grpc
import pytest
from batchwork.v1.batch_pb2 import BATCH_STATE_DRAFT, Batch
from batchwork.v1.batch_service_pb2 import (
    CreateBatchRequest,
    GetBatchRequest,
    ListItemsRequest,
    SealBatchRequest,
    UploadItemsRequest,
    UploadItemsResponse,
)
from batchwork.v1.item_pb2 import ItemInput
from batchwork_server.bootstrap import serving
from google.protobuf.struct_pb2 import Struct

from tests.rpc.api import ADA, BOB, Api, as_caller, refused


async def create_draft(api: Api, **fields: Any) -> Batch:
    request = CreateBatchRequest(operation="echo", draft=True, batch_id="bat-1", **fields)
    return (await api.batches.CreateBatch(request)).batch


def message(*items: ItemInput, offset: int = 0, batch_id: str = "bat-1") -> UploadItemsRequest:
    return UploadItemsRequest(batch_id=batch_id, offset=offset, items=items)


def named(*item_ids: str) -> list[ItemInput]:
    return [ItemInput(item_id=item_id) for item_id in item_ids]


async def upload(api: Api, *messages: UploadItemsRequest) -> UploadItemsResponse:
    answer: UploadItemsResponse = await api.batches.UploadItems(iter(messages))
    return answer


async def get_batch(api: Api) -> Batch:
    return (await api.batches.GetBatch(GetBatchRequest(batch_id="bat-1"))).batch


async def ids_in(api: Api) -> list[str]:
    page = await api.batches.ListItems(ListItemsRequest(batch_id="bat-1", page_size=100))
    return [item.item_id for item in page.items]


async def test_a_draft_tells_how_far_its_upload_is_and_when_it_expires(api):
    created = await create_draft(api, items=named("a"))

    await upload(api, message(*named("b", "c"), offset=1))

    draft = await get_batch(api)
    assert created.state == draft.state == BATCH_STATE_DRAFT
    assert created.upload_offset == 1
    assert draft.upload_offset == draft.counts.total == 3
    assert draft.expire_time.seconds - draft.create_time.seconds == 86_400


async def test_items_without_an_id_get_their_place_in_the_upload(api):
    await create_draft(api, items=[ItemInput(), ItemInput(item_id="b")])

    answer = await upload(
        api,
        message(ItemInput(data_json="1"), offset=2),
        UploadItemsRequest(offset=3, items=[ItemInput(data_json="2"), ItemInput(item_id="e")]),
    )

    assert (answer.accepted_count, answer.deduplicated_count, answer.next_offset) == (3, 0, 5)
    assert await ids_in(api) == ["0", "b", "2", "3", "e"]


async def test_an_upload_that_is_repeated_changes_nothing(api):
    await create_draft(api)
    await upload(api, message(*named("a", "b")))

    answer = await upload(api, message(*named("a", "b", "c")))

    assert (answer.accepted_count, answer.deduplicated_count, answer.next_offset) == (1, 2, 3)
    assert await ids_in(api) == ["a", "b", "c"]


async def test_items_that_are_missing_before_these_are_named(api):
    await create_draft(api)

    refusal = await refused(api.batches.UploadItems(iter([message(*named("a"), offset=7)])))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason == "OFFSET_GAP"
    assert refusal.metadata["offset"] == "7"
    assert refusal.metadata["next_offset"] == "0"


async def test_an_item_with_other_content_is_refused(api):
    await create_draft(api)
    await upload(api, message(*named("a")))

    changed = message(ItemInput(item_id="a", data_json="[]"), offset=1)
    refusal = await refused(api.batches.UploadItems(iter([changed])))

    assert refusal.code is grpc.StatusCode.ALREADY_EXISTS
    assert refusal.reason == "RESOURCE_EXISTS"
    assert "'a'" in refusal.message


async def test_everything_wrong_with_a_message_is_told_and_what_came_before_it_stays(api):
    await create_draft(api)
    wrong = message(
        ItemInput(data_json="{"),
        ItemInput(item_id="fine"),
        ItemInput(item_id="two\nlines"),
        ItemInput(user_id="x" * 200),
        ItemInput(data_json=f'"{"x" * 1_050_000}"'),
        offset=2,
    )

    refusal = await refused(api.batches.UploadItems(iter([message(*named("a", "b")), wrong])))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {
        "items[0].data_json",
        "items[2].item_id",
        "items[3].user_id",
        "items[4].data_json",
    }
    assert refusal.metadata["index"] == "4"
    assert await ids_in(api) == ["a", "b"]


@pytest.mark.parametrize(
    ("messages", "path"),
    [
        pytest.param([], "batch_id", id="no message"),
        pytest.param([UploadItemsRequest(items=named("a"))], "batch_id", id="no draft"),
        pytest.param(
            [message(*named("a")), message(*named("b"), offset=1, batch_id="bat-2")],
            "batch_id",
            id="two drafts",
        ),
        pytest.param([message(*named("a"), offset=-1)], "offset", id="negative offset"),
        pytest.param([message(*named("a"), offset=10_000_000)], "items", id="too many items"),
    ],
)
async def test_what_an_upload_cannot_be_is_refused(
    api, messages: Sequence[UploadItemsRequest], path: str
):
    await create_draft(api)

    refusal = await refused(api.batches.UploadItems(iter(messages)))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {path}


async def test_a_batch_that_is_no_draft_takes_no_items(api):
    await api.create_batch("a", batch_id="bat-1")

    refusal = await refused(api.batches.UploadItems(iter([message(*named("b"), offset=1)])))

    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.reason == "WRONG_STATE"


async def test_a_draft_of_another_tenant_is_not_there(guarded):
    request = CreateBatchRequest(operation="echo", draft=True, batch_id="bat-1")
    await guarded.batches.CreateBatch(request, metadata=as_caller(ADA))

    refusal = await refused(
        guarded.batches.UploadItems(iter([message(*named("a"))]), metadata=as_caller(BOB))
    )

    assert refusal.code is grpc.StatusCode.NOT_FOUND


async def test_what_selects_does_not_fit_a_draft(api):
    filters, metadata = Struct(), Struct()
    filters["min_followers"] = 1
    metadata["processing_method"] = "batch"

    refusal = await refused(
        api.batches.CreateBatch(
            CreateBatchRequest(
                operation="echo",
                draft=True,
                category="posts",
                filters=filters,
                limit=5,
                batch_metadata=metadata,
            )
        )
    )

    assert set(refusal.violations) == {
        "category",
        "filters",
        "limit",
        "batch_metadata.processing_method",
    }


async def test_a_plan_of_a_draft_is_a_draft(api):
    request = CreateBatchRequest(operation="echo", draft=True, validate_only=True)

    response = await api.batches.CreateBatch(request)

    assert response.batch.state == BATCH_STATE_DRAFT
    assert response.plan.item_count == 0


async def test_items_of_unknown_users_are_skipped(api):
    await create_draft(api)

    await upload(api, message(ItemInput(user_id="nobody"), ItemInput()))
    sealed = (await api.batches.SealBatch(SealBatchRequest(batch_id="bat-1"))).batch

    assert (sealed.counts.total, sealed.counts.skipped) == (2, 1)
    done = await api.finished("bat-1")
    assert (done.user_validation.total, done.user_validation.invalid) == (1, 1)
    assert (done.counts.succeeded, done.counts.skipped) == (1, 1)


async def test_a_client_that_goes_away_leaves_an_upload_that_goes_on(api):
    await create_draft(api)
    sent = asyncio.Event()

    async def abandoned() -> AsyncIterator[UploadItemsRequest]:
        yield message(*numbered(6000))
        sent.set()
        await asyncio.Event().wait()

    call = api.batches.UploadItems(abandoned())
    await sent.wait()
    async with asyncio.timeout(30):
        while not (offset := (await get_batch(api)).upload_offset):
            await asyncio.sleep(0.01)
    call.cancel()

    answer = await upload(api, message(*numbered(6000)[offset:], offset=offset))

    assert offset == 5000
    assert answer.next_offset == (await get_batch(api)).counts.total == 6000


def numbered(count: int) -> list[ItemInput]:
    return [ItemInput(item_id=f"item-{n}") for n in range(count)]


async def test_a_server_that_stops_ends_an_upload_and_keeps_what_came(api, server):
    await create_draft(api)
    stopping = asyncio.Event()

    async def slow() -> AsyncIterator[UploadItemsRequest]:
        yield message(*numbered(5001))
        await stopping.wait()
        yield message(*named("late"), offset=5001)

    uploading = asyncio.create_task(refused(api.batches.UploadItems(slow())))
    async with asyncio.timeout(30):
        while not (await get_batch(api)).upload_offset:
            await asyncio.sleep(0.01)
    server.application.batches.uploads.close()
    stopping.set()
    refusal = await uploading

    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert refusal.reason == "SHUTTING_DOWN"
    assert (await get_batch(api)).upload_offset == 5001


async def test_a_draft_that_nobody_seals_expires(settings, processors):
    short = replace(settings, draft_timeout=timedelta(seconds=1))
    async with (
        serving(short, processors=processors) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        api = Api(channel)
        await create_draft(api, items=named("a"))

        ended = await api.finished("bat-1")

    assert ended.counts.expired == 1
    assert ended.state_reason == "DRAFT_TIMEOUT"
