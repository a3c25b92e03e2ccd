"""An upload arrives whole, whatever the connection does, and holds a bounded part of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import grpc
import pytest
from batchwork.v1.batch_pb2 import Batch
from batchwork.v1.batch_service_pb2 import (
    GetBatchResponse,
    UploadItemsRequest,
    UploadItemsResponse,
)
from batchwork.v1.batch_service_pb2_grpc import BatchServiceServicer
from batchwork.v1.item_pb2 import ItemInput
from batchwork_client import AlreadyExistsError, Patience, UnavailableError, item_input
from batchwork_client.uploading import LEG_ITEMS, MESSAGE_BYTES, MESSAGE_ITEMS

from tests.client.servers import HandTimer, Refusal, servicer

GONE = Refusal(code=grpc.StatusCode.UNAVAILABLE, reason="SHUTTING_DOWN")


class Draft:
    """A draft that keeps what comes, and breaks calls on purpose.

    Args:
        breaks: For each call, after how many messages it breaks; None means never.
    """

    def __init__(self, *breaks: int | None, refusal: Refusal = GONE) -> None:
        self.items: list[ItemInput] = []
        self.calls: list[list[UploadItemsRequest]] = []
        self._breaks = list(breaks)
        self._refusal = refusal

    async def get(self, request: Any, context: Any) -> GetBatchResponse:
        return GetBatchResponse(batch=Batch(batch_id="bat-1", upload_offset=len(self.items)))

    async def upload(
        self, requests: AsyncIterator[UploadItemsRequest], context: Any
    ) -> UploadItemsResponse:
        left = self._breaks.pop(0) if self._breaks else None
        came: list[UploadItemsRequest] = []
        self.calls.append(came)
        accepted = 0
        async for request in requests:
            if left == len(came):
                await self._refusal.abort(context)
            came.append(request)
            assert request.offset <= len(self.items), "there is a gap"
            new = request.items[len(self.items) - request.offset :]
            self.items += new
            accepted += len(new)
        return UploadItemsResponse(accepted_count=accepted, next_offset=len(self.items))


@pytest.fixture
def timer():
    return HandTimer()


@pytest.fixture
def patience(timer):
    return Patience(timer=timer, jitter=lambda: 0.0)


@pytest.fixture
def connected(client_of):
    """Starts a server with a draft, and returns a client of it."""

    async def start(draft: Draft):
        return await client_of(
            servicer(BatchServiceServicer, GetBatch=draft.get, UploadItems=draft.upload)
        )

    return start


def numbered(count: int) -> Iterator[tuple[str, Any]]:
    return ((f"item-{n}", n) for n in range(count))


def ids_in(draft: Draft) -> list[str]:
    return [item.item_id for item in draft.items]


async def test_items_travel_in_messages_of_a_thousand(connected):
    draft = Draft()
    client = await connected(draft)

    answer = await client.batches.upload_items("bat-1", numbered(2500))

    assert ids_in(draft) == [f"item-{n}" for n in range(2500)]
    assert [[len(m.items) for m in call] for call in draft.calls] == [[1000, 1000, 500]]
    assert [m.batch_id for m in draft.calls[0]] == ["bat-1", "", ""]
    assert [m.offset for m in draft.calls[0]] == [0, 1000, 2000]
    assert (answer.accepted_count, answer.next_offset) == (2500, 2500)


async def test_large_items_make_small_messages(connected):
    draft = Draft()
    client = await connected(draft)

    await client.batches.upload_items("bat-1", [("", "x" * 400_000) for _ in range(25)])

    sizes = [message.ByteSize() for call in draft.calls for message in call]
    assert len(draft.items) == 25
    assert max(sizes) < MESSAGE_BYTES + 1000
    assert max(len(call) for call in draft.calls) <= 6


async def test_what_was_not_answered_yet_is_all_that_is_held(connected):
    draft = Draft()
    client = await connected(draft)
    ahead: list[int] = []

    def watched() -> Iterator[tuple[str, Any]]:
        for n, pair in enumerate(numbered(LEG_ITEMS * 3)):
            ahead.append(n - len(draft.items))
            yield pair

    await client.batches.upload_items("bat-1", watched())

    assert len(draft.items) == LEG_ITEMS * 3
    assert max(ahead) <= LEG_ITEMS


async def test_any_iterable_will_do(connected):
    draft = Draft()
    client = await connected(draft)

    async def coming() -> AsyncIterator[ItemInput]:
        yield item_input("c", 1)

    await client.batches.upload_items("bat-1", {"a": 1})
    await client.batches.upload_items("bat-1", [ItemInput(item_id="b")])
    answer = await client.batches.upload_items("bat-1", coming())

    assert ids_in(draft) == ["a", "b", "c"]
    assert answer.next_offset == 3


@pytest.mark.parametrize(
    "refusal",
    [
        pytest.param(GONE, id="server shuts down"),
        pytest.param(Refusal(code=grpc.StatusCode.INTERNAL), id="stream was reset"),
        pytest.param(Refusal(code=grpc.StatusCode.CANCELLED), id="server cut the stream"),
    ],
)
async def test_broken_upload_goes_on_where_the_draft_is(connected, patience, refusal):
    draft = Draft(2, 0, 1, refusal=refusal)
    client = await connected(draft)

    answer = await client.batches.upload_items("bat-1", numbered(5500), patience=patience)

    assert ids_in(draft) == [f"item-{n}" for n in range(5500)]
    assert (answer.accepted_count, answer.next_offset) == (5500, 5500)
    assert [call[0].offset if call else None for call in draft.calls] == [0, None, 2000, 3000, 5000]


async def test_upload_of_which_all_came_but_the_answer_is_done(connected, patience):
    draft = Draft(1)
    client = await connected(draft)
    # The call breaks only when another message comes; so the first one holds all but one item.
    count = MESSAGE_ITEMS + 1

    answer = await client.batches.upload_items("bat-1", numbered(count), patience=patience)

    assert len(draft.items) == count
    assert answer.accepted_count == count


async def test_given_offset_is_where_the_upload_begins(connected):
    draft = Draft()
    draft.items = [ItemInput(item_id=f"item-{n}") for n in range(3)]
    client = await connected(draft)

    await client.batches.upload_items("bat-1", numbered(5), offset=0)

    assert draft.calls[0][0].offset == 0
    assert ids_in(draft) == [f"item-{n}" for n in range(5)]


async def test_what_the_server_refuses_is_not_tried_again(connected, patience):
    draft = Draft(0, refusal=Refusal(code=grpc.StatusCode.ALREADY_EXISTS, reason="RESOURCE_EXISTS"))
    client = await connected(draft)

    with pytest.raises(AlreadyExistsError):
        await client.batches.upload_items("bat-1", numbered(1), patience=patience)

    assert len(draft.calls) == 1


async def test_upload_gives_up_when_nothing_gets_through(connected, timer):
    draft = Draft(*[0] * 1000)
    client = await connected(draft)
    patience = Patience(timer=timer, jitter=lambda: 0.0, give_up_after=timedelta(minutes=1))

    with pytest.raises(UnavailableError, match="Nothing new"):
        await client.batches.upload_items("bat-1", numbered(1), patience=patience)

    assert timer.now <= 60


async def test_nothing_to_upload_is_no_call(connected):
    draft = Draft()
    client = await connected(draft)

    answer = await client.batches.upload_items("bat-1", [])

    assert draft.calls == []
    assert answer.accepted_count == 0
