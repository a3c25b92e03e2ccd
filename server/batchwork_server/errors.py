"""Every error that the server raises on purpose.

    BatchworkError
    ├── InvalidArgument          a request is wrong; carries every violation
    ├── NotFound                 not there, or not the caller's to see
    ├── AlreadyExists            the id is taken
    │   └── RequestIdReused      same request id, other content
    ├── EtagMismatch             somebody changed it in between
    ├── WrongState               the verb does not fit the state
    ├── QuotaExceeded            too much at once; come back after a delay
    ├── ResumeTokenExpired       the token is older than the events that are kept
    ├── Unauthenticated          no or bad credentials
    ├── PermissionDenied         the credentials are good, the role is not
    ├── Unavailable              safe to call again
    │   ├── StoreUnavailable     the database is away, locked or full
    │   └── ShuttingDown         this server stops
    └── ConfigurationError       the server cannot start like this

    ProcessorError               raised by processors; becomes data of an item
    ├── ItemFailed
    └── ItemSkipped

``rpc/status.py`` turns the first tree into statuses, one row a class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

FIELD_VIOLATION = "FIELD_VIOLATION"


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong with a request or a file.

    Attributes:
        path: Where it stands, such as ``items[3].data_json`` or
            ``$.batch_processing_jobs[0].schedule.at``.
        message: Names the value and says what to do.
        reason: A stable UPPER_SNAKE code.
        limit: What it goes beyond, for programs, when it goes beyond something.
    """

    path: str
    message: str
    reason: str = FIELD_VIOLATION
    limit: int | None = None


class BatchworkError(Exception):
    """The root of what the server raises on purpose.

    Attributes:
        reason: A stable UPPER_SNAKE code; empty where the status code says it all.
        metadata: Facts for programs, as text.
    """

    reason: str = ""

    def __init__(self, message: str, *, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: dict[str, str] = dict(metadata or {})


class InvalidArgument(BatchworkError):
    """A request is wrong; all that is wrong with it is here at once."""

    def __init__(
        self, violations: Sequence[Violation], *, metadata: Mapping[str, str] | None = None
    ) -> None:
        self.violations = tuple(violations)
        reasons = {violation.reason for violation in self.violations}
        self.reason = reasons.pop() if len(reasons) == 1 else FIELD_VIOLATION
        super().__init__(
            "; ".join(
                f"{violation.path}: {violation.message}" for violation in self.violations[:20]
            )
            + (f"; and {len(self.violations) - 20} more" if len(self.violations) > 20 else ""),
            metadata=metadata,
        )
        for violation in self.violations:
            if violation.limit is not None:
                self.metadata.setdefault("limit", str(violation.limit))


class NotFound(BatchworkError):
    """A thing is not there, or is not the caller's to see."""

    def __init__(self, resource_type: str, resource_id: str) -> None:
        super().__init__(f"There is no {resource_type} {resource_id!r}.")
        self.resource_type = resource_type
        self.resource_id = resource_id


class AlreadyExists(BatchworkError):
    """An id is taken."""

    reason = "RESOURCE_EXISTS"

    def __init__(self, resource_type: str, resource_id: str, message: str = "") -> None:
        super().__init__(
            message or f"The {resource_type} {resource_id!r} exists already; choose another id."
        )
        self.resource_type = resource_type
        self.resource_id = resource_id


class RequestIdReused(AlreadyExists):
    """A request id came back with other content."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self, request_id: str) -> None:
        super().__init__(
            "request",
            request_id,
            f"The request id {request_id!r} was used with other content; "
            "use a new request id for a new request.",
        )


class EtagMismatch(BatchworkError):
    """A stored thing changed since the caller read it."""

    reason = "ETAG_MISMATCH"


class WrongState(BatchworkError):
    """A verb does not fit the state that a thing is in."""

    reason = "WRONG_STATE"

    def __init__(self, resource_type: str, resource_id: str, *, state: str, verb: str) -> None:
        super().__init__(
            f"The {resource_type} {resource_id!r} is {state}; it cannot be {verb} any more.",
            metadata={"state": state},
        )
        self.resource_type = resource_type
        self.resource_id = resource_id


class QuotaExceeded(BatchworkError):
    """Too much at once.

    Attributes:
        retry_after: When another try makes sense.
    """

    def __init__(self, message: str, *, reason: str, subject: str, retry_after: timedelta) -> None:
        super().__init__(message)
        self.reason = reason
        self.subject = subject
        self.retry_after = retry_after


class ResumeTokenExpired(BatchworkError):
    """A resume token points before the events that are kept."""

    reason = "RESUME_TOKEN_EXPIRED"


class Unauthenticated(BatchworkError):
    """No or bad credentials."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(BatchworkError):
    """Good credentials without the role that the call needs."""

    reason = "PERMISSION_DENIED"


class Unavailable(BatchworkError):
    """Something that the call needs is away; the same call is safe later.

    Attributes:
        retry_after: When another try makes sense.
    """

    retry_after = timedelta(seconds=1)


class StoreUnavailable(Unavailable):
    """The database is away, locked, or full. Nothing was changed."""

    reason = "DEPENDENCY_UNAVAILABLE"


class ShuttingDown(Unavailable):
    """This server stops; another one, or the next one, answers."""

    reason = "SHUTTING_DOWN"


class ConfigurationError(BatchworkError):
    """The server cannot start like this; the message says what to change."""


class ProcessorError(Exception):
    """The root of what a processor raises to say what became of an item.

    Args:
        reason: A stable UPPER_SNAKE code; the error distribution groups by it.
        message: For people; may name values of the item.
    """

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.reason = reason
        self.message = message or reason


class ItemFailed(ProcessorError):
    """The attempt failed.

    Args:
        reason: A stable UPPER_SNAKE code.
        message: For people.
        retryable: Whether another attempt could succeed.
        retry_after: The delay that a provider asked for; the next attempt does not start earlier.
    """

    def __init__(
        self,
        reason: str,
        message: str = "",
        *,
        retryable: bool = False,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(reason, message)
        self.retryable = retryable
        self.retry_after = retry_after


class ItemSkipped(ProcessorError):
    """There is nothing to do for the item; it is SKIPPED, which is no failure."""
