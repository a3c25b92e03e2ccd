"""ValidateBatch tells all that is wrong with a request for a batch, and what it would be."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
from batchwork.v1.batch_pb2 import (
    CategoryCounts,
    ReferenceCounts,
    ReferenceValidation,
    UserValidation,
)
from batchwork.v1.batch_service_pb2 import CreateBatchRequest, ListBatchesRequest
from batchwork.v1.item_pb2 import ItemInput
from batchwork.v1.validation_service_pb2 import (
    USER_VERDICT_INACTIVE,
    ValidateBatchRequest,
    ValidateBatchResponse,
)
from batchwork_server.errors import Unavailable

from tests.rpc.api import Api, refused
from tests.rpc.sources import load_category, load_users


@pytest.fixture(autouse=True)
async def world(server) -> None:
    await load_users(server, "ann", inactive=("eve",))
    await load_category(
        server,
        "shops",
        {
            "mugs": {"sales": 5, "user_ids": ["ann", "nobody"]},
            "lamps": {"sales": 7, "user_ids": ["eve"]},
            "pens": {"sales": 1},
        },
    )


async def validate(api: Api, *, metadata: Any = (), **fields: Any) -> ValidateBatchResponse:
    request = ValidateBatchRequest(batch=CreateBatchRequest(**fields))
    answer: ValidateBatchResponse = await api.validation.ValidateBatch(request, metadata=metadata)
    return answer


def reasons(answer: ValidateBatchResponse) -> dict[str, str]:
    assert answer.violation_count == len(answer.violations)
    assert answer.valid is (not answer.violations)
    return {violation.path: violation.reason for violation in answer.violations}


async def test_a_valid_batch_shows_what_its_filters_would_match(api):
    request = CreateBatchRequest(operation="echo", category="shops")
    request.filters["min_sales"] = 5

    answer = await api.validation.ValidateBatch(ValidateBatchRequest(batch=request))

    assert reasons(answer) == {}
    assert (answer.plan.item_count, dict(answer.plan.skips)) == (1, {"NO_VALID_USERS": 1})
    assert [item.item_id for item in answer.plan.sample] == ["mugs", "lamps"]
    assert json.loads(answer.plan.sample[0].data_beginning)["user_ids"] == ["ann"]
    assert answer.reference_validation == ReferenceValidation(
        categories=CategoryCounts(total=2, valid=1, invalid=1),
        user_references=ReferenceCounts(total=3, valid=1, invalid=2),
    )
    assert [(each.item_id, each.user_id) for each in answer.invalid_references] == [
        ("mugs", "nobody"),
        ("lamps", "eve"),
    ]
    assert not answer.warnings
    assert not (await api.batches.ListBatches(ListBatchesRequest())).batches


async def test_users_of_items_are_counted_and_named(api):
    items = [ItemInput(item_id=user, user_id=user) for user in ("ann", "eve")]

    answer = await validate(api, operation="echo", items=items)

    assert answer.user_validation == UserValidation(total=2, valid=1, invalid=1)
    [user] = answer.invalid_users
    assert (user.user_id, user.verdict, user.item_id) == ("eve", USER_VERDICT_INACTIVE, "eve")


async def test_everything_that_is_wrong_is_told_at_once(api):
    await api.create_batch(batch_id="bat-1")
    request = CreateBatchRequest(
        batch_id="bat-1",
        template_id="none",
        category="nowhere",
        source="not a source",
        limit=-1,
    )
    request.options.retry_limit = 1000
    request.batch_metadata["data_source_type"] = "dogs"

    answer = await api.validation.ValidateBatch(ValidateBatchRequest(batch=request))

    assert reasons(answer) == {
        "batch_id": "RESOURCE_EXISTS",
        "template_id": "UNKNOWN_TEMPLATE",
        "category": "UNKNOWN_CATEGORY",
        "source": "FIELD_VIOLATION",
        "limit": "FIELD_VIOLATION",
        "options.retry_limit": "FIELD_VIOLATION",
        "batch_metadata.data_source_type": "FIELD_VIOLATION",
    }
    assert not answer.HasField("plan")


async def test_what_is_told_is_what_creation_refuses(api):
    fields = {"operation": "paint", "items": [ItemInput(data_json="{")]}

    answer = await validate(api, **fields)
    refusal = await refused(api.create_batch(**fields))

    assert reasons(answer) == {
        "operation": "UNKNOWN_OPERATION",
        "items[0].data_json": "FIELD_VIOLATION",
    }
    assert set(refusal.violations) <= set(reasons(answer))


async def test_one_mistake_is_told_once(api):
    answer = await validate(api, operation="a\nb", items=[ItemInput()])

    assert reasons(answer) == {"operation": "FIELD_VIOLATION"}


async def test_a_bad_filter_does_not_hide_an_unknown_template(api):
    request = CreateBatchRequest(template_id="none", category="shops")
    request.filters["min_sales"] = "many"
    request.filters["min_sails"] = 3

    answer = await api.validation.ValidateBatch(ValidateBatchRequest(batch=request))

    assert reasons(answer) == {
        "template_id": "UNKNOWN_TEMPLATE",
        "filters.min_sales": "FIELD_VIOLATION",
    }


@pytest.mark.parametrize(
    ("fields", "reason", "path"),
    [
        pytest.param({"min_sails": 3}, "FILTER_MATCHES_NO_FIELD", "filters.min_sails", id="field"),
        pytest.param({"min_sales": 99}, "FILTER_MATCHES_NOTHING", "filters", id="nothing"),
        pytest.param({"min_sales": 7}, "NOTHING_TO_PROCESS", "category", id="all skipped"),
    ],
)
async def test_what_may_not_be_meant_is_a_warning(api, fields, reason, path):
    request = CreateBatchRequest(operation="echo", category="shops")
    request.filters.update(fields)

    answer = await api.validation.ValidateBatch(ValidateBatchRequest(batch=request))

    assert reasons(answer) == {}
    assert (reason, path) in [(warning.reason, warning.path) for warning in answer.warnings]


async def test_thousands_of_violations_are_counted_and_the_first_listed(api):
    answer = await validate(api, operation="echo", items=[ItemInput(data_json="{")] * 1200)

    assert (len(answer.violations), answer.violation_count) == (1000, 1200)


async def test_a_draft_needs_no_items_yet(api):
    answer = await validate(api, operation="echo", draft=True)

    assert (answer.valid, list(answer.warnings)) == (True, [])


async def test_a_source_that_is_away_is_no_verdict(api, server, monkeypatch):
    async def away(*_arguments, **_options):
        raise Unavailable("The users are away.")

    monkeypatch.setattr(server.application.store.users, "verdicts", away)

    refusal = await refused(validate(api, operation="echo", items=[ItemInput(user_id="ann")]))

    assert refusal.code is grpc.StatusCode.UNAVAILABLE


async def test_there_has_to_be_a_request(api):
    refusal = await refused(api.validation.ValidateBatch(ValidateBatchRequest()))

    assert list(refusal.violations) == ["batch"]
