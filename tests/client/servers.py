"""Servers that misbehave on purpose, and what they send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc
from batchwork.v1.batch_pb2 import Batch, BatchCounts, BatchState
from batchwork.v1.batch_service_pb2 import BatchEvent, BatchEventKind, WatchBatchResponse
from batchwork.v1.item_pb2 import Item
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

SNAPSHOT = BatchEventKind.BATCH_EVENT_KIND_SNAPSHOT
STATE_CHANGED = BatchEventKind.BATCH_EVENT_KIND_STATE_CHANGED
PROGRESS = BatchEventKind.BATCH_EVENT_KIND_PROGRESS
ITEM_FINISHED = BatchEventKind.BATCH_EVENT_KIND_ITEM_FINISHED
HEARTBEAT = BatchEventKind.BATCH_EVENT_KIND_HEARTBEAT
GOING_AWAY = BatchEventKind.BATCH_EVENT_KIND_GOING_AWAY
END = BatchEventKind.BATCH_EVENT_KIND_END

RUNNING = BatchState.BATCH_STATE_RUNNING
SUCCEEDED = BatchState.BATCH_STATE_SUCCEEDED

SILENCE = "the stream stays open and nothing comes"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A status that is not OK, with the details that the real server sends."""

    code: grpc.StatusCode
    message: str = "refused"
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    details: Sequence[Message] = ()
    domain: str = "batchwork"

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        details = list(self.details)
        if self.reason:
            details.insert(
                0,
                error_details_pb2.ErrorInfo(
                    reason=self.reason, domain=self.domain, metadata=self.metadata
                ),
            )
        status = status_pb2.Status(
            code=self.code.value[0], message=self.message, details=map(_packed, details)
        )
        return (("grpc-status-details-bin", status.SerializeToString()),)

    async def abort(self, context: Any) -> None:
        await context.abort(self.code, self.message, self.trailing_metadata())

    def abort_now(self, context: Any) -> None:
        """Does the same in a server of threads."""
        context.set_trailing_metadata(self.trailing_metadata())
        context.abort(self.code, self.message)


UNAVAILABLE = Refusal(code=grpc.StatusCode.UNAVAILABLE, reason="SHUTTING_DOWN")
TOKEN_EXPIRED = Refusal(code=grpc.StatusCode.OUT_OF_RANGE, reason="RESUME_TOKEN_EXPIRED")


def event(kind: BatchEventKind.ValueType, sequence: int, **fields: Any) -> BatchEvent:
    fields.setdefault("resume_token", f"t{sequence}")
    return BatchEvent(kind=kind, sequence=sequence, **fields)


def snapshot(sequence: int, *, batch_id: str = "bat-1") -> BatchEvent:
    return event(SNAPSHOT, sequence, batch=Batch(batch_id=batch_id, state=RUNNING))


def progress(sequence: int, *, succeeded: int = 0) -> BatchEvent:
    return event(PROGRESS, sequence, counts=BatchCounts(total=10, succeeded=succeeded))


def item_finished(sequence: int, item_id: str) -> BatchEvent:
    return event(ITEM_FINISHED, sequence, item=Item(item_id=item_id))


def end(sequence: int, *, batch_id: str = "bat-1") -> BatchEvent:
    return event(END, sequence, batch=Batch(batch_id=batch_id, state=SUCCEEDED))


class Streams:
    """Answers the first watch with the first script, the second with the second, and so on.

    A script sends its events, aborts with a refusal, falls silent, or just ends.
    """

    def __init__(self, *scripts: Iterable[BatchEvent | Refusal | str]) -> None:
        self._scripts = list(scripts)
        self.requests: list[Any] = []
        self.correlation_ids: list[str] = []

    @property
    def tokens(self) -> list[str]:
        return [request.resume_token for request in self.requests]

    async def answer(self, request: Any, context: Any) -> AsyncIterator[WatchBatchResponse]:
        self.requests.append(request)
        self.correlation_ids.append(dict(context.invocation_metadata())["x-correlation-id"])
        for step in self._scripts.pop(0):
            if isinstance(step, BatchEvent):
                yield WatchBatchResponse(event=step)
            elif isinstance(step, Refusal):
                await step.abort(context)
            else:
                await asyncio.Event().wait()


class Unary:
    """Answers any unary call from a script, and keeps what came."""

    def __init__(self, *answers: Message | Refusal | Callable[[Any], Message]) -> None:
        self._answers = list(answers)
        self.requests: list[Any] = []
        self.metadata: list[dict[str, Any]] = []

    async def answer(self, request: Any, context: Any) -> Message | None:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Refusal):
            await answer.abort(context)
            return None
        return answer if isinstance(answer, Message) else answer(request)


def servicer(base: type, **methods: Unary | Streams | Callable[[Any, Any], Any]) -> Any:
    """Returns a servicer with the given methods; the others answer UNIMPLEMENTED."""
    made = base()
    for name, method in methods.items():
        setattr(made, name, method.answer if isinstance(method, Unary | Streams) else method)
    return made


class HandTimer:
    """A clock that tests read; pauses are over at once.

    Args:
        expiring: Which of the time limits, counted from 1, are over as soon as they are set.
    """

    def __init__(self, *, expiring: Iterable[int] = ()) -> None:
        self.now = 0.0
        self.pauses: list[timedelta] = []
        self._expiring = set(expiring)
        self._limits = 0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, delay: timedelta) -> None:
        self.pauses.append(delay)
        self.now += delay.total_seconds()

    def timeout(self, delay: timedelta | None) -> asyncio.Timeout:
        self._limits += 1
        return asyncio.timeout(0 if self._limits in self._expiring else None)


def _packed(detail: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed
