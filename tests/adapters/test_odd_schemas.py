"""Whatever a schema and data are, checking finds something or says what is wrong with the schema.

An error that the library of schemas let through was answered with INTERNAL: one number that was too
large kept the other items of its call from being checked.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from batchwork_server.adapters import schema_child
from batchwork_server.adapters.schema_child import UnusableSchema
from batchwork_server.domain.item_schema import CheckedItem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

DIALECTS = (
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema#",
    "http://json-schema.org/draft-06/schema#",
    "http://json-schema.org/draft-04/schema#",
    "http://json-schema.org/draft-03/schema#",
    "http://[no-address",
    "x",
)
KEYWORDS = tuple(
    keyword
    for line in (
        "type enum const multipleOf divisibleBy maximum exclusiveMaximum minimum exclusiveMinimum",
        "maxLength minLength pattern items prefixItems additionalItems unevaluatedItems contains",
        "maxContains minContains maxItems minItems uniqueItems properties patternProperties",
        "additionalProperties unevaluatedProperties propertyNames dependencies dependentRequired",
        "dependentSchemas required maxProperties minProperties allOf anyOf oneOf not if then else",
        "extends disallow format $ref $dynamicRef $recursiveRef $anchor $dynamicAnchor $id id x",
        "$recursiveAnchor $defs definitions",
    )
    for keyword in line.split()
)
NUMBERS = st.sampled_from([0, 1, -1, 0.0, 0.1, 3, 5e-324, 1e308, 2**63 - 1, True])
PATTERNS = st.sampled_from(["", "a", "^a+$", "(", "a{4294967296}", "[", "\\p{L}", "(" * 50])
PLACES = st.sampled_from(["#", "#/x", "#/$defs/a", "#a", "http://[", "other", "#/x/0", "%", ""])
NAMES = st.sampled_from(["a", "b", "(", "x", "\ud800", "a{4294967296}"])
SIMPLE = (
    NUMBERS
    | PATTERNS
    | PLACES
    | st.none()
    | st.sampled_from(["string", "number", "integer", "object", "array", "any", "nothing"])
)
VALUES = st.recursive(
    SIMPLE,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=4)
        | st.dictionaries(NAMES, inner, max_size=3)
    ),
    max_leaves=12,
)
SCHEMAS = st.booleans() | st.builds(
    lambda body, dialect: body | ({"$schema": dialect} if dialect else {}),
    st.dictionaries(st.sampled_from(KEYWORDS), VALUES, max_size=5),
    st.none() | st.sampled_from(DIALECTS),
)
TEXTS = st.sampled_from(
    ["1e999", "-1e999", "9" * 400, "9" * 5000, "1e-400", "[" * 2000, '{"a":1e999}', "{", "[1,1.0]"]
) | st.builds(json.dumps, VALUES)


def outcome(schema: Any, *texts: str) -> list[CheckedItem] | str:
    """Returns what is found of items, or what is wrong with their schema."""
    written = json.dumps(schema)
    problems = schema_child.problems_of(written)
    if problems:
        return problems[0][1]
    try:
        return schema_child.check(written, [(str(n), text) for n, text in enumerate(texts)])
    except UnusableSchema as error:
        return str(error)


@given(SCHEMAS, st.lists(TEXTS, min_size=1, max_size=3))
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_checking_ends_with_findings_or_with_what_is_wrong(schema: Any, texts: list[str]):
    found = outcome(schema, *texts)

    assert found if isinstance(found, str) else len(found) == len(texts)


@pytest.mark.parametrize("number", ["1e999", "9" * 400, "-" + "9" * 400])
def test_a_number_that_is_too_large_is_a_finding_of_its_item(number: str):
    found = outcome({"properties": {"a": {"multipleOf": 0.1}}}, '{"a": 0.5}', f'{{"a": {number}}}')

    assert not isinstance(found, str)
    good, bad = found
    assert good.findings == ()
    [finding] = bad.findings
    assert (finding.path, finding.rule.keyword) == ("$.a", "multipleOf")


@pytest.mark.parametrize(
    ("schema", "text", "rule"),
    [
        pytest.param({"pattern": "a{4294967296}"}, '"a"', "a{4294967296}", id="repetition"),
        pytest.param(
            {"$ref": "#/x", "x": {"pattern": "("}}, '"a"', "`pattern`", id="pattern elsewhere"
        ),
        pytest.param(
            {"$ref": "#/x", "x": {"pattern": "a{4294967296}"}}, '"a"', "`pattern`", id="overflow"
        ),
        pytest.param(
            {"$schema": DIALECTS[4], "patternProperties": {"(": {}}},
            '{"a": 1}',
            "`patternProperties`",
            id="draft 4",
        ),
        pytest.param(
            {"$ref": "#/x", "x": {"multipleOf": 0}}, "1", "`multipleOf`", id="multiple of nothing"
        ),
        pytest.param({"$ref": "#/x", "x": {"type": "text"}}, "1", "`type`", id="no type"),
    ],
)
def test_what_is_wrong_with_a_schema_names_the_rule(schema: Any, text: str, rule: str):
    found = outcome(schema, text)

    assert isinstance(found, str)
    assert rule in found
