"""Every error that the client raises on purpose.

    BatchworkError                  a call was answered with a status that is not OK
    ├── InvalidArgumentError        the request is wrong; carries every violation
    │   ├── PayloadTooLargeError    an item or the whole message is too large
    │   └── OffsetGapError          items of an upload before these are missing
    ├── NotFoundError               not there, or not the caller's to see
    ├── AlreadyExistsError          the id is taken
    │   └── RequestIdReusedError    same request id, other content
    ├── AbortedError                what was read is out of date; read it again
    │   ├── EtagMismatchError       somebody changed it in between
    │   └── PlanStaleError          a run would not be what was planned
    ├── FailedPreconditionError     the server is not in a condition to do this
    │   ├── WrongStateError         the verb does not fit the state
    │   └── CountMismatchError      a draft holds another number of items than expected
    ├── ResourceExhaustedError      too much at once; come back after ``retry_after``
    │   └── StorageFullError        the server has no space for more
    ├── OutOfRangeError             past the end of what is kept
    │   └── ResumeTokenExpiredError the token is older than the events that are kept
    ├── UnauthenticatedError        no or bad credentials
    ├── PermissionDeniedError       the credentials are good, the role is not
    ├── UnavailableError            nobody answers; safe to call again
    ├── DeadlineExceededError       no answer in time; the call may have taken effect
    ├── UnimplementedError          the server is older than this client
    └── InternalError               a fault of the server or of the connection

    ConfigurationError              the client cannot connect like this; no call was made

A status becomes the class of its reason, else the class of its code; a code without a class
becomes ``BatchworkError`` itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

ERROR_DOMAIN = "batchwork"

_Detail = TypeVar("_Detail", bound=Message)


class ConfigurationError(ValueError):
    """The client cannot connect like this; the message says what to change."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """One thing that is wrong with a request.

    Attributes:
        path: Where it stands, such as ``items[3].data_json``; the subject, where the violation
            is about a quota or a precondition.
        description: Names the value and says what to do.
        reason: A stable UPPER_SNAKE code; empty when the server gave none.
    """

    path: str
    description: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusDetails:
    """What a status tells beyond its code and its message; everything may be missing.

    Attributes:
        reason: A stable UPPER_SNAKE code.
        metadata: Facts for programs, as text.
        violations: Everything that is wrong, in the order of the server.
        retry_after: When another try makes sense.
        resource_type: The kind of the thing that the error is about, such as ``batch``.
        resource_name: The id of that thing.
    """

    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: Sequence[Violation] = ()
    retry_after: timedelta | None = None
    resource_type: str = ""
    resource_name: str = ""


class BatchworkError(Exception):
    """The root of what a call raises.

    Attributes:
        code: The gRPC status code.
        message: For people, without the additions of ``str()``.
        reason: A stable UPPER_SNAKE code; empty where the status code says it all.
        metadata: Facts for programs, as text.
        violations: Everything that is wrong with the request, at once.
        retry_after: When another try makes sense; None when the server did not say.
        resource_type: The kind of the thing that the error is about; may be empty.
        resource_name: The id of that thing; may be empty.
        correlation_id: Finds the call in the server's log.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        details: StatusDetails | None = None,
        correlation_id: str = "",
    ) -> None:
        super().__init__(message)
        details = details or StatusDetails()
        self.code = code
        self.message = message
        self.reason = details.reason
        self.metadata = dict(details.metadata)
        self.violations = tuple(details.violations)
        self.retry_after = details.retry_after
        self.resource_type = details.resource_type
        self.resource_name = details.resource_name
        self.correlation_id = correlation_id

    def __str__(self) -> str:
        facts = [self.reason or self.code.name]
        if self.correlation_id:
            facts.append(f"correlation id {self.correlation_id}")
        return f"{self.message} ({', '.join(facts)})"


class InvalidArgumentError(BatchworkError):
    """The request is wrong; the same request is wrong again."""


class PayloadTooLargeError(InvalidArgumentError):
    """An item, or the whole message, is larger than the limit."""


class OffsetGapError(InvalidArgumentError):
    """Items of an upload before these are missing; ``metadata["next_offset"]`` says where."""


class NotFoundError(BatchworkError):
    """A thing is not there, or is not the caller's to see."""


class AlreadyExistsError(BatchworkError):
    """An id is taken."""


class RequestIdReusedError(AlreadyExistsError):
    """A request id was used before with other content."""


class AbortedError(BatchworkError):
    """What the caller has read is out of date."""


class EtagMismatchError(AbortedError):
    """Somebody changed the thing since the caller read it."""


class PlanStaleError(AbortedError):
    """A run of a job would not be what was planned; ``metadata["changed"]`` says in what."""


class FailedPreconditionError(BatchworkError):
    """The server is not in a condition to do this; trying again does not help."""


class WrongStateError(FailedPreconditionError):
    """The verb does not fit the state, which stands in ``metadata["state"]``."""


class CountMismatchError(FailedPreconditionError):
    """A draft holds another number of items than expected, which is ``metadata["found"]``."""


class ResourceExhaustedError(BatchworkError):
    """Too much at once."""


class StorageFullError(ResourceExhaustedError):
    """The server has no space for more; what it has accepted goes on."""


class OutOfRangeError(BatchworkError):
    """A position is past the end of what is kept."""


class ResumeTokenExpiredError(OutOfRangeError):
    """A resume token is older than the events that are kept; start with a snapshot."""


class UnauthenticatedError(BatchworkError):
    """No or bad credentials."""


class PermissionDeniedError(BatchworkError):
    """The credentials are good, the role is not."""


class UnavailableError(BatchworkError):
    """Nobody answers, or something that the call needs is away; safe to call again."""


class DeadlineExceededError(BatchworkError):
    """There was no answer in time.

    The call may have taken effect; with the same ``request_id`` it is safe to repeat.
    """


class UnimplementedError(BatchworkError):
    """The server does not know the call."""


class InternalError(BatchworkError):
    """A fault of the server or of the connection; the server's log has the correlation id."""


ERROR_BY_REASON: Mapping[str, type[BatchworkError]] = {
    "PAYLOAD_TOO_LARGE": PayloadTooLargeError,
    "OFFSET_GAP": OffsetGapError,
    "COUNT_MISMATCH": CountMismatchError,
    "REQUEST_ID_REUSED": RequestIdReusedError,
    "ETAG_MISMATCH": EtagMismatchError,
    "PLAN_STALE": PlanStaleError,
    "WRONG_STATE": WrongStateError,
    "RESUME_TOKEN_EXPIRED": ResumeTokenExpiredError,
    "QUOTA_STORAGE": StorageFullError,
}

ERROR_BY_CODE: Mapping[grpc.StatusCode, type[BatchworkError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.ABORTED: AbortedError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRangeError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.UNIMPLEMENTED: UnimplementedError,
    grpc.StatusCode.INTERNAL: InternalError,
    grpc.StatusCode.UNKNOWN: InternalError,
    grpc.StatusCode.DATA_LOSS: InternalError,
}


def error_of(failure: grpc.aio.AioRpcError, *, correlation_id: str) -> BatchworkError:
    """Returns the exception that ``failure`` stands for, ready to be raised."""
    details = _details_of(failure)
    message = failure.details() or f"The server answered {failure.code().name}."
    error_class = ERROR_BY_REASON.get(details.reason) or ERROR_BY_CODE.get(failure.code())
    if _refused_for_size(failure.code(), message, details):
        error_class = PayloadTooLargeError
    return (error_class or BatchworkError)(
        message, code=failure.code(), details=details, correlation_id=correlation_id
    )


def _refused_for_size(code: grpc.StatusCode, message: str, details: StatusDetails) -> bool:
    # gRPC itself refuses a message over the limit, before the server's code sees the call. The
    # same code without a reason also means too many calls at once, so the text has to decide.
    return (
        code is grpc.StatusCode.RESOURCE_EXHAUSTED
        and not details.reason
        and "larger than max" in message
    )


def _details_of(failure: grpc.aio.AioRpcError) -> StatusDetails:
    status = _status_of(failure)
    if status is None:
        return StatusDetails()
    info = next(_unpack(status, error_details_pb2.ErrorInfo), None)
    resource = next(_unpack(status, error_details_pb2.ResourceInfo), None)
    ours = info is not None and info.domain == ERROR_DOMAIN
    return StatusDetails(
        reason=info.reason if info is not None and ours else "",
        metadata=dict(info.metadata) if info is not None and ours else {},
        violations=tuple(_violations(status)),
        retry_after=_retry_after(status),
        resource_type=resource.resource_type if resource is not None else "",
        resource_name=resource.resource_name if resource is not None else "",
    )


def _status_of(failure: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    try:
        # `from_call` reads code, details and trailing metadata, which this error has too.
        return cast("status_pb2.Status | None", rpc_status.from_call(cast("grpc.Call", failure)))
    except (ValueError, DecodeError):
        # A proxy on the way changed the status; the code and the message are still good.
        return None


def _violations(status: status_pb2.Status) -> Iterator[Violation]:
    for request in _unpack(status, error_details_pb2.BadRequest):
        for wrong in request.field_violations:
            yield Violation(path=wrong.field, description=wrong.description, reason=wrong.reason)
    for precondition in _unpack(status, error_details_pb2.PreconditionFailure):
        for unmet in precondition.violations:
            yield Violation(path=unmet.subject, description=unmet.description, reason=unmet.type)
    for quota in _unpack(status, error_details_pb2.QuotaFailure):
        for exceeded in quota.violations:
            yield Violation(path=exceeded.subject, description=exceeded.description)


def _retry_after(status: status_pb2.Status) -> timedelta | None:
    retry = next(_unpack(status, error_details_pb2.RetryInfo), None)
    return None if retry is None else retry.retry_delay.ToTimedelta()


def _unpack(status: status_pb2.Status, detail_class: type[_Detail]) -> Iterator[_Detail]:
    for packed in status.details:
        detail = detail_class()
        if packed.Unpack(detail):
            yield detail
