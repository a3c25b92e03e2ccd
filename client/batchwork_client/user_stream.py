"""Validating any number of users in one call, which holds a few thousand of them at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import suppress
from itertools import islice
from typing import Any, Protocol, cast

import grpc
from batchwork.v1.validation_service_pb2 import (
    StreamValidateUsersRequest,
    StreamValidateUsersResponse,
)

from batchwork_client.calls import Calls
from batchwork_client.errors import error_of

IDS_PER_MESSAGE = 10_000
"""The most ids of a message."""


class UserStreamStub(Protocol):
    """The one call that the stream needs."""

    StreamValidateUsers: grpc.aio.StreamStreamMultiCallable[
        StreamValidateUsersRequest, StreamValidateUsersResponse
    ]


async def stream_validate_users(
    stub: UserStreamStub,
    user_ids: Iterable[str] | AsyncIterable[str],
    *,
    include_valid: bool,
    calls: Calls,
) -> AsyncGenerator[StreamValidateUsersResponse, None]:
    """Yields an answer for each message; ``Validation.stream_validate_users`` has the promises."""
    correlation_id = calls.next_correlation_id()
    call = stub.StreamValidateUsers(metadata=calls.metadata(correlation_id))
    sending = asyncio.create_task(_send(call, _messages(user_ids, include_valid=include_valid)))
    try:
        while (answer := await call.read()) is not grpc.aio.EOF:
            yield cast("StreamValidateUsersResponse", answer)
    except (grpc.aio.AioRpcError, asyncio.CancelledError) as failure:
        if sending.done() and not sending.cancelled():
            sending.result()  # raises what the caller's own ids raised
        if isinstance(failure, grpc.aio.AioRpcError):
            raise error_of(failure, correlation_id=correlation_id) from failure
        raise
    finally:
        sending.cancel()
        call.cancel()
        await asyncio.wait([sending])


async def _send(call: Any, requests: AsyncIterator[StreamValidateUsersRequest]) -> None:
    """Writes every message; a call that has ended by itself says why to whoever reads."""
    try:
        async for request in requests:
            try:
                await call.write(request)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return
    except BaseException:
        call.cancel()
        raise
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.done_writing()


async def _messages(
    user_ids: Iterable[str] | AsyncIterable[str], *, include_valid: bool
) -> AsyncIterator[StreamValidateUsersRequest]:
    async for some in _some(user_ids):
        yield StreamValidateUsersRequest(user_ids=some, include_valid=include_valid)


async def _some(user_ids: Iterable[str] | AsyncIterable[str]) -> AsyncIterator[list[str]]:
    """Yields the ids in lists, each as long as a message may be."""
    if not isinstance(user_ids, AsyncIterable):
        remaining = iter(user_ids)
        while some := list(islice(remaining, IDS_PER_MESSAGE)):
            yield some
        return
    gathered: list[str] = []
    async for user_id in user_ids:
        gathered.append(user_id)
        if len(gathered) == IDS_PER_MESSAGE:
            yield gathered
            gathered = []
    if gathered:
        yield gathered
