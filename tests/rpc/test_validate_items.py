"""ValidateItems tells how good data is, item by item and rule by rule."""

from __future__ import annotations

import json

import grpc
import pytest
from batchwork.v1.item_pb2 import ItemInput
from batchwork.v1.validation_service_pb2 import ValidateItemsRequest
from batchwork_server.domain.selection import LoadedItem
from google.protobuf.struct_pb2 import Struct

from tests.fakes import START
from tests.rpc.api import ADA, OLGA, as_caller, refused

SCHEMA = json.dumps({"required": ["likes"], "properties": {"likes": {"minimum": 10}}})


def struct(**fields) -> Struct:
    made = Struct()
    made.update(fields)
    return made


async def load(server, *posts, tenant_id="default") -> None:
    store = server.application.store
    items = [
        LoadedItem(item_id=f"post-{index:03}", data_json=json.dumps(post))
        for index, post in enumerate(posts)
    ]
    async with store.transaction() as tx:
        await store.categories.load(
            tx, tenant_id=tenant_id, category="posts", items=items, now=START
        )


async def validate(api, **fields):
    request = ValidateItemsRequest(**{"schema_json": SCHEMA} | fields)
    return await api.validation.ValidateItems(request)


async def test_items_of_a_request_are_checked(api):
    items = [
        ItemInput(item_id="good", data_json='{"likes": 12}'),
        ItemInput(item_id="few", data_json='{"likes": 3}'),
        ItemInput(),
        ItemInput(item_id="broken", data_json="{"),
    ]

    answer = await validate(api, items=items)

    assert [
        (result.item_id, [(found.path, found.rule) for found in result.findings])
        for result in answer.results
    ] == [
        ("few", [("$.likes", "minimum")]),
        ("2", [("$", "required")]),
        ("broken", [("$", "json")]),
    ]
    totals = answer.totals
    assert (totals.total, totals.valid, totals.invalid, totals.findings) == (4, 1, 3, 3)
    assert totals.valid_ratio == 0.25


async def test_rules_are_counted_the_most_findings_first(api):
    items = [ItemInput(data_json=data) for data in ('{"likes": 1}', "{}", '{"likes": 2}')]

    answer = await validate(api, items=items)

    assert [(rule.rule, rule.schema_path, rule.items) for rule in answer.rules] == [
        ("minimum", "$.properties.likes.minimum", 2),
        ("required", "$.required", 1),
    ]


async def test_a_category_is_read_to_its_end(api, server):
    await load(server, *({"likes": number} for number in range(250)))

    answer = await validate(api, category="posts")

    assert (answer.totals.total, answer.totals.invalid) == (250, 10)
    assert [result.item_id for result in answer.results][:2] == ["post-000", "post-001"]


async def test_filters_and_a_limit_narrow_a_category(api, server):
    await load(server, *({"likes": number} for number in range(250)))

    answer = await validate(api, category="posts", filters=struct(min_likes=5), limit=120)

    assert (answer.totals.total, answer.totals.invalid) == (120, 5)


async def test_so_many_invalid_items_are_listed_as_asked_for(api):
    items = [ItemInput(data_json="{}")] * 5

    answer = await validate(api, items=items, max_results=2)

    assert (len(answer.results), answer.totals.invalid) == (2, 5)


async def test_what_is_wrong_with_a_schema_is_told_with_its_place(api):
    schema = json.dumps({"properties": {"a": {"type": "text"}}})

    refusal = await refused(validate(api, schema_json=schema, items=[ItemInput()]))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == ["schema_json.properties.a.type"]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        pytest.param({}, "items", id="nothing to check"),
        pytest.param({"items": [ItemInput()], "category": "posts"}, "items", id="both"),
        pytest.param({"items": [ItemInput()], "schema_json": ""}, "schema_json", id="no schema"),
        pytest.param({"items": [ItemInput()] * 50_001}, "items", id="too many"),
        pytest.param({"items": [ItemInput()], "limit": 1}, "limit", id="a limit of a request"),
        pytest.param({"items": [ItemInput()], "max_results": 1001}, "max_results", id="a long one"),
        pytest.param({"category": "none"}, "category", id="no such category"),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused(api, fields, path):
    refusal = await refused(validate(api, **fields))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert path in refusal.violations


async def test_a_category_of_another_tenant_is_for_operators(guarded, guarded_server):
    await load(guarded_server, {"likes": 1}, tenant_id="blue")
    own = ValidateItemsRequest(schema_json=SCHEMA, category="posts")
    of_blue = ValidateItemsRequest(schema_json=SCHEMA, category="posts", tenant_id="blue")

    adas = await guarded.validation.ValidateItems(own, metadata=as_caller(ADA))
    olgas = await guarded.validation.ValidateItems(of_blue, metadata=as_caller(OLGA))
    refusal = await refused(guarded.validation.ValidateItems(own, metadata=as_caller(OLGA)))

    assert adas.totals.total == olgas.totals.total == 1
    assert refusal.reasons == {"category": "UNKNOWN_CATEGORY"}


async def test_a_number_that_is_too_large_keeps_no_other_item_from_being_checked(api):
    items = [
        ItemInput(item_id="large", data_json="1e999"),
        ItemInput(item_id="long", data_json="9" * 400),
        ItemInput(item_id="good", data_json="0.5"),
    ]

    answer = await validate(api, items=items, schema_json='{"multipleOf": 0.1}')

    assert [
        (result.item_id, [found.rule for found in result.findings]) for result in answer.results
    ] == [("large", ["multipleOf"]), ("long", ["multipleOf"])]


async def test_a_rule_that_cannot_be_applied_is_refused_by_its_name(api):
    schema = '{"$ref": "#/x", "x": {"pattern": "("}}'

    refusal = await refused(validate(api, items=[ItemInput(data_json='"a"')], schema_json=schema))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "`pattern`" in refusal.violations["schema_json"]
