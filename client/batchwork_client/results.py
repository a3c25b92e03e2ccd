"""Reading the results of a batch, over connections that do not last as long as the batch."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol, cast

import grpc
from batchwork.v1.batch_service_pb2 import StreamResultsRequest, StreamResultsResponse
from batchwork.v1.item_pb2 import Item

from batchwork_client.calls import Calls
from batchwork_client.errors import BatchworkError, error_of
from batchwork_client.watch import Attempts, Patience, another_stream_may_do


class ResultsStub(Protocol):
    """The one call that a stream of results needs."""

    StreamResults: grpc.aio.UnaryStreamMultiCallable[StreamResultsRequest, StreamResultsResponse]


async def stream_results(
    stub: ResultsStub, request: StreamResultsRequest, *, calls: Calls, patience: Patience
) -> AsyncGenerator[Item, None]:
    """Yields the finished items of one batch; ``Batches.stream_results`` has the promises."""
    resumed = StreamResultsRequest()
    resumed.CopyFrom(request)
    attempts = Attempts(patience)
    correlation_id = calls.next_correlation_id()
    while True:
        started = patience.timer.monotonic()
        try:
            async with aclosing(
                _one_stream(stub, resumed, calls=calls, correlation_id=correlation_id)
            ) as messages:
                async for message in messages:
                    attempts.heard()
                    for item in message.items:
                        yield item
                    resumed.resume_token = message.resume_token
            return
        except BatchworkError as failure:
            if not another_stream_may_do(failure):
                raise
            if patience.timer.monotonic() - started > patience.silence.total_seconds():
                attempts.heard()  # it was well for a while, with nothing to tell
            await attempts.pause_after(failure)


async def _one_stream(
    stub: ResultsStub, request: StreamResultsRequest, *, calls: Calls, correlation_id: str
) -> AsyncGenerator[StreamResultsResponse, None]:
    call = stub.StreamResults(request, metadata=calls.metadata(correlation_id))
    try:
        while (message := await call.read()) is not grpc.aio.EOF:
            yield cast("StreamResultsResponse", message)
    except grpc.aio.AioRpcError as failure:
        raise error_of(failure, correlation_id=correlation_id) from failure
    finally:
        call.cancel()
