"""Watching the changes of preferences over connections that do not last as long as the watch."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

import grpc
from batchwork.v1.preference_pb2 import PreferenceChange
from batchwork.v1.preference_service_pb2 import (
    PREFERENCE_WATCH_KIND_CHANGE,
    PREFERENCE_WATCH_KIND_GOING_AWAY,
    WatchPreferenceChangesRequest,
    WatchPreferenceChangesResponse,
)

from batchwork_client.calls import Calls
from batchwork_client.errors import BatchworkError, UnavailableError, error_of
from batchwork_client.watch import Attempts, Patience, another_stream_may_do


class ChangesStub(Protocol):
    """The call that the watch needs."""

    WatchPreferenceChanges: grpc.aio.UnaryStreamMultiCallable[
        WatchPreferenceChangesRequest, WatchPreferenceChangesResponse
    ]


async def watch_changes(
    stub: ChangesStub,
    *,
    after: int | None,
    tenant_id: str,
    calls: Calls,
    patience: Patience,
) -> AsyncGenerator[PreferenceChange, None]:
    """Yields changes; ``Preferences.watch_preference_changes`` has the promises."""
    attempts = Attempts(patience)
    correlation_id = calls.next_correlation_id()
    while True:
        stream = stub.WatchPreferenceChanges(
            WatchPreferenceChangesRequest(after=after, tenant_id=tenant_id),
            metadata=calls.metadata(correlation_id),
        )
        try:
            while (message := await _next(stream, patience, correlation_id)) is not None:
                after = message.after
                if message.kind == PREFERENCE_WATCH_KIND_GOING_AWAY:
                    break
                attempts.heard()
                if message.kind == PREFERENCE_WATCH_KIND_CHANGE:
                    yield message.change
            raise _lost("The stream ended before the watch did.", correlation_id)
        except BatchworkError as failure:
            if not another_stream_may_do(failure):
                raise
            await attempts.pause_after(failure)
        finally:
            stream.cancel()


async def _next(
    stream: grpc.aio.UnaryStreamCall[WatchPreferenceChangesRequest, WatchPreferenceChangesResponse],
    patience: Patience,
    correlation_id: str,
) -> WatchPreferenceChangesResponse | None:
    try:
        async with patience.timer.timeout(patience.silence):
            message = await stream.read()
    except TimeoutError as error:
        raise _lost(f"The server was silent for {patience.silence}.", correlation_id) from error
    except grpc.aio.AioRpcError as failure:
        raise error_of(failure, correlation_id=correlation_id) from failure
    if message is grpc.aio.EOF:
        return None
    assert isinstance(message, WatchPreferenceChangesResponse)  # noqa: S101  the only other kind
    return message


def _lost(message: str, correlation_id: str) -> UnavailableError:
    return UnavailableError(
        message, code=grpc.StatusCode.UNAVAILABLE, correlation_id=correlation_id
    )
