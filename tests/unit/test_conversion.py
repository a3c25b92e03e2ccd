"""Messages become values of the domain, and the other way round."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from batchwork.v1.batch_pb2 import BatchOptions
from batchwork.v1.batch_service_pb2 import CreateBatchRequest, WatchBatchRequest
from batchwork.v1.item_pb2 import ItemInput
from batchwork.v1.policy_pb2 import FAILURE_ACTION_PAUSE
from batchwork.v1.policy_pb2 import FailurePolicy as FailurePolicyMessage
from batchwork.v1.policy_pb2 import RetryPolicy as RetryPolicyMessage
from batchwork_server.application.told import ResumePoint
from batchwork_server.domain.batch import Batch, BatchState, Counts
from batchwork_server.domain.caller import Caller
from batchwork_server.domain.failure import FailureAction, FailurePolicy
from batchwork_server.domain.job import DataSource, JobShape
from batchwork_server.domain.retry import RequestedRetry, RetryPolicy
from batchwork_server.domain.selection import SelectedItem
from batchwork_server.domain.submission import RequestedOptions, Submission
from batchwork_server.domain.waiting import WaitReason
from batchwork_server.errors import InvalidArgument, PermissionDenied, Violation
from batchwork_server.rpc.batch_conversion import (
    answer_to,
    batch_to,
    interval_from,
    submission_from,
)
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.idempotency import idempotency_from
from batchwork_server.rpc.item_conversion import items_from
from batchwork_server.rpc.resume_tokens import ResumeTokens
from batchwork_server.rpc.values import json_object_from, struct_to
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from tests.factories import make_options, make_request
from tests.fakes import START


def violations_of(checks: Checks) -> tuple[Violation, ...]:
    with pytest.raises(InvalidArgument) as raised:
        checks.done()
    return raised.value.violations


def submitted(**fields) -> Submission:
    checks = Checks()
    request = CreateBatchRequest(**{"items": [ItemInput()]} | fields)
    submission = submission_from(request, checks=checks)
    checks.done()
    return submission


def make_batch(batch_id: str = "batch-1", **changes) -> Batch:
    defaults: dict[str, Any] = {
        "key": 1,
        "batch_id": batch_id,
        "tenant_id": "blue",
        "state": BatchState.RUNNING,
        "counts": Counts(total=4, pending=1, running=1, succeeded=2),
        "request": make_request(),
        "create_time": START,
        "update_time": START,
    }
    return Batch(**defaults | changes)


def test_items_keep_their_text_and_get_their_place_as_id():
    given = [ItemInput(item_id="a", user_id="ada", data_json="[1.0 ]"), ItemInput()]

    items = items_from(given, checks=Checks())

    assert items == (
        SelectedItem(item_id="a", user_id="ada", data_json="[1.0 ]"),
        SelectedItem(item_id="1", user_id=None, data_json="{}"),
    )


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(ItemInput(item_id="na\u00efve \u00a0"), id="letters and blanks of all kinds"),
        pytest.param(ItemInput(item_id="x" * 128), id="longest id"),
        pytest.param(ItemInput(data_json='"' + "x" * (1024 * 1024 - 2) + '"'), id="largest data"),
        pytest.param(ItemInput(data_json='"\\\\u0000"'), id="a backslash before u0000"),
        pytest.param(ItemInput(data_json="12"), id="a number"),
    ],
)
def test_unusual_items_are_accepted(given):
    checks = Checks()

    items_from([given], checks=checks)

    checks.done()


@pytest.mark.parametrize(
    ("given", "path", "reason"),
    [
        pytest.param(ItemInput(item_id="a\n"), "item_id", "FIELD_VIOLATION", id="line break"),
        pytest.param(ItemInput(user_id="u" * 129), "user_id", "FIELD_VIOLATION", id="long user"),
        pytest.param(ItemInput(data_json="{'a': 1}"), "data_json", "FIELD_VIOLATION", id="quotes"),
        pytest.param(ItemInput(data_json="NaN"), "data_json", "FIELD_VIOLATION", id="NaN"),
        pytest.param(ItemInput(data_json='"\0"'), "data_json", "FIELD_VIOLATION", id="null"),
        pytest.param(
            ItemInput(data_json='{"a": ["\\u0000"]}'),
            "data_json",
            "FIELD_VIOLATION",
            id="null that is escaped",
        ),
        pytest.param(
            ItemInput(data_json='{"\\u0000": 1}'),
            "data_json",
            "FIELD_VIOLATION",
            id="null in a key",
        ),
        pytest.param(
            ItemInput(data_json='"' + "\u00e4" * (512 * 1024) + '"'),
            "data_json",
            "PAYLOAD_TOO_LARGE",
            id="too many bytes of few characters",
        ),
    ],
)
def test_a_wrong_item_is_named_by_its_place(given, path, reason):
    checks = Checks()

    items_from([ItemInput(), given], checks=checks)

    [violation] = violations_of(checks)
    assert (violation.path, violation.reason) == (f"items[1].{path}", reason)


def test_too_many_items_are_not_even_looked_at():
    checks = Checks()

    items_from([ItemInput(data_json="{")] * 50_001, checks=checks)

    assert [violation.path for violation in violations_of(checks)] == ["items"]


@pytest.mark.parametrize(
    ("fields", "shape", "data_source"),
    [
        pytest.param({}, JobShape.INDIVIDUAL, DataSource.CATEGORIES, id="inline items"),
        pytest.param(
            {"batch_metadata": {"data_source_type": "users"}},
            JobShape.INDIVIDUAL,
            DataSource.USERS,
            id="inline users",
        ),
        pytest.param(
            {"items": (), "category": "users"},
            JobShape.INDIVIDUAL,
            DataSource.USERS,
            id="the category of users",
        ),
        pytest.param(
            {
                "items": (),
                "category": "users",
                "batch_metadata": {"data_source_type": "categories"},
            },
            JobShape.INDIVIDUAL,
            DataSource.CATEGORIES,
            id="the category of users as a category",
        ),
        pytest.param(
            {"batch_metadata": {"processing_method": "batch"}},
            JobShape.OBJECT,
            DataSource.CATEGORIES,
            id="one object",
        ),
    ],
)
def test_metadata_says_what_a_batch_is_about(fields, shape, data_source):
    submission = submitted(**fields)

    assert (submission.shape, submission.data_source) == (shape, data_source)


def test_what_is_unset_stays_open():
    submission = submitted()

    assert submission.limit == 1000
    assert submission.options.retry_limit is None
    assert submission.options.chunk_size is None
    assert submission.options.priority is None
    assert submission.options == RequestedOptions()


def test_a_failure_policy_that_says_little_pauses_after_twenty_items():
    policy = submitted(options={"failure_policy": {"max_failed_ratio": 0}}).options.failure_policy

    assert policy == FailurePolicy(
        max_failed=None, max_failed_ratio=0, min_sample=20, action=FailureAction.PAUSE
    )


def test_a_backoff_of_nothing_is_not_unset():
    retry = submitted(options={"retry_policy": {"initial_backoff": timedelta(0)}}).options.retry

    assert retry == RequestedRetry(initial_backoff=timedelta(0))


@pytest.mark.parametrize(
    ("options", "paths"),
    [
        pytest.param(
            {
                "batch_timeout": timedelta(milliseconds=999),
                "failure_policy": {
                    "max_failed": -1,
                    "max_failed_ratio": 1.1,
                    "min_sample": 1_000_001,
                    "action": 9,
                },
                "retry_policy": {
                    "initial_backoff": timedelta(hours=1, microseconds=1),
                    "max_backoff": timedelta(days=1, microseconds=1),
                    "multiplier": 10.1,
                    "non_retryable_reasons": ["TIMEOUT", "gone"],
                },
            },
            [
                "batch_timeout",
                "failure_policy.action",
                "failure_policy.max_failed",
                "failure_policy.max_failed_ratio",
                "failure_policy.min_sample",
                "retry_policy.initial_backoff",
                "retry_policy.max_backoff",
                "retry_policy.multiplier",
                "retry_policy.non_retryable_reasons[1]",
            ],
            id="all of it, too much",
        ),
        pytest.param(
            {
                "batch_timeout": timedelta(days=30, microseconds=1),
                "failure_policy": {"max_failed_ratio": math.nan, "min_sample": -1},
                "retry_policy": {
                    "initial_backoff": timedelta(microseconds=-1),
                    "multiplier": math.nan,
                    "non_retryable_reasons": [f"R{n}" for n in range(33)],
                },
            },
            [
                "batch_timeout",
                "failure_policy.max_failed_ratio",
                "failure_policy.min_sample",
                "retry_policy.initial_backoff",
                "retry_policy.multiplier",
                "retry_policy.non_retryable_reasons",
            ],
            id="no numbers, and too many reasons",
        ),
        pytest.param(
            {"retry_policy": {"multiplier": 0.5, "non_retryable_reasons": ["", "R" * 64]}},
            [
                "retry_policy.multiplier",
                "retry_policy.non_retryable_reasons[0]",
                "retry_policy.non_retryable_reasons[1]",
            ],
            id="a backoff that shrinks, and reasons that are none",
        ),
    ],
)
def test_everything_that_is_wrong_with_policies_is_told_at_once(options, paths):
    with pytest.raises(InvalidArgument) as raised:
        submitted(options=options)

    found = sorted(violation.path for violation in raised.value.violations)
    assert found == [f"options.{path}" for path in paths]


def test_limits_themselves_are_accepted():
    options = submitted(
        options={
            "batch_timeout": timedelta(days=30),
            "failure_policy": {"max_failed": 0, "max_failed_ratio": 1, "min_sample": 1_000_000},
            "retry_policy": {
                "initial_backoff": timedelta(hours=1),
                "max_backoff": timedelta(days=1),
                "multiplier": 10,
                "non_retryable_reasons": ["R" * 63, "429"],
            },
        }
    ).options

    assert options.batch_timeout == timedelta(days=30)
    assert options.failure_policy is not None
    assert options.failure_policy.min_sample == 1_000_000
    assert options.retry.multiplier == 10
    assert options.retry.non_retryable_reasons == frozenset({"R" * 63, "429"})


def test_a_retry_limit_of_zero_is_not_unset():
    assert submitted(options={"retry_limit": 0}).options.retry_limit == 0


def test_whole_numbers_of_a_struct_come_back_whole():
    struct = Struct()
    struct.update({"count": 3, "share": 0.5, "huge": 1e300, "nested": {"list": [1, None, "x"]}})

    plain = json_object_from(struct)

    assert plain == {"count": 3, "share": 0.5, "huge": 1e300, "nested": {"list": [1, None, "x"]}}
    assert type(plain["count"]) is int
    assert type(plain["huge"]) is float


def test_a_struct_comes_back_as_it_was():
    plain = {"a": [1, {"b": True}], "c": None, "d": "text"}

    struct = struct_to(plain)

    assert struct is not None
    assert json_object_from(struct) == plain


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(math.nan, id="no number"),
        pytest.param(math.inf, id="infinity"),
        pytest.param("a\0", id="null character"),
        pytest.param("x" * 70_000, id="too large"),
    ],
)
def test_metadata_that_cannot_be_kept_is_refused(value):
    with pytest.raises(InvalidArgument) as raised:
        submitted(batch_metadata={"key": value})

    [violation] = raised.value.violations
    assert violation.path.startswith("batch_metadata")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(None, timedelta(milliseconds=250), id="unset"),
        pytest.param(timedelta(0), timedelta(milliseconds=100), id="nothing"),
        pytest.param(timedelta(milliseconds=1), timedelta(milliseconds=100), id="too short"),
        pytest.param(timedelta(seconds=5), timedelta(seconds=5), id="in between"),
        pytest.param(timedelta(hours=1), timedelta(hours=1), id="longest"),
    ],
)
def test_the_interval_of_progress_has_bounds(given, expected):
    request = WatchBatchRequest(batch_id="batch-1", min_interval=given)

    assert interval_from(request, checks=Checks()) == expected


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(Duration(nanos=999_999), id="less than the least"),
        pytest.param(Duration(seconds=3600, nanos=1_000), id="more than the most"),
        pytest.param(Duration(seconds=1, nanos=-1), id="mixed signs"),
        pytest.param(Duration(seconds=2**60), id="beyond any"),
        pytest.param(Duration(seconds=1, nanos=2_000_000_000), id="too many nanoseconds"),
    ],
)
def test_durations_that_are_none_are_refused(value):
    checks = Checks()

    checks.duration("a", value, least=timedelta(milliseconds=1), most=timedelta(hours=1))

    assert [violation.path for violation in violations_of(checks)] == ["a"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(Timestamp(), datetime(1970, 1, 1, tzinfo=UTC), id="epoch"),
        pytest.param(Timestamp(nanos=1999), datetime(1970, 1, 1, 0, 0, 0, 1, UTC), id="cut"),
        pytest.param(
            Timestamp(seconds=-62_135_596_800), datetime(1, 1, 1, tzinfo=UTC), id="first instant"
        ),
        pytest.param(
            Timestamp(seconds=253_402_300_799, nanos=999_999_999),
            datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC),
            id="last instant",
        ),
    ],
)
def test_instants_are_cut_to_microseconds(value, expected):
    assert Checks().moment("a", value) == expected


def test_a_request_id_names_the_content_of_its_request():
    def hash_of(**fields) -> str:
        request = CreateBatchRequest(**{"request_id": "request-1"} | fields)
        return idempotency_from(request, checks=Checks()).request_hash

    assert hash_of(labels={"a": "1", "b": "2"}) == hash_of(labels={"b": "2", "a": "1"})
    assert hash_of(labels={"a": "1"}) != hash_of(labels={"a": "2"})


def test_without_a_request_id_nothing_is_hashed():
    idempotency = idempotency_from(CreateBatchRequest(operation="echo"), checks=Checks())

    assert (idempotency.request_id, idempotency.request_hash) == ("", "")


def test_a_resume_token_leads_back_to_its_place():
    tokens = ResumeTokens(make_batch())
    point = ResumePoint(sequence=7, item_index=3)

    assert tokens.read(tokens.write(point)) == point
    assert tokens.read("") is None


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(make_batch("batch-2"), id="another batch"),
        pytest.param(make_batch(tenant_id="green"), id="another tenant's batch of the same id"),
        pytest.param(make_batch(key=2), id="a later batch of the same id"),
    ],
)
def test_a_resume_token_is_good_for_its_batch_only(other):
    token = ResumeTokens(make_batch()).write(ResumePoint(sequence=7))

    with pytest.raises(InvalidArgument, match="resume_token"):
        ResumeTokens(other).read(token)


@pytest.mark.parametrize("token", ["garbage", "!", "e30", "W10", "\u00e9", "A" * 10_000])
def test_garbage_is_no_resume_token(token):
    with pytest.raises(InvalidArgument, match="resume_token"):
        ResumeTokens(make_batch()).read(token)


def test_page_sizes_are_coerced():
    assert [Checks().page_size(given) for given in (0, 1, 100, 101)] == [50, 1, 100, 100]


def test_a_tenant_that_is_named_needs_an_operator():
    ada = Caller(tenant_id="blue", name="ada")
    olga = Caller(tenant_id="operations", name="olga", is_operator=True)

    assert Checks().scope(ada, "") == "blue"
    assert Checks().scope(olga, "green") == "green"
    assert Checks().scope(olga, "-") is None
    with pytest.raises(PermissionDenied):
        Checks().scope(ada, "green")


def test_a_batch_tells_the_policies_in_force():
    options = make_options(
        retry=RetryPolicy(multiplier=1.5, non_retryable_reasons=frozenset({"B", "A"})),
        batch_timeout=timedelta(hours=1),
        failure_policy=FailurePolicy(max_failed=0),
    )

    message = batch_to(make_batch(request=make_request(options=options))).options

    assert message.retry_policy == RetryPolicyMessage(
        initial_backoff=Duration(seconds=1),
        max_backoff=Duration(seconds=300),
        multiplier=1.5,
        non_retryable_reasons=["A", "B"],
    )
    assert message.batch_timeout.ToTimedelta() == timedelta(hours=1)
    assert message.failure_policy == FailurePolicyMessage(
        max_failed=0, min_sample=20, action=FAILURE_ACTION_PAUSE
    )
    assert not message.failure_policy.HasField("max_failed_ratio")


def test_a_batch_without_bounds_tells_none():
    message: BatchOptions = batch_to(make_batch()).options

    assert not message.HasField("batch_timeout")
    assert not message.HasField("failure_policy")


def test_a_batch_tells_its_progress():
    message = batch_to(make_batch())

    assert message.progress_ratio == 0.5
    assert message.counts.running == 1
    assert not message.HasField("start_time")
    assert not message.HasField("filters")


def test_an_answer_that_was_made_once_is_that_of_its_batch_and_of_no_later_one():
    first = make_batch()
    later = replace(first, counts=Counts(total=4, succeeded=4), state=BatchState.SUCCEEDED)
    wait = WaitReason(reason="CONCURRENCY_LIMIT", message="At most 1.")

    answers = [answer_to(*asked) for asked in ((first, []), (first, [wait]), (first, []))]

    assert [[w.reason for w in answer.batch.wait_reasons] for answer in answers] == [
        [],
        ["CONCURRENCY_LIMIT"],
        [],
    ]
    assert [answer.batch.counts.succeeded for answer in answers] == [2, 2, 2]
    assert answer_to(later, []).batch == batch_to(later)
    assert answer_to(first, []).batch == batch_to(first)
