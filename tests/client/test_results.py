"""A stream of results loses nothing and repeats nothing, whatever the connection does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import grpc
import pytest
from batchwork.v1.batch_service_pb2 import StreamResultsRequest, StreamResultsResponse
from batchwork.v1.batch_service_pb2_grpc import BatchServiceServicer
from batchwork.v1.item_pb2 import ITEM_STATE_FAILED, Item
from batchwork_client import NotFoundError, Patience, ResumeTokenExpiredError, UnavailableError

from tests.client.servers import TOKEN_EXPIRED, UNAVAILABLE, HandTimer, Refusal, servicer


class Streams:
    """Answers the first stream with the first script, the second with the second, and so on."""

    def __init__(self, *scripts: Sequence[StreamResultsResponse | Refusal]) -> None:
        self._scripts = list(scripts)
        self.requests: list[StreamResultsRequest] = []
        self.ended = asyncio.Event()

    @property
    def tokens(self) -> list[str]:
        return [request.resume_token for request in self.requests]

    async def answer(self, request: Any, context: Any) -> AsyncIterator[StreamResultsResponse]:
        self.requests.append(request)
        try:
            for step in self._scripts.pop(0):
                if isinstance(step, Refusal):
                    await step.abort(context)
                else:
                    yield step
        finally:
            self.ended.set()


def message(token: str, *item_ids: str) -> StreamResultsResponse:
    items = [Item(item_id=item_id) for item_id in item_ids]
    return StreamResultsResponse(items=items, resume_token=token)


@pytest.fixture
def patience():
    return Patience(timer=HandTimer(), jitter=lambda: 0.0)


@pytest.fixture
def connected(client_of):
    """Starts a server whose streams go by a script, and returns a client of it."""

    async def start(streams: Streams):
        return await client_of(servicer(BatchServiceServicer, StreamResults=streams.answer))

    return start


async def ids_of(items: AsyncIterator[Item]) -> list[str]:
    return [item.item_id async for item in items]


async def test_items_of_all_messages_come_in_their_order(connected):
    streams = Streams([message("t1", "a", "b"), message("t2", "c")])
    client = await connected(streams)

    found = await ids_of(
        client.batches.stream_results(
            "bat-1", follow=True, states=[ITEM_STATE_FAILED], without_data=True, resume_token="t0"
        )
    )

    assert found == ["a", "b", "c"]
    assert streams.requests == [
        StreamResultsRequest(
            batch_id="bat-1",
            follow=True,
            states=[ITEM_STATE_FAILED],
            without_data=True,
            resume_token="t0",
        )
    ]


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(UNAVAILABLE, id="server shuts down"),
        pytest.param(Refusal(code=grpc.StatusCode.CANCELLED), id="server cut the stream"),
        pytest.param(Refusal(code=grpc.StatusCode.INTERNAL), id="stream was reset"),
    ],
)
async def test_broken_stream_goes_on_after_the_newest_token(connected, patience, cut):
    streams = Streams([message("t1", "a", "b"), cut], [cut], [message("t2", "c")])
    client = await connected(streams)

    found = await ids_of(client.batches.stream_results("bat-1", patience=patience))

    assert found == ["a", "b", "c"]
    assert streams.tokens == ["", "t1", "t1"]


async def test_expired_token_is_told_instead_of_repeating_items(connected, patience):
    streams = Streams([message("t1", "a"), UNAVAILABLE], [TOKEN_EXPIRED])
    client = await connected(streams)
    items = client.batches.stream_results("bat-1", patience=patience)

    first = await anext(items)

    assert first.item_id == "a"
    with pytest.raises(ResumeTokenExpiredError):
        await anext(items)


async def test_what_the_server_refuses_is_not_tried_again(connected, patience):
    streams = Streams([Refusal(code=grpc.StatusCode.NOT_FOUND)])
    client = await connected(streams)

    with pytest.raises(NotFoundError):
        await ids_of(client.batches.stream_results("bat-1", patience=patience))

    assert len(streams.requests) == 1


async def test_stream_gives_up_when_nothing_gets_through(connected):
    streams = Streams(*[[UNAVAILABLE] for _ in range(1000)])
    client = await connected(streams)
    patience = Patience(timer=HandTimer(), jitter=lambda: 0.0, give_up_after=timedelta(minutes=1))

    with pytest.raises(UnavailableError, match="Nothing new"):
        await ids_of(client.batches.stream_results("bat-1", patience=patience))


async def test_reader_that_leaves_ends_the_stream(connected):
    streams = Streams([message(f"t{n}", f"item-{n}") for n in range(100_000)])
    client = await connected(streams)

    async with aclosing(client.batches.stream_results("bat-1")) as items:
        await anext(items)

    async with asyncio.timeout(30):
        await streams.ended.wait()
