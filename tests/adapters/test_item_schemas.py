"""Items against schemas of strangers, in a process that can be killed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
from batchwork_server.adapters.item_schemas import JsonSchemas
from batchwork_server.domain.item_schema import CheckedItem
from batchwork_server.errors import InvalidArgument, Violation

PERSON = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "age": {"minimum": 18}},
}


async def checked(schema: Any, *data: Any, **limits: Any) -> Sequence[CheckedItem]:
    """Returns what is found of items whose ids are their places."""
    items = [(str(index), json.dumps(each)) for index, each in enumerate(data)]
    async with JsonSchemas(**limits).open(json.dumps(schema)) as opened:
        return await opened.check(items)


async def violations(schema: Any, *data: Any, **limits: Any) -> Sequence[Violation]:
    with pytest.raises(InvalidArgument) as raised:
        await checked(schema, *(data or ({},)), **limits)
    return raised.value.violations


def in_short(item: CheckedItem) -> list[tuple[str, str, str]]:
    return [(each.path, each.rule.keyword, each.rule.schema_path) for each in item.findings]


async def test_everything_that_is_wrong_with_an_item_is_found():
    good, bad, worse = await checked(PERSON, {"name": "Ada"}, {"name": 1, "age": 17}, [])

    assert good.findings == ()
    assert in_short(bad) == [
        ("$.name", "type", "$.properties.name.type"),
        ("$.age", "minimum", "$.properties.age.minimum"),
    ]
    assert in_short(worse) == [("$", "type", "$.type")]


async def test_places_in_lists_have_their_number():
    [found] = await checked({"items": {"type": "integer"}}, [1, "x", 2])

    assert in_short(found) == [("$[1]", "type", "$.items.type")]


async def test_a_schema_may_be_of_an_older_dialect():
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "null"}]}

    [found] = await checked(schema, [1])

    assert in_short(found) == [("$[0]", "type", "$.items[0].type")]


async def test_references_inside_the_schema_are_followed():
    schema = {"$ref": "#/$defs/word", "$defs": {"word": {"type": "string"}}}

    [found] = await checked(schema, 1)

    assert [each.rule.keyword for each in found.findings] == ["type"]


@pytest.mark.parametrize("text", ["{", "NaN", "[" * 100_000])
async def test_data_that_is_no_json_is_a_finding(text: str):
    async with JsonSchemas().open("true") as opened:
        [found] = await opened.check([("a", text)])

    assert [each.rule.keyword for each in found.findings] == ["json"]


async def test_half_a_surrogate_pair_can_be_told():
    schema = {"properties": {"a": {"const": "b"}}, "additionalProperties": False}

    [found] = await checked(schema, {"a": "\ud800", "\ud801": 1})

    assert len(found.findings) == 2
    assert all(each.message.encode() and each.path.encode() for each in found.findings)


async def test_a_schema_that_allows_nothing_finds_everything():
    [found] = await checked(False, 1)

    assert [each.rule.keyword for each in found.findings] == ["false"]


async def test_a_schema_that_leads_nowhere_is_a_finding_of_each_item():
    [found] = await checked({"$ref": "#"}, 1)

    assert [each.rule.keyword for each in found.findings] == ["$ref"]


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        pytest.param({"type": "text"}, "schema_json.type", id="no type"),
        pytest.param(
            {"properties": {"a": {"pattern": "("}}},
            "schema_json.properties.a.pattern",
            id="no pattern",
        ),
        pytest.param({"minimum": "1"}, "schema_json.minimum", id="no number"),
        pytest.param({"$schema": "https://example.com/mine"}, "schema_json", id="no dialect"),
        pytest.param([], "schema_json", id="no schema"),
        pytest.param({"$ref": "https://example.com/elsewhere"}, "schema_json", id="elsewhere"),
        pytest.param({"$ref": "#/$defs/none"}, "schema_json", id="not there"),
        pytest.param({"$schema": ["draft"]}, "schema_json", id="a dialect that is no text"),
        pytest.param({"$id": "http://[bad", "$ref": "x"}, "schema_json", id="no address"),
        pytest.param({"pattern": "\\p{L}"}, "schema_json.pattern", id="a pattern of elsewhere"),
    ],
)
async def test_what_is_wrong_with_a_schema_is_told_with_its_place(schema: Any, path: str):
    assert [violation.path for violation in await violations(schema)] == [path]


async def test_all_that_is_wrong_with_a_schema_is_told_at_once():
    found = await violations({"type": "text", "minimum": "1"})

    assert {violation.path for violation in found} == {"schema_json.type", "schema_json.minimum"}


async def test_a_large_schema_is_refused():
    [violation] = await violations({"description": "x" * 65_536})

    assert (violation.reason, violation.limit) == ("PAYLOAD_TOO_LARGE", 65_536)


async def test_a_deep_schema_is_refused():
    schema: Any = {}
    for _ in range(40):
        schema = {"not": schema}

    [violation] = await violations(schema)

    assert "32 levels" in violation.message


async def test_a_pattern_that_takes_for_ever_is_killed():
    schema = {"pattern": "^(a+)+$"}

    [violation] = await violations(schema, "a" * 64 + "!", limit=timedelta(seconds=2))

    assert violation.reason == "SCHEMA_TOO_COSTLY"


async def test_the_next_schema_works_after_one_was_killed():
    schemas = JsonSchemas(limit=timedelta(seconds=2))
    with pytest.raises(InvalidArgument):
        async with schemas.open('{"pattern": "^(a+)+$"}') as opened:
            await opened.check([("a", json.dumps("a" * 64 + "!"))])

    async with schemas.open("true") as opened:
        assert [item.findings for item in await opened.check([("a", "1")])] == [()]


async def test_calls_take_turns_page_by_page():
    """Two categories of any size kept everybody else from checking anything."""
    schemas = JsonSchemas()
    found: list[CheckedItem] = []

    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(schemas.open("true")) for _ in range(2)]
        async with asyncio.timeout(60), schemas.open('{"type": "null"}') as third:
            found += await third.check([("a", "1")])
        for each in opened:
            found += await each.check([("b", "1")])

    assert [len(item.findings) for item in found] == [1, 0, 0]


async def test_who_gives_up_leaves_the_others_a_process():
    schemas = JsonSchemas()

    async with schemas.open('{"pattern": "^(a+)+$"}') as slow, schemas.open("true") as quick:
        waiting = asyncio.create_task(slow.check([("a", json.dumps("a" * 64 + "!"))]))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        [found] = await quick.check([("b", "1")])

    assert waiting.cancelled()
    assert found.findings == ()
