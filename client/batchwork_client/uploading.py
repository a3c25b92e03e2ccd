"""Uploading to a draft, over connections that do not last as long as the upload.

What is to be sent is gathered into legs, each a call of its own that is kept until it was answered.
A call that broke is repeated from where the draft says that its upload goes on; so any iterable
will do, and memory holds one leg of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from typing import Protocol

import grpc
from batchwork.v1.batch_service_pb2 import (
    GetBatchRequest,
    GetBatchResponse,
    UploadItemsRequest,
    UploadItemsResponse,
)
from batchwork.v1.item_pb2 import ItemInput

from batchwork_client.calls import Calls
from batchwork_client.errors import BatchworkError, error_of
from batchwork_client.watch import Attempts, Patience, another_stream_may_do

MESSAGE_ITEMS = 1000
"""A message has at most so many items."""

MESSAGE_BYTES = 1024 * 1024
"""A message ends with the item that would bring it over so many bytes."""

LEG_ITEMS = 5000
"""A call has at most so many items; the server stores about as many at once."""

LEG_BYTES = 4 * MESSAGE_BYTES
"""A call ends with the item that would bring it over so many bytes."""


class UploadStub(Protocol):
    """The calls that an upload needs."""

    GetBatch: grpc.aio.UnaryUnaryMultiCallable[GetBatchRequest, GetBatchResponse]
    UploadItems: grpc.aio.StreamUnaryMultiCallable[UploadItemsRequest, UploadItemsResponse]


class Upload:
    """An upload to one draft; ``Batches.upload_items`` has the promises."""

    def __init__(
        self, stub: UploadStub, batch_id: str, *, calls: Calls, patience: Patience
    ) -> None:
        self._stub = stub
        self._batch_id = batch_id
        self._calls = calls
        self._patience = patience

    async def send(
        self, items: AsyncIterable[ItemInput], *, offset: int | None
    ) -> UploadItemsResponse:
        """Sends all items, and counts what became of them."""
        next_offset = await self._upload_offset() if offset is None else offset
        total = UploadItemsResponse(next_offset=next_offset)
        async for leg in _legs(items):
            sent = await self._send_leg(leg, offset=next_offset)
            next_offset += len(leg)
            total.accepted_count += sent.accepted_count
            total.deduplicated_count += sent.deduplicated_count
            total.next_offset = sent.next_offset
        return total

    async def _upload_offset(self) -> int:
        request = GetBatchRequest(batch_id=self._batch_id)
        response = await self._calls.unary(self._stub.GetBatch, request)
        return response.batch.upload_offset

    async def _send_leg(self, leg: Sequence[ItemInput], *, offset: int) -> UploadItemsResponse:
        """Sends a leg, as often as it takes; what a broken call has stored counts as accepted."""
        attempts = Attempts(self._patience)
        stored, is_broken = 0, False
        while True:
            try:
                if is_broken:
                    before, stored = stored, await self._stored_of(leg, offset=offset)
                    if stored > before:
                        attempts.heard()
                answer = await self._call(leg[stored:], offset=offset + stored)
            except BatchworkError as failure:
                if not another_stream_may_do(failure):
                    raise
                is_broken = True
                await attempts.pause_after(failure)
            else:
                answer.accepted_count += stored
                return answer

    async def _stored_of(self, leg: Sequence[ItemInput], *, offset: int) -> int:
        """Returns how many items of a leg the draft has."""
        return min(max(await self._upload_offset() - offset, 0), len(leg))

    async def _call(self, leg: Sequence[ItemInput], *, offset: int) -> UploadItemsResponse:
        correlation_id = self._calls.next_correlation_id()
        try:
            return await self._stub.UploadItems(
                _messages(self._batch_id, leg, offset=offset),
                timeout=self._calls.timeout.total_seconds(),
                metadata=self._calls.metadata(correlation_id),
            )
        except grpc.aio.AioRpcError as failure:
            raise error_of(failure, correlation_id=correlation_id) from failure


async def _legs(items: AsyncIterable[ItemInput]) -> AsyncIterator[list[ItemInput]]:
    leg: list[ItemInput] = []
    size = 0
    async for item in items:
        weight = item.ByteSize()
        if len(leg) >= LEG_ITEMS or (leg and size + weight > LEG_BYTES):
            yield leg
            leg, size = [], 0
        leg.append(item)
        size += weight
    if leg:
        yield leg


def _messages(
    batch_id: str, leg: Sequence[ItemInput], *, offset: int
) -> Iterator[UploadItemsRequest]:
    """Yields the messages of a call; at least one, which names the draft."""
    message = UploadItemsRequest(batch_id=batch_id, offset=offset)
    size = 0
    for place, item in enumerate(leg):
        weight = item.ByteSize()
        count = len(message.items)
        if count >= MESSAGE_ITEMS or (count and size + weight > MESSAGE_BYTES):
            yield message
            message, size = UploadItemsRequest(offset=offset + place), 0
        message.items.append(item)
        size += weight
    yield message
