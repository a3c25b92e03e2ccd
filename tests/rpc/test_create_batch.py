"""CreateBatch stores a batch, or says everything that is wrong with the request."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from batchwork.v1.batch_pb2 import BATCH_STATE_PENDING, BATCH_STATE_SUCCEEDED, BatchOptions
from batchwork.v1.batch_service_pb2 import CreateBatchRequest, GetItemRequest, ListBatchesRequest
from batchwork.v1.item_pb2 import ItemInput
from batchwork.v1.job_pb2 import PRIORITY_HIGH
from batchwork.v1.policy_pb2 import (
    FAILURE_ACTION_CONTINUE,
    USERS_AWAY_ASSUME_VALID,
    USERS_AWAY_FAIL,
    FailurePolicy,
    RetryPolicy,
)
from batchwork_server.domain.selection import LoadedItem
from google.protobuf.duration_pb2 import Duration

from tests.fakes import START
from tests.rpc.api import refused


async def load(server, *items: LoadedItem, category: str = "posts", tenant_id: str = "default"):
    store = server.application.store
    async with store.transaction() as tx:
        await store.categories.load(
            tx, tenant_id=tenant_id, category=category, items=items, now=START
        )


async def test_a_batch_is_stored_before_the_call_answers(api, processor):
    batch = await api.create_batch("a", "b", labels={"team": "blue"}, source="crm")

    assert batch.batch_id.startswith("bat_crm_")
    assert batch.state == BATCH_STATE_PENDING
    assert (batch.counts.total, batch.counts.pending) == (2, 2)
    assert batch.template_id == "echo"
    assert batch.labels == {"team": "blue"}


async def test_items_go_through_the_processor(api, processor):
    items = [ItemInput(item_id="a", data_json='{"text": "Ahoi"}')]

    batch = await api.create_batch(items=items)
    done = await api.finished(batch.batch_id)

    assert done.state == BATCH_STATE_SUCCEEDED
    assert processor.calls[0].data == {"text": "Ahoi"}
    assert processor.calls[0].idempotency_key == f"{batch.batch_id}/a"


async def test_data_is_stored_and_returned_as_it_came(api):
    text = '{"b" : 1,\n "a": [1.0, 1e3], "text": "\\u00e9"}'

    batch = await api.create_batch(items=[ItemInput(item_id="a", data_json=text)])

    found = await api.batches.GetItem(GetItemRequest(batch_id=batch.batch_id, item_id="a"))
    assert found.item.data_json == text


async def test_an_item_without_an_id_gets_its_place(api):
    batch = await api.create_batch(items=[ItemInput(item_id="a"), ItemInput(), ItemInput()])

    found = await api.batches.GetItem(GetItemRequest(batch_id=batch.batch_id, item_id="2"))
    assert found.item.item_index == 2
    assert found.item.data_json == "{}"


async def test_items_are_selected_from_a_category(api, server, processor):
    await load(
        server,
        LoadedItem(item_id="small", data_json='{"likes": 5}'),
        LoadedItem(item_id="large", data_json='{"likes": 30}'),
    )

    batch = await api.create_batch(items=(), category="posts", filters={"min_likes": 10.0})

    assert batch.categories == ["posts"]
    assert batch.counts.total == 1
    await api.finished(batch.batch_id)
    assert [call.item_id for call in processor.calls] == ["large"]


async def test_the_processing_method_batch_makes_one_item_of_the_category(api, server, processor):
    await load(
        server, LoadedItem(item_id="a", data_json="{}"), LoadedItem(item_id="b", data_json="{}")
    )

    batch = await api.create_batch(
        items=(), category="posts", batch_metadata={"processing_method": "batch"}
    )

    assert batch.counts.total == 1
    assert batch.batch_type == "BATCH_CATEGORIES"


@pytest.mark.arrow("item B")
async def test_items_of_unknown_users_are_skipped(api):
    items = [ItemInput(item_id="a", user_id="nobody"), ItemInput(item_id="b")]

    batch = await api.create_batch(items=items)

    assert batch.counts.skipped == 1
    assert (batch.user_validation.total, batch.user_validation.invalid) == (1, 1)


async def test_a_category_called_users_is_about_users(api, server):
    await load(server, LoadedItem(item_id="ada", data_json="{}"), category="users")

    batch = await api.create_batch(items=(), category="users")

    assert batch.batch_type == "INDIVIDUAL_USERS"
    assert batch.user_validation.total == 1


async def test_a_filter_on_a_field_that_nothing_has_is_a_warning(api, server):
    await load(server, LoadedItem(item_id="a", data_json='{"likes": 5}'))

    batch = await api.create_batch(items=(), category="posts", filters={"min_lieks": 1})

    assert [(found.reason, found.path) for found in batch.warnings] == [
        ("FILTER_MATCHES_NO_FIELD", "filters.min_lieks")
    ]


async def test_the_options_in_force_are_answered(api, settings):
    options = BatchOptions(
        chunk_size=7,
        retry_limit=0,
        item_timeout=Duration(seconds=2),
        priority=PRIORITY_HIGH,
        max_concurrent_items=3,
        model="small",
        retry_policy=RetryPolicy(
            initial_backoff=Duration(nanos=500_000_000),
            max_backoff=Duration(seconds=20),
            multiplier=1.5,
            non_retryable_reasons=["ACCOUNT_GONE", "TIMEOUT"],
        ),
        batch_timeout=Duration(seconds=3600),
        failure_policy=FailurePolicy(
            max_failed=10, max_failed_ratio=0.5, min_sample=4, action=FAILURE_ACTION_CONTINUE
        ),
        notify_on_complete=False,
        users_away=USERS_AWAY_ASSUME_VALID,
    )

    batch = await api.create_batch(options=options)
    plain = await api.create_batch()

    assert batch.options == options
    assert plain.options.chunk_size == settings.chunk_size
    assert plain.options.retry_limit == settings.retry_limit
    assert plain.options.retry_policy.multiplier == settings.retry_multiplier
    assert not plain.options.HasField("batch_timeout")
    assert not plain.options.HasField("failure_policy")
    assert not plain.options.notify_on_complete
    assert plain.options.users_away == USERS_AWAY_FAIL


async def test_metadata_comes_back_as_it_was(api):
    metadata = {"campaign": {"name": "spring", "weight": 2.0, "tags": ["a", None, True]}}

    batch = await api.create_batch(batch_metadata=metadata)

    assert dict(batch.batch_metadata["campaign"]) == {
        "name": "spring",
        "weight": 2.0,
        "tags": ["a", None, True],
    }


async def test_the_same_request_id_returns_the_first_batch(api):
    first = await api.create_batch("a", request_id="request-1")
    second = await api.create_batch("a", request_id="request-1")

    assert second.batch_id == first.batch_id
    listed = await api.batches.ListBatches(ListBatchesRequest())
    assert len(listed.batches) == 1


async def test_a_request_id_with_other_content_is_refused(api):
    await api.create_batch("a", request_id="request-1")

    refusal = await refused(api.create_batch("b", request_id="request-1"))

    assert refusal.code is grpc.StatusCode.ALREADY_EXISTS
    assert refusal.reason == "REQUEST_ID_REUSED"


async def test_a_batch_id_is_given_once(api):
    await api.create_batch(batch_id="batch-1")

    refusal = await refused(api.create_batch(batch_id="batch-1"))

    assert refusal.code is grpc.StatusCode.ALREADY_EXISTS
    assert refusal.reason == "RESOURCE_EXISTS"


async def test_validate_only_answers_with_the_plan_and_stores_nothing(api):
    items = [ItemInput(item_id="a"), ItemInput(item_id="b", user_id="nobody")]
    request = CreateBatchRequest(operation="echo", items=items, validate_only=True)

    response = await api.batches.CreateBatch(request)

    assert response.batch.batch_id == ""
    assert response.batch.counts.total == 2
    assert response.plan.item_count == 1
    assert response.plan.skips == {"USER_NOT_FOUND": 1}
    assert response.plan.sample_item_ids == ["a", "b"]
    assert [item.skip_reason for item in response.plan.sample] == ["", "USER_NOT_FOUND"]
    assert not (await api.batches.ListBatches(ListBatchesRequest())).batches


async def test_every_violation_is_answered_at_once(api):
    unknown_priority: Any = 9
    metadata: Any = {"data_source_type": "files", "processing_method": 1}
    request = CreateBatchRequest(
        request_id="r" * 129,
        batch_id="a b",
        display_name="d" * 257,
        description="d" * 4097,
        source="c r m",
        purpose_id="p" * 129,
        operation="o\n",
        items=[ItemInput(data_json="{"), ItemInput(item_id="i" * 129)],
        limit=5,
        options=BatchOptions(
            chunk_size=1001,
            retry_limit=101,
            item_timeout=Duration(seconds=3601),
            max_concurrent_items=-1,
            priority=unknown_priority,
            retry_policy=RetryPolicy(multiplier=11, non_retryable_reasons=["gone"]),
            batch_timeout=Duration(seconds=0),
            failure_policy=FailurePolicy(max_failed=-1, max_failed_ratio=2),
        ),
        labels={"no spaces": "x", "key": "v" * 256},
        batch_metadata=metadata,
    )

    refusal = await refused(api.batches.CreateBatch(request))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason == "FIELD_VIOLATION"
    assert sorted(refusal.violations) == [
        "batch_id",
        "batch_metadata.data_source_type",
        "batch_metadata.processing_method",
        "description",
        "display_name",
        "items[0].data_json",
        "items[1].item_id",
        "labels",
        "labels.key",
        "limit",
        "operation",
        "options.batch_timeout",
        "options.chunk_size",
        "options.failure_policy.max_failed",
        "options.failure_policy.max_failed_ratio",
        "options.item_timeout",
        "options.max_concurrent_items",
        "options.priority",
        "options.retry_limit",
        "options.retry_policy.multiplier",
        "options.retry_policy.non_retryable_reasons[0]",
        "purpose_id",
        "request_id",
        "source",
    ]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        pytest.param({}, "items", id="neither items nor a category"),
        pytest.param(
            {"items": [ItemInput()], "category": "posts"}, "category", id="items and a category"
        ),
        pytest.param(
            {"items": [ItemInput()], "filters": {"a": 1}}, "filters", id="filters of inline items"
        ),
        pytest.param({"category": "posts", "limit": -1}, "limit", id="negative limit"),
        pytest.param(
            {"items": [ItemInput(item_id="a"), ItemInput(item_id="a")]},
            "items[1].item_id",
            id="an id twice",
        ),
        pytest.param(
            {"items": [ItemInput(item_id="1"), ItemInput()]},
            "items[1].item_id",
            id="an id that is the place of another item",
        ),
        pytest.param(
            {"items": [ItemInput()], "labels": {f"k{n}": "" for n in range(33)}},
            "labels",
            id="33 labels",
        ),
    ],
)
async def test_requests_that_contradict_themselves_are_refused(api, fields, path):
    refusal = await refused(api.batches.CreateBatch(CreateBatchRequest(operation="echo", **fields)))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == [path]


async def test_an_item_that_is_too_large_is_named_by_its_place(api):
    large = ItemInput(data_json='"' + "x" * (1024 * 1024) + '"')

    refusal = await refused(api.create_batch(items=[ItemInput(), large]))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason == "PAYLOAD_TOO_LARGE"
    assert refusal.metadata["limit"] == "1048576"
    assert refusal.metadata["index"] == "1"


async def test_thousands_of_violations_still_make_a_useful_status(api):
    items = [ItemInput(item_id=f"item-{n}", data_json="{") for n in range(5000)]

    refusal = await refused(api.create_batch(items=items))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.metadata["violation_count"] == "5000"
    assert list(refusal.violations)[:2] == ["items[0].data_json", "items[1].data_json"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({"operation": "no-such"}, "UNKNOWN_OPERATION", id="operation"),
        pytest.param({"template_id": "no-such"}, "UNKNOWN_TEMPLATE", id="template"),
        pytest.param({"items": (), "category": "no-such"}, "UNKNOWN_CATEGORY", id="category"),
    ],
)
async def test_names_that_nobody_knows_are_refused(api, fields, reason):
    refusal = await refused(api.create_batch(**fields))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason == reason


async def test_a_failing_item_is_data_and_no_error(api, processor):
    processor.on("a", *[RuntimeError("broken")] * 2)

    batch = await api.create_batch("a", options=BatchOptions(retry_limit=1))
    done = await api.finished(batch.batch_id)

    assert (done.counts.failed, done.counts.retries) == (1, 1)
    found = await api.batches.GetItem(GetItemRequest(batch_id=batch.batch_id, item_id="a"))
    assert found.item.error.retryable


async def test_data_that_is_nested_deep_may_not_hold_a_null_character_either(api):
    deep = "[" * 1000 + '"\\u0000"' + "]" * 1000
    request = CreateBatchRequest(operation="echo", items=[ItemInput(data_json=deep)])

    refusal = await refused(api.batches.CreateBatch(request))

    assert set(refusal.violations) == {"items[0].data_json"}
