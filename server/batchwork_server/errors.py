"""Every error that the server raises on purpose.

    BatchworkError
    ├── InvalidArgument          a request is wrong; carries every violation
    │   └── OffsetGap            items of an upload before these are missing
    ├── NotFound                 not there, or not the caller's to see
    ├── AlreadyExists            the id is taken
    │   └── RequestIdReused      same request id, other content
    ├── EtagMismatch             somebody changed it in between
    ├── PlanStale                a run would not be what was planned
    ├── WrongState               the verb does not fit the state
    ├── NothingMatches           a filter chose nothing to do something with
    ├── CountMismatch            there are more or fewer items than expected
    ├── QuotaExceeded            too much at once; come back after a delay
    ├── ResumeTokenExpired       the token is older than the events that are kept
    ├── Unauthenticated          no or bad credentials
    ├── PermissionDenied         the credentials are good, the role is not
    ├── Unavailable              safe to call again
    │   ├── StoreUnavailable     the database is away or locked
    │   │   └── StorageFull      there is no space to write
    │   ├── SourceUnavailable    an outside source is away, or answers what cannot be read
    │   └── ShuttingDown         this server stops
    └── ConfigurationError       the server cannot start like this

    ProcessorError               raised by processors; becomes data of an item
    ├── ItemFailed
    ├── ItemSkipped
    └── ProviderUnavailable      what the processor calls is away; the batch pauses
        └── RateLimited          it asks for fewer calls

    NotSent                      raised by notifiers; becomes data of a notification

``rpc/status.py`` turns the first tree into statuses, one row a class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

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


class OffsetGap(InvalidArgument):
    """Items of an upload come too early: those before them are not there."""

    def __init__(self, *, offset: int, next_offset: int) -> None:
        message = (
            f"These items begin at {offset}, but the upload goes on at {next_offset}; send what "
            "lies between first."
        )
        super().__init__(
            [Violation("offset", message, "OFFSET_GAP")],
            metadata={"offset": str(offset), "next_offset": str(next_offset)},
        )


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


class PlanStale(BatchworkError):
    """A run of a job would not be what was planned.

    Args:
        job_id: The job.
        changed: Which parts of the plan differ.
    """

    reason = "PLAN_STALE"

    def __init__(self, job_id: str, changed: Sequence[str]) -> None:
        parts = ", ".join(changed)
        super().__init__(
            f"A run of the job {job_id!r} would not be what was planned; what differs: {parts}. "
            "Plan it again, and run it with the new token.",
            metadata={"changed": ",".join(changed)},
        )


class WrongState(BatchworkError):
    """A verb does not fit the state that a thing is in."""

    reason = "WRONG_STATE"

    def __init__(
        self, resource_type: str, resource_id: str, *, state: str, verb: str, message: str = ""
    ) -> None:
        super().__init__(
            message or f"The {resource_type} {resource_id!r} is {state}; it cannot be {verb} now.",
            metadata={"state": state},
        )
        self.resource_type = resource_type
        self.resource_id = resource_id


class NothingMatches(BatchworkError):
    """A filter chose nothing of a thing to do something with."""

    reason = "NOTHING_MATCHES"

    def __init__(self, resource_type: str, resource_id: str) -> None:
        super().__init__(
            f"No item of the {resource_type} {resource_id!r} matches; ListItems shows their states."
        )
        self.resource_type = resource_type
        self.resource_id = resource_id


class CountMismatch(BatchworkError):
    """A draft holds another number of items than the caller expects."""

    reason = "COUNT_MISMATCH"

    def __init__(self, resource_type: str, resource_id: str, *, expected: int, found: int) -> None:
        super().__init__(
            f"The {resource_type} {resource_id!r} holds {found} items, not {expected}; upload what "
            "is missing, or seal it with the number that it holds.",
            metadata={"expected": str(expected), "found": str(found)},
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


class StorageFull(StoreUnavailable):
    """There is no space to write, or too little to accept more. Nothing was changed.

    Attributes:
        subject: What there is too little of.
    """

    reason = "QUOTA_STORAGE"
    subject = "storage"
    retry_after = timedelta(seconds=10)


class SourceUnavailable(Unavailable):
    """An outside source does not answer, or answers what cannot be read. Nothing was changed.

    Args:
        message: Names the source, what was asked, what came, and what to do.
        retry_after: When another try makes sense; None means in a second.
    """

    reason = "DEPENDENCY_UNAVAILABLE"

    def __init__(self, message: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        if retry_after is not None:
            self.retry_after = retry_after


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

    def __reduce__(self) -> tuple[Any, ...]:
        """Writes down the facts instead of the call: subclasses have arguments of their own."""
        return _rebuilt, (type(self), self.args, vars(self))


def _rebuilt(
    kind: type[ProcessorError], args: tuple[Any, ...], facts: Mapping[str, Any]
) -> ProcessorError:
    error = kind.__new__(kind)
    error.args = args
    vars(error).update(facts)
    return error


class ItemFailed(ProcessorError):
    """The attempt failed.

    Args:
        reason: A stable UPPER_SNAKE code.
        message: For people.
        retryable: Whether another attempt could succeed.
        retry_after: The delay that a provider asked for, seven days at most; the next attempt does
            not start earlier.
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


class ProviderUnavailable(ProcessorError):
    """What the processor calls does not answer: the next items would fail like this one.

    The batch is paused and resumes by itself, and so are all others of its tenant and template on
    this server; the attempt does not count.

    Args:
        reason: A stable UPPER_SNAKE code.
        message: For people; shown with the batch.
        retry_after: The delay that the provider asked for, seven days at most; zero means at once.
            None, or a time that has passed, means half a minute, and twice as long each time that
            nothing was done in between.
    """

    def __init__(
        self, reason: str, message: str = "", *, retry_after: timedelta | None = None
    ) -> None:
        super().__init__(reason, message)
        self.retry_after = retry_after


class RateLimited(ProviderUnavailable):
    """What the processor calls asks for fewer calls."""


class NotSent(Exception):
    """A target did not take a message.

    Args:
        problem: What happened, as a sentence for people who run batches. It names no host and no
            address: whose batch it is need not know where the operator's targets are.
        again: Whether another attempt could succeed.
        retry_after: The delay that the target asked for.
        detail: What only the operator is told, in the log; nothing secret either.
    """

    def __init__(
        self,
        problem: str,
        *,
        again: bool,
        retry_after: timedelta | None = None,
        detail: str = "",
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.again = again
        self.detail = detail
        self.retry_after = retry_after
