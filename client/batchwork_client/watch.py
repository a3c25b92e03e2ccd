"""Watching one batch to its end, or many, over connections that do not last as long.

A watch is a row of streams. Each one starts after the newest token of the one before, so that
nothing is lost; what comes twice nevertheless is dropped by its sequence.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol, TypeAlias, cast

import grpc
from batchwork.v1.batch_service_pb2 import (
    BATCH_EVENT_KIND_END,
    BATCH_EVENT_KIND_GOING_AWAY,
    BATCH_EVENT_KIND_HEARTBEAT,
    BATCH_EVENT_KIND_SNAPSHOT,
    BatchEvent,
    BatchEventKind,
    WatchBatchesRequest,
    WatchBatchesResponse,
    WatchBatchRequest,
    WatchBatchResponse,
)

from batchwork_client.calls import Calls, Metadata
from batchwork_client.errors import (
    BatchworkError,
    InternalError,
    ResourceExhaustedError,
    ResumeTokenExpiredError,
    UnavailableError,
    error_of,
)

Stream: TypeAlias = (
    "grpc.aio.UnaryStreamCall[WatchBatchRequest, WatchBatchResponse]"
    " | grpc.aio.UnaryStreamCall[WatchBatchesRequest, WatchBatchesResponse]"
)
OpenStream: TypeAlias = Callable[[str, Metadata], Stream]


class Timer(Protocol):
    """Measures and waits; tests bring one that they move by hand."""

    def monotonic(self) -> float:
        """Returns seconds that never run backwards."""
        ...

    async def sleep(self, delay: timedelta) -> None:
        """Returns when ``delay`` is over."""
        ...

    def timeout(self, delay: timedelta | None) -> AbstractAsyncContextManager[object]:
        """Raises ``TimeoutError`` out of its block when ``delay`` is over; None means never."""
        ...


class SystemTimer:
    """The machine's clock and the event loop's timers."""

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, delay: timedelta) -> None:
        await asyncio.sleep(delay.total_seconds())

    def timeout(self, delay: timedelta | None) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(None if delay is None else delay.total_seconds())


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long a watch waits for what.

    Attributes:
        silence: After so long without a message the connection counts as dead. The server sends
            a heartbeat every 15 seconds; less than that cuts connections that are well.
        first_pause: The pause before the first new attempt; it doubles with every other one.
        longest_pause: Where the doubling stops.
        give_up_after: The watch ends with an error when for so long no stream has brought
            anything new. A heartbeat counts as new.
        jitter: Returns a share of 0 to 1 by which a pause is shortened, up to its half, so that
            the watchers of a server that restarts do not come back all at once.
        timer: The clock.
    """

    silence: timedelta = timedelta(seconds=45)
    first_pause: timedelta = timedelta(milliseconds=200)
    longest_pause: timedelta = timedelta(seconds=15)
    give_up_after: timedelta = timedelta(minutes=5)
    jitter: Callable[[], float] = random.random
    timer: Timer = field(default_factory=SystemTimer)

    def pause(self, *, failures: int, asked_for: timedelta | None) -> timedelta:
        """Returns how long to wait after so many ``failures`` in a row, counted from 1.

        Never shorter than what the server ``asked_for``.
        """
        doublings = min(failures - 1, 30)
        full = min(self.first_pause * (1 << doublings), self.longest_pause)
        return max(full * (1 - self.jitter() / 2), asked_for or timedelta(0))


DEFAULT_PATIENCE = Patience()


class WatchStub(Protocol):
    """The calls that watches need."""

    WatchBatch: grpc.aio.UnaryStreamMultiCallable[WatchBatchRequest, WatchBatchResponse]
    WatchBatches: grpc.aio.UnaryStreamMultiCallable[WatchBatchesRequest, WatchBatchesResponse]


class Position(Protocol):
    """Where a watch stands.

    Attributes:
        resume_token: What the next stream is to start after.
    """

    resume_token: str

    def forget(self) -> None:
        """Makes the next stream start with a snapshot."""
        ...

    def accept(self, event: BatchEvent) -> bool:
        """Takes the token of ``event`` and tells whether the event is new."""
        ...


class BatchPosition:
    """Where the watch of a batch stands.

    Several ITEM_FINISHED share a sequence, so that a sequence alone does not tell whether an
    event is new: at the newest one, its kind and its item do. What is older than the newest
    sequence was seen, because the server sends in order.
    """

    def __init__(self, resume_token: str) -> None:
        self.resume_token = resume_token
        self._sequence = 0
        self._seen: set[tuple[BatchEventKind.ValueType, str]] = set()

    def forget(self) -> None:
        """Makes the next stream start with a snapshot."""
        self.resume_token = ""
        self._advance(0)

    def accept(self, event: BatchEvent) -> bool:
        """Takes the token of ``event`` and tells whether the event is new."""
        if not self._is_new(event):
            return False
        self.resume_token = event.resume_token or self.resume_token
        if event.sequence > self._sequence or event.kind == BATCH_EVENT_KIND_SNAPSHOT:
            self._advance(event.sequence)
        self._seen.add((event.kind, event.item.item_id))
        return True

    def _is_new(self, event: BatchEvent) -> bool:
        if event.kind in (BATCH_EVENT_KIND_SNAPSHOT, BATCH_EVENT_KIND_END):
            return True
        if event.kind in (BATCH_EVENT_KIND_HEARTBEAT, BATCH_EVENT_KIND_GOING_AWAY):
            return event.sequence >= self._sequence
        if event.sequence == self._sequence:
            return (event.kind, event.item.item_id) not in self._seen
        return event.sequence > self._sequence

    def _advance(self, sequence: int) -> None:
        self._sequence = sequence
        self._seen.clear()


class ManyPosition:
    """Where a watch of many batches stands.

    Each event of a batch has a sequence of its own; one that is not newer than the newest of its
    batch was seen. A batch that is over is remembered for a while, because a stream that goes on
    may tell of its end again.
    """

    _MOST_OVER = 10_000

    def __init__(self, resume_token: str) -> None:
        self.resume_token = resume_token
        self._open: dict[tuple[str, str], int] = {}
        self._over: OrderedDict[tuple[str, str], int] = OrderedDict()

    def forget(self) -> None:
        """Makes the next stream start with snapshots."""
        self.resume_token = ""
        self._open.clear()
        self._over.clear()

    def accept(self, event: BatchEvent) -> bool:
        """Takes the token of ``event`` and tells whether the event is new."""
        self.resume_token = event.resume_token or self.resume_token
        if event.kind in (BATCH_EVENT_KIND_HEARTBEAT, BATCH_EVENT_KIND_GOING_AWAY):
            return True
        batch = (event.tenant_id, event.batch_id)
        seen = max(self._open.get(batch, 0), self._over.get(batch, 0))
        if event.sequence <= seen and event.kind != BATCH_EVENT_KIND_SNAPSHOT:
            return False
        self._note(batch, event)
        return True

    def _note(self, batch: tuple[str, str], event: BatchEvent) -> None:
        self._over.pop(batch, None)
        if event.kind != BATCH_EVENT_KIND_END:
            self._open[batch] = event.sequence
            return
        self._open.pop(batch, None)
        self._over[batch] = event.sequence
        if len(self._over) > self._MOST_OVER:
            self._over.popitem(last=False)


class Attempts:
    """Counts the streams in a row that brought nothing new, and says when it is enough."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self.heard()

    def heard(self) -> None:
        """Starts counting again: something new has come."""
        self._failures = 0
        self._heard_at = self._patience.timer.monotonic()

    async def pause_after(self, failure: BatchworkError) -> None:
        """Waits before the next stream.

        Raises:
            UnavailableError: Nothing new has come for too long; its cause is ``failure``.
        """
        self._failures += 1
        pause = self._patience.pause(failures=self._failures, asked_for=failure.retry_after)
        waited = timedelta(seconds=self._patience.timer.monotonic() - self._heard_at)
        if waited + pause > self._patience.give_up_after:
            raise UnavailableError(
                f"Nothing new was heard for {waited.total_seconds():.0f} s; "
                f"the last answer was: {failure.message}",
                code=grpc.StatusCode.UNAVAILABLE,
                correlation_id=failure.correlation_id,
            ) from failure
        await self._patience.timer.sleep(pause)


def watch(
    stub: WatchStub, request: WatchBatchRequest, *, calls: Calls, patience: Patience
) -> AsyncGenerator[BatchEvent, None]:
    """Yields the events of one batch until END; ``Batches.watch_batch`` has the promises."""

    def open_stream(resume_token: str, metadata: Metadata) -> Stream:
        resumed = WatchBatchRequest()
        resumed.CopyFrom(request)
        resumed.resume_token = resume_token
        return stub.WatchBatch(resumed, metadata=metadata)

    position = BatchPosition(request.resume_token)
    return _watch(open_stream, position, calls=calls, patience=patience, ends=True)


def watch_many(
    stub: WatchStub, request: WatchBatchesRequest, *, calls: Calls, patience: Patience
) -> AsyncGenerator[BatchEvent, None]:
    """Yields the events of many batches for ever; ``Batches.watch_batches`` has the promises."""

    def open_stream(resume_token: str, metadata: Metadata) -> Stream:
        resumed = WatchBatchesRequest()
        resumed.CopyFrom(request)
        resumed.resume_token = resume_token
        return stub.WatchBatches(resumed, metadata=metadata)

    position = ManyPosition(request.resume_token)
    return _watch(open_stream, position, calls=calls, patience=patience, ends=False)


async def _watch(
    open_stream: OpenStream, position: Position, *, calls: Calls, patience: Patience, ends: bool
) -> AsyncGenerator[BatchEvent, None]:
    """Yields the events of one stream after the other.

    Args:
        open_stream: Starts a stream after a token.
        position: Where the watch stands.
        calls: Who calls.
        patience: How long to wait for what.
        ends: END is the last event.
    """
    attempts = Attempts(patience)
    correlation_id = calls.next_correlation_id()
    while True:
        try:
            stream = open_stream(position.resume_token, calls.metadata(correlation_id))
            async with aclosing(
                _one_stream(stream, correlation_id=correlation_id, patience=patience)
            ) as events:
                async for event in events:
                    if not position.accept(event):
                        continue
                    if event.kind == BATCH_EVENT_KIND_GOING_AWAY:
                        raise _lost("The server goes away.", correlation_id)
                    attempts.heard()
                    if event.kind != BATCH_EVENT_KIND_HEARTBEAT:
                        yield event
                    if ends and event.kind == BATCH_EVENT_KIND_END:
                        return
        except ResumeTokenExpiredError:
            if not position.resume_token:
                raise
            position.forget()
        except BatchworkError as failure:
            if not another_stream_may_do(failure):
                raise
            await attempts.pause_after(failure)


async def _one_stream(
    stream: Stream, *, correlation_id: str, patience: Patience
) -> AsyncGenerator[BatchEvent, None]:
    """Yields the events of one stream; its end is an error, because END comes first."""
    try:
        while (event := await _next_event(stream, patience)) is not None:
            yield event
        raise _lost("The stream ended before the watch did.", correlation_id)
    except TimeoutError as error:
        raise _lost(f"The server was silent for {patience.silence}.", correlation_id) from error
    except grpc.aio.AioRpcError as failure:
        raise error_of(failure, correlation_id=correlation_id) from failure
    finally:
        stream.cancel()


async def _next_event(stream: Stream, patience: Patience) -> BatchEvent | None:
    async with patience.timer.timeout(patience.silence):
        message = await stream.read()
    if message is grpc.aio.EOF:
        return None
    return cast("WatchBatchResponse | WatchBatchesResponse", message).event


def _lost(message: str, correlation_id: str) -> UnavailableError:
    return UnavailableError(
        message, code=grpc.StatusCode.UNAVAILABLE, correlation_id=correlation_id
    )


def another_stream_may_do(failure: BatchworkError) -> bool:
    """Tells whether a stream ended for a reason that the next one may not meet."""
    if isinstance(failure, UnavailableError):
        return True
    if isinstance(failure, ResourceExhaustedError):
        # The server may still count the stream that broke; it says when to come again.
        return failure.retry_after is not None
    # A connection that breaks in the middle of a stream ends as CANCELLED, INTERNAL or UNKNOWN,
    # depending on who broke it. What the server says on purpose has a reason.
    broken = isinstance(failure, InternalError) or failure.code is grpc.StatusCode.CANCELLED
    return broken and not failure.reason
