"""A status becomes the exception that says what to do."""

from __future__ import annotations

import inspect
from datetime import timedelta

import batchwork_client
import grpc
import pytest
from batchwork.v1.batch_service_pb2_grpc import BatchServiceServicer
from batchwork_client import BatchworkError, Violation, errors
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import (
    BadRequest,
    PreconditionFailure,
    QuotaFailure,
    ResourceInfo,
    RetryInfo,
)

from tests.client.servers import Refusal, Unary, servicer

Code = grpc.StatusCode


async def error_from(client_of, refusal):
    client = await client_of(
        servicer(BatchServiceServicer, GetBatch=Unary(refusal)),
        options=(("grpc.enable_retries", 0),),
    )
    with pytest.raises(BatchworkError) as raised:
        await client.with_options(correlation_id="c-1").batches.get_batch("bat-1")
    return raised.value


@pytest.mark.parametrize(
    ("code", "reason", "error_class"),
    [
        (Code.INVALID_ARGUMENT, "FIELD_VIOLATION", errors.InvalidArgumentError),
        (Code.INVALID_ARGUMENT, "UNKNOWN_TEMPLATE", errors.InvalidArgumentError),
        (Code.INVALID_ARGUMENT, "PAYLOAD_TOO_LARGE", errors.PayloadTooLargeError),
        (Code.INVALID_ARGUMENT, "OFFSET_GAP", errors.OffsetGapError),
        (Code.NOT_FOUND, "", errors.NotFoundError),
        (Code.ALREADY_EXISTS, "RESOURCE_EXISTS", errors.AlreadyExistsError),
        (Code.ALREADY_EXISTS, "REQUEST_ID_REUSED", errors.RequestIdReusedError),
        (Code.ABORTED, "ETAG_MISMATCH", errors.EtagMismatchError),
        (Code.ABORTED, "PLAN_STALE", errors.PlanStaleError),
        (Code.FAILED_PRECONDITION, "WRONG_STATE", errors.WrongStateError),
        (Code.FAILED_PRECONDITION, "COUNT_MISMATCH", errors.CountMismatchError),
        (Code.FAILED_PRECONDITION, "FEATURE_DISABLED", errors.FailedPreconditionError),
        (Code.RESOURCE_EXHAUSTED, "QUOTA_WATCHERS", errors.ResourceExhaustedError),
        (Code.RESOURCE_EXHAUSTED, "QUOTA_STORAGE", errors.StorageFullError),
        (Code.RESOURCE_EXHAUSTED, "", errors.ResourceExhaustedError),
        (Code.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED", errors.ResumeTokenExpiredError),
        (Code.OUT_OF_RANGE, "", errors.OutOfRangeError),
        (Code.UNAUTHENTICATED, "UNAUTHENTICATED", errors.UnauthenticatedError),
        (Code.PERMISSION_DENIED, "PERMISSION_DENIED", errors.PermissionDeniedError),
        (Code.UNAVAILABLE, "SHUTTING_DOWN", errors.UnavailableError),
        (Code.DEADLINE_EXCEEDED, "", errors.DeadlineExceededError),
        (Code.UNIMPLEMENTED, "", errors.UnimplementedError),
        (Code.INTERNAL, "INTERNAL", errors.InternalError),
        (Code.UNKNOWN, "", errors.InternalError),
        (Code.CANCELLED, "", errors.BatchworkError),
    ],
)
async def test_status_becomes_the_exception_of_its_reason_or_code(
    client_of, code, reason, error_class
):
    error = await error_from(client_of, Refusal(code=code, reason=reason, message="what it was"))

    assert type(error) is error_class
    assert (error.code, error.reason, error.message) == (code, reason, "what it was")


async def test_every_violation_is_there(client_of):
    wrong = BadRequest(
        field_violations=[
            BadRequest.FieldViolation(
                field="items[3].data_json", description="not JSON", reason="FIELD_VIOLATION"
            ),
            BadRequest.FieldViolation(
                field="template_id", description="no template 'x'", reason="UNKNOWN_TEMPLATE"
            ),
        ]
    )

    error = await error_from(
        client_of,
        Refusal(code=Code.INVALID_ARGUMENT, reason="FIELD_VIOLATION", details=[wrong]),
    )

    assert error.violations == (
        Violation(path="items[3].data_json", description="not JSON", reason="FIELD_VIOLATION"),
        Violation(path="template_id", description="no template 'x'", reason="UNKNOWN_TEMPLATE"),
    )


async def test_facts_of_a_refusal_are_there(client_of):
    refusal = Refusal(
        code=Code.FAILED_PRECONDITION,
        reason="WRONG_STATE",
        metadata={"state": "SUCCEEDED"},
        details=[
            ResourceInfo(resource_type="batch", resource_name="bat-1"),
            PreconditionFailure(
                violations=[
                    PreconditionFailure.Violation(
                        type="STATE", subject="bat-1", description="it is done"
                    )
                ]
            ),
        ],
    )

    error = await error_from(client_of, refusal)

    assert error.metadata == {"state": "SUCCEEDED"}
    assert (error.resource_type, error.resource_name) == ("batch", "bat-1")
    assert error.violations == (Violation(path="bat-1", description="it is done", reason="STATE"),)


async def test_delay_of_a_quota_is_there(client_of):
    refusal = Refusal(
        code=Code.RESOURCE_EXHAUSTED,
        reason="QUOTA_WATCHERS",
        details=[
            RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000)),
            QuotaFailure(
                violations=[QuotaFailure.Violation(subject="acme", description="100 watchers")]
            ),
        ],
    )

    error = await error_from(client_of, refusal)

    assert error.retry_after == timedelta(seconds=1.5)
    assert error.violations == (Violation(path="acme", description="100 watchers"),)


async def test_error_tells_how_to_find_it_in_the_log(client_of):
    error = await error_from(client_of, Refusal(code=Code.NOT_FOUND, message="There is none."))

    assert error.correlation_id == "c-1"
    assert str(error) == "There is none. (NOT_FOUND, correlation id c-1)"


async def test_message_over_the_limit_of_the_server_is_too_large(client_of):
    client = await client_of(servicer(BatchServiceServicer))

    with pytest.raises(errors.PayloadTooLargeError, match="larger than max"):
        await client.batches.create_batch({"a": "x" * 5_000_000})


async def test_reason_of_somebody_else_is_not_taken_for_ours(client_of):
    proxy = Refusal(code=Code.ABORTED, reason="WRONG_STATE", domain="proxy.example")

    error = await error_from(client_of, proxy)

    assert type(error) is errors.AbortedError
    assert error.reason == ""


@pytest.mark.parametrize("details", [b"\xff not a status", b""])
async def test_status_that_cannot_be_read_still_has_its_code(client_of, details):
    class Mangled(Refusal):
        def trailing_metadata(self):
            return (("grpc-status-details-bin", details),)

    error = await error_from(client_of, Mangled(code=Code.NOT_FOUND, message="gone"))

    assert type(error) is errors.NotFoundError
    assert error.message == "gone"


def test_tree_in_the_docstring_has_every_error():
    classes = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception) and name.endswith("Error")
    } - {"DecodeError"}

    for name in classes:
        assert name in (errors.__doc__ or ""), name
        assert name in batchwork_client.__all__, name


def test_public_names_are_in_alphabetical_order():
    assert batchwork_client.__all__ == sorted(batchwork_client.__all__)
