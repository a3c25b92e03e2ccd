"""The overrides of a template: what it declares, and how what several say becomes one."""

from __future__ import annotations

from typing import Any

import pytest
from batchwork_server.application.override_notices import override_notices
from batchwork_server.domain.declared_overrides import (
    DeclaredOverride,
    defaults_of,
    merged_overrides,
    over_defaults,
    parse_declared_overrides,
    render_declared_overrides,
)

from tests.factories import make_template

TONE = DeclaredOverride(default="casual", choices=("casual", "formal"))
EMOJI = DeclaredOverride(kind="boolean")


@pytest.mark.parametrize(
    ("said", "merged"),
    [
        pytest.param([{"a": 1}, {"a": 2}, {"a": 3}], {"a": 3}, id="the last counts"),
        pytest.param([{"a": 1}, {"b": 2}], {"a": 1, "b": 2}, id="name by name"),
        pytest.param([{"a": [1, 2]}, {"a": [3]}], {"a": [3]}, id="lists as a whole"),
        pytest.param([{"a": {"x": 1}}, {"a": {"y": 2}}], {"a": {"y": 2}}, id="objects as a whole"),
        pytest.param([{"a": 1}, {"a": None}], {}, id="null takes back"),
        pytest.param([{"a": 1}, {"a": None}, {"a": 2}], {"a": 2}, id="and can be said anew"),
        pytest.param([{"a": 1}, {"a": False}], {"a": False}, id="false is a value"),
    ],
)
def test_whoever_comes_later_counts(said: list[dict[str, Any]], merged: dict[str, Any]) -> None:
    assert merged_overrides(*said) == merged


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        pytest.param({}, {"tone": "casual"}, id="nothing said"),
        pytest.param({"tone": "formal"}, {"tone": "formal"}, id="allowed"),
        pytest.param({"tone": "rude"}, {"tone": "casual"}, id="not among the choices"),
        pytest.param({"emoji": "yes"}, {"tone": "casual"}, id="of another type"),
        pytest.param({"other": 1}, {"tone": "casual", "other": 1}, id="not declared"),
    ],
)
def test_the_template_fills_in_what_is_left_open(
    said: dict[str, Any], seen: dict[str, Any]
) -> None:
    assert over_defaults(said, {"tone": TONE, "emoji": EMOJI}) == seen


def test_a_template_that_declares_nothing_changes_nothing() -> None:
    assert over_defaults({"tone": "rude"}, None) == {"tone": "rude"}
    assert defaults_of(None) == {}


@pytest.mark.parametrize(
    ("kind", "fits", "does_not"),
    [
        ("string", "", 1),
        ("number", 1.5, True),
        ("integer", 3.0, 3.5),
        ("boolean", False, 0),
        ("array", [], {}),
        ("object", {}, []),
        ("", [1], None),
    ],
)
def test_types_are_those_of_json_schema(kind: str, fits: Any, does_not: Any) -> None:
    declared = DeclaredOverride(kind=kind)

    assert declared.problem_of(fits) == ""
    assert bool(declared.problem_of(does_not)) is bool(kind)


def test_true_is_not_one() -> None:
    assert DeclaredOverride(choices=(1, 2)).problem_of(True) == "true is none of 1, 2."
    assert DeclaredOverride(choices=(1, 2)).problem_of(1.0) == ""


def test_what_is_declared_can_be_written_and_read() -> None:
    value = {
        "tone": {"type": "string", "enum": ["a", "b"], "default": "a", "description": "How."},
        "emoji": {},
    }

    declared, violations = parse_declared_overrides(value, path="$")

    assert violations == []
    assert render_declared_overrides(declared) == value


@pytest.mark.parametrize(
    ("value", "path"),
    [
        pytest.param(["tone"], "$", id="a list"),
        pytest.param({"a": 1}, "$.a", id="no object"),
        pytest.param({"": {}}, '$[""]', id="no name"),
        pytest.param({"a": {"type": "text"}}, "$.a.type", id="no type"),
        pytest.param({"a": {"enum": []}}, "$.a.enum", id="no choice"),
        pytest.param({"a": {"enum": [1], "default": 2}}, "$.a.default", id="another default"),
        pytest.param({"a": {"typ": "string"}}, "$.a.typ", id="no field"),
        pytest.param({str(n): {} for n in range(101)}, "$", id="too many"),
    ],
)
def test_what_is_declared_wrongly_is_refused(value: Any, path: str) -> None:
    declared, violations = parse_declared_overrides(value, path="$")

    assert declared is None
    assert [violation.path for violation in violations] == [path]


def noticed(overrides: dict[str, Any], *declared: Any) -> list[tuple[str, str]]:
    templates = [
        make_template(template_id=f"tpl-{number}", overrides=each)
        for number, each in enumerate(declared)
    ]
    found = override_notices(overrides, path="preference", templates=templates)
    return [(notice.reason, notice.path) for notice in found]


@pytest.mark.parametrize(
    "declared",
    [
        pytest.param([], id="no template is known"),
        pytest.param([None], id="the template does not say"),
        pytest.param([{"tone": TONE}, None], id="one of several does not say"),
        pytest.param([{"colour": TONE, "tone": TONE}], id="the template knows it"),
        pytest.param([{}, {"colour": DeclaredOverride()}], id="one of several knows it"),
    ],
)
def test_nothing_is_unknown_when(declared: list[Any]) -> None:
    assert noticed({"colour": "casual"}, *declared) == []


def test_what_no_template_knows_is_told_with_what_they_know() -> None:
    templates = [make_template(template_id="tpl", overrides={"emoji": EMOJI})]

    [notice] = override_notices({"emojy": True, "tone": "x"}, path="p", templates=templates)

    assert (notice.reason, notice.path) == ("UNKNOWN_OVERRIDE", "p.emojy")
    assert '"emojy" is no override of "tpl"; there are "categories"' in notice.message
    assert '"emoji"' in notice.message


def test_what_every_template_knows_is_known_without_a_declaration() -> None:
    assert noticed({"tone": "x", "item_limit": 3, "custom_filters": {}}, {}) == []


def test_what_a_template_does_not_allow_is_told_once() -> None:
    assert noticed({"tone": "rude"}, {"tone": TONE}, {"tone": TONE}) == [
        ("OVERRIDE_NOT_ALLOWED", "preference.tone")
    ]
    assert noticed({"tone": None}, {"tone": TONE}) == []
