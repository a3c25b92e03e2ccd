"""From errors to statuses: one table, and the details that belong to each row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details
from google.rpc.status_pb2 import Status

from batchwork_server.errors import (
    AlreadyExists,
    BatchworkError,
    ConfigurationError,
    CountMismatch,
    EtagMismatch,
    InvalidArgument,
    NotFound,
    NothingMatches,
    OffsetGap,
    PermissionDenied,
    PlanStale,
    QuotaExceeded,
    RequestIdReused,
    ResumeTokenExpired,
    ShuttingDown,
    SourceUnavailable,
    StorageFull,
    StoreUnavailable,
    Unauthenticated,
    Unavailable,
    Violation,
    WrongState,
)
from batchwork_server.rpc.values import duration_to

DOMAIN = "batchwork"
INTERNAL = "INTERNAL"

MAX_TRAILER_BYTES = 7 * 1024
"""What a status may weigh as trailers; many peers refuse more than 8 KiB of them.

A status travels twice: its message as text, where a byte beyond ASCII counts three times, and all
of it as base64, where three bytes count four times. The sizes below add up to less.
"""

_MESSAGE_BYTES = 900
_VIOLATIONS_BYTES = 3000
_PATH_BYTES = 256
_DESCRIPTION_BYTES = 512
_PERCENT = 0x25


@dataclass(frozen=True, slots=True)
class Row:
    """What an error becomes: a code, and the details that it has besides ``ErrorInfo``."""

    code: grpc.StatusCode
    details: Callable[[Any], Iterator[Message]] = lambda _error: iter(())


def _bad_request(error: InvalidArgument) -> Iterator[Message]:
    yield details.BadRequest(field_violations=_first_violations(error.violations))


def _first_violations(
    violations: Sequence[Violation],
) -> Iterator[details.BadRequest.FieldViolation]:
    """Yields as many as fit, which are a few dozen."""
    room = _VIOLATIONS_BYTES
    for violation in violations:
        message = details.BadRequest.FieldViolation(
            field=_cut(violation.path, _PATH_BYTES),
            description=_cut(violation.message, _DESCRIPTION_BYTES),
            reason=violation.reason,
        )
        room -= message.ByteSize() + 4
        if room < 0:
            return
        yield message


def _resource(error: NotFound | AlreadyExists) -> Iterator[Message]:
    yield details.ResourceInfo(resource_type=error.resource_type, resource_name=error.resource_id)


def _precondition(error: WrongState | NothingMatches | CountMismatch) -> Iterator[Message]:
    violation = details.PreconditionFailure.Violation(
        type=error.reason,
        subject=f"{error.resource_type}/{error.resource_id}",
        description=error.message,
    )
    yield details.PreconditionFailure(violations=[violation])


def _quota(error: QuotaExceeded | StorageFull) -> Iterator[Message]:
    violation = details.QuotaFailure.Violation(subject=error.subject, description=error.message)
    yield details.QuotaFailure(violations=[violation])
    yield from _retry(error)


def _retry(error: QuotaExceeded | Unavailable) -> Iterator[Message]:
    yield details.RetryInfo(retry_delay=duration_to(error.retry_after))


ROWS: dict[type[BatchworkError], Row] = {
    InvalidArgument: Row(grpc.StatusCode.INVALID_ARGUMENT, _bad_request),
    OffsetGap: Row(grpc.StatusCode.INVALID_ARGUMENT, _bad_request),
    NotFound: Row(grpc.StatusCode.NOT_FOUND, _resource),
    AlreadyExists: Row(grpc.StatusCode.ALREADY_EXISTS, _resource),
    RequestIdReused: Row(grpc.StatusCode.ALREADY_EXISTS, _resource),
    EtagMismatch: Row(grpc.StatusCode.ABORTED),
    PlanStale: Row(grpc.StatusCode.ABORTED),
    WrongState: Row(grpc.StatusCode.FAILED_PRECONDITION, _precondition),
    NothingMatches: Row(grpc.StatusCode.FAILED_PRECONDITION, _precondition),
    CountMismatch: Row(grpc.StatusCode.FAILED_PRECONDITION, _precondition),
    QuotaExceeded: Row(grpc.StatusCode.RESOURCE_EXHAUSTED, _quota),
    ResumeTokenExpired: Row(grpc.StatusCode.OUT_OF_RANGE),
    Unauthenticated: Row(grpc.StatusCode.UNAUTHENTICATED),
    PermissionDenied: Row(grpc.StatusCode.PERMISSION_DENIED),
    Unavailable: Row(grpc.StatusCode.UNAVAILABLE, _retry),
    StoreUnavailable: Row(grpc.StatusCode.UNAVAILABLE, _retry),
    StorageFull: Row(grpc.StatusCode.RESOURCE_EXHAUSTED, _quota),
    SourceUnavailable: Row(grpc.StatusCode.UNAVAILABLE, _retry),
    ShuttingDown: Row(grpc.StatusCode.UNAVAILABLE, _retry),
    ConfigurationError: Row(grpc.StatusCode.INTERNAL),  # raised before there are calls
}


def status_of(error: BatchworkError) -> Status:
    """Returns the status of an error, cut to what trailers can carry.

    ``ErrorInfo`` comes first. Of very many violations the first ones are listed, and
    ``violation_count`` in its metadata tells how many there are.
    """
    row = _row_of(error)
    metadata = error.metadata
    if isinstance(error, InvalidArgument):
        metadata = {**metadata, "violation_count": str(len(error.violations))}
    info = details.ErrorInfo(reason=error.reason or row.code.name, domain=DOMAIN, metadata=metadata)
    return _status(row.code, error.message, info, *row.details(error))


def internal_status(correlation_id: str) -> Status:
    """Returns the status of a fault of ours, which tells nothing but where to look."""
    info = details.ErrorInfo(
        reason=INTERNAL, domain=DOMAIN, metadata={"correlation_id": correlation_id}
    )
    message = f"The server failed; its log has the reason under {correlation_id!r}."
    return _status(grpc.StatusCode.INTERNAL, message, info)


def _row_of(error: BatchworkError) -> Row:
    return next(ROWS[ancestor] for ancestor in type(error).__mro__ if ancestor in ROWS)


def _status(code: grpc.StatusCode, message: str, *facts: Message) -> Status:
    status = Status(code=code.value[0], message=_cut_message(message))
    for fact in facts:
        status.details.add().Pack(fact)
    return status


def _cut(text: str, most_bytes: int) -> str:
    encoded = text.encode()
    if len(encoded) <= most_bytes:
        return text
    return f"{encoded[: most_bytes - 3].decode(errors='ignore')}…"


def _cut_message(message: str) -> str:
    """Cuts a message to what it may weigh when it is percent-encoded."""
    weight = 0
    for index, character in enumerate(message):
        weight += sum(
            1 if 0x20 <= byte < 0x7F and byte != _PERCENT else 3 for byte in character.encode()
        )
        if weight > _MESSAGE_BYTES:
            return f"{message[: index - 1]}…"
    return message
