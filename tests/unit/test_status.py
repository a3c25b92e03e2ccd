"""Every error has a status, and every status fits into trailers."""

from __future__ import annotations

import base64
import inspect
from datetime import timedelta
from urllib.parse import quote

import grpc
import pytest
from batchwork_server import errors
from batchwork_server.errors import (
    BatchworkError,
    InvalidArgument,
    NotFound,
    QuotaExceeded,
    ShuttingDown,
    StorageFull,
    StoreUnavailable,
    Violation,
    WrongState,
)
from batchwork_server.rpc.status import MAX_TRAILER_BYTES, ROWS, internal_status, status_of
from google.rpc import error_details_pb2 as details
from google.rpc.status_pb2 import Status


def names_of(status: Status) -> list[str]:
    return [detail.type_url.rpartition(".")[2] for detail in status.details]


def unpacked(status: Status, detail):
    found = next(candidate for candidate in status.details if candidate.Is(detail.DESCRIPTOR))
    found.Unpack(detail)
    return detail


def weight_of(status: Status) -> int:
    """Returns what the status weighs on the wire: its message as text, all of it as base64."""
    return len(quote(status.message, safe=" ")) + len(base64.b64encode(status.SerializeToString()))


def test_every_error_has_a_row() -> None:
    classes = {
        candidate
        for _, candidate in inspect.getmembers(errors, inspect.isclass)
        if issubclass(candidate, BatchworkError) and candidate is not BatchworkError
    }

    assert classes == ROWS.keys()


@pytest.mark.parametrize(
    ("error", "code", "reason", "facts"),
    [
        pytest.param(
            InvalidArgument([Violation("a", "wrong")]),
            grpc.StatusCode.INVALID_ARGUMENT,
            "FIELD_VIOLATION",
            ["BadRequest"],
            id="bad field",
        ),
        pytest.param(
            NotFound("batch", "b"),
            grpc.StatusCode.NOT_FOUND,
            "NOT_FOUND",
            ["ResourceInfo"],
            id="not found",
        ),
        pytest.param(
            WrongState("batch", "b", state="FAILED", verb="cancelled"),
            grpc.StatusCode.FAILED_PRECONDITION,
            "WRONG_STATE",
            ["PreconditionFailure"],
            id="wrong state",
        ),
        pytest.param(
            QuotaExceeded("full", reason="QUOTA_X", subject="x", retry_after=timedelta(seconds=2)),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "QUOTA_X",
            ["QuotaFailure", "RetryInfo"],
            id="quota",
        ),
        pytest.param(
            StoreUnavailable("away"),
            grpc.StatusCode.UNAVAILABLE,
            "DEPENDENCY_UNAVAILABLE",
            ["RetryInfo"],
            id="dependency away",
        ),
        pytest.param(
            StorageFull("full"),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "QUOTA_STORAGE",
            ["QuotaFailure", "RetryInfo"],
            id="no space",
        ),
        pytest.param(
            ShuttingDown("bye"),
            grpc.StatusCode.UNAVAILABLE,
            "SHUTTING_DOWN",
            ["RetryInfo"],
            id="shutting down",
        ),
    ],
)
def test_an_error_becomes_its_code_with_its_facts(error, code, reason, facts):
    status = status_of(error)

    info = unpacked(status, details.ErrorInfo())
    assert status.code == code.value[0]
    assert (info.domain, info.reason) == ("batchwork", reason)
    assert names_of(status) == ["ErrorInfo", *facts]


def test_an_error_without_a_row_of_its_own_has_that_of_its_parent():
    class Sleeping(errors.Unavailable):
        reason = "SLEEPING"

    status = status_of(Sleeping("Not now."))

    assert status.code == grpc.StatusCode.UNAVAILABLE.value[0]
    assert unpacked(status, details.ErrorInfo()).reason == "SLEEPING"


def test_the_delay_of_a_quota_is_handed_on():
    error = QuotaExceeded("full", reason="Q", subject="x", retry_after=timedelta(seconds=2))

    retry = unpacked(status_of(error), details.RetryInfo())

    assert retry.retry_delay.ToTimedelta() == timedelta(seconds=2)


@pytest.mark.parametrize(
    "violation",
    [
        pytest.param(Violation("items[0].data_json", "This is not JSON."), id="short"),
        pytest.param(Violation("p" * 10_000, "m" * 10_000), id="long"),
        pytest.param(Violation("ä" * 10_000, "\U0001f600" * 10_000), id="long beyond ASCII"),
        pytest.param(Violation("p", "%\n" * 10_000), id="long and escaped"),
    ],
)
@pytest.mark.parametrize("count", [1, 5000])
def test_a_status_fits_into_trailers(violation, count):
    status = status_of(InvalidArgument([violation] * count, metadata={"limit": "1048576"}))

    assert weight_of(status) <= MAX_TRAILER_BYTES
    assert len(unpacked(status, details.BadRequest()).field_violations) >= 1
    assert unpacked(status, details.ErrorInfo()).metadata["violation_count"] == str(count)


def test_violations_that_fit_are_listed_in_their_order():
    wrong = [Violation(f"items[{n}].data_json", "This is not JSON.") for n in range(20)]

    listed = unpacked(status_of(InvalidArgument(wrong)), details.BadRequest()).field_violations

    assert [found.field for found in listed] == [found.path for found in wrong]


def test_a_fault_tells_where_to_look_and_nothing_else():
    status = internal_status("call-1")

    assert status.code == grpc.StatusCode.INTERNAL.value[0]
    assert unpacked(status, details.ErrorInfo()).metadata == {"correlation_id": "call-1"}
