"""The client of Batchwork: typed, asynchronous, with one method per RPC.

    async with connect("localhost:50051") as batchwork:
        posts = {"post-1": {"text": "…"}}
        batch = await batchwork.batches.create_batch(posts, operation="annotate")
        done = await batchwork.batches.wait_for_batch(batch.batch_id)

Methods take and return the messages of the package ``batchwork.v1``. What goes wrong is in
``batchwork_client.errors``, drawn as a tree.
"""

from batchwork_client.batches import Batches, BatchFields, item_input
from batchwork_client.connection import Batchwork, connect
from batchwork_client.contexts import context_document
from batchwork_client.documents import DocumentError, batch_from_document
from batchwork_client.errors import (
    AbortedError,
    AlreadyExistsError,
    BatchworkError,
    ConfigurationError,
    CountMismatchError,
    DeadlineExceededError,
    EtagMismatchError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    OffsetGapError,
    OutOfRangeError,
    PayloadTooLargeError,
    PermissionDeniedError,
    PlanStaleError,
    RequestIdReusedError,
    ResourceExhaustedError,
    ResumeTokenExpiredError,
    StorageFullError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    Violation,
    WrongStateError,
)
from batchwork_client.jobs import Jobs
from batchwork_client.preferences import Preferences
from batchwork_client.validation import Validation
from batchwork_client.watch import Patience

__all__ = [
    "AbortedError",
    "AlreadyExistsError",
    "BatchFields",
    "Batches",
    "Batchwork",
    "BatchworkError",
    "ConfigurationError",
    "CountMismatchError",
    "DeadlineExceededError",
    "DocumentError",
    "EtagMismatchError",
    "FailedPreconditionError",
    "InternalError",
    "InvalidArgumentError",
    "Jobs",
    "NotFoundError",
    "OffsetGapError",
    "OutOfRangeError",
    "Patience",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "PlanStaleError",
    "Preferences",
    "RequestIdReusedError",
    "ResourceExhaustedError",
    "ResumeTokenExpiredError",
    "StorageFullError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "Validation",
    "Violation",
    "WrongStateError",
    "batch_from_document",
    "connect",
    "context_document",
    "item_input",
]
