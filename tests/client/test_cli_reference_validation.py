"""The command line tells whether the users whom things list are there."""

from __future__ import annotations

import json

import pytest
from batchwork.v1.batch_pb2 import CategoryCounts, ReferenceCounts, ReferenceValidation
from batchwork.v1.validation_service_pb2 import (
    CATEGORY_VERDICT_NO_VALID_USERS,
    CATEGORY_VERDICT_VALID,
    USER_VERDICT_INACTIVE,
    USER_VERDICT_VALID,
    CategoryValidationResult,
    UserValidationResult,
    ValidateReferencesResponse,
)

from tests.client.test_cli import batchwork, server  # noqa: F401  # fixtures

ALL_VALID = ReferenceValidation(
    categories=CategoryCounts(total=2, valid=2),
    user_references=ReferenceCounts(total=1, valid=1),
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "things.jsonl"
    path.write_text(
        '{"item_id": "mugs", "user_ids": ["ann"], "member_ids": ["eve"]}\n'
        '{"item_id": "pens", "user_ids": null, "colour": "red"}\n'
    )
    return str(path)


def test_references_that_are_not_valid_are_an_exit_code(batchwork, server, file):  # noqa: F811
    server.answers["ValidateReferences"] = ValidateReferencesResponse(
        results=[
            CategoryValidationResult(
                category_id="mugs",
                verdict=CATEGORY_VERDICT_VALID,
                user_ids=[UserValidationResult(user_id="ann", verdict=USER_VERDICT_VALID)],
                member_ids=[UserValidationResult(user_id="eve", verdict=USER_VERDICT_INACTIVE)],
            ),
            CategoryValidationResult(category_id="pens", verdict=CATEGORY_VERDICT_NO_VALID_USERS),
        ],
        totals=ReferenceValidation(
            categories=CategoryCounts(total=2, valid=1, invalid=1),
            user_references=ReferenceCounts(total=2, valid=1, invalid=1),
        ),
    )

    result = batchwork("validate", "references", file)

    assert result.exit_code == 1
    assert [line.split() for line in result.stdout.splitlines()[1:]] == [
        ["mugs", "VALID", "ann", "VALID", "user_ids"],
        ["mugs", "VALID", "eve", "INACTIVE", "member_ids"],
        ["pens", "NO_VALID_USERS"],
    ]
    assert result.stderr == (
        "categories: 1 of 2 valid, 1 invalid; references to users: 1 of 2 valid, 1 invalid\n"
    )


def test_each_thing_is_sent_with_whom_it_lists(batchwork, server, file):  # noqa: F811
    server.answers["ValidateReferences"] = ValidateReferencesResponse(totals=ALL_VALID)

    result = batchwork("validate", "references", file, "--json")

    assert result.exit_code == 0
    assert json.loads(result.stdout)["totals"]["categories"]["valid"] == 2
    mugs, pens = server.sent("ValidateReferences").categories
    assert (mugs.category_id, mugs.user_ids, mugs.member_ids) == ("mugs", ["ann"], ["eve"])
    assert (pens.category_id, pens.user_ids, pens.member_ids) == ("pens", [], [])


def test_another_field_may_name_a_thing(batchwork, server, tmp_path):  # noqa: F811
    server.answers["ValidateReferences"] = ValidateReferencesResponse(totals=ALL_VALID)
    path = tmp_path / "things.json"
    path.write_text('[{"sku": "mugs", "user_ids": []}]')

    batchwork("validate", "references", str(path), "--id-field", "sku")

    [mugs] = server.sent("ValidateReferences").categories
    assert mugs.category_id == "mugs"


def test_every_list_that_is_none_is_told_with_its_value(batchwork, server, tmp_path):  # noqa: F811
    path = tmp_path / "things.jsonl"
    path.write_text(
        '{"item_id": "mugs", "user_ids": "ann", "member_ids": ["eve", 7]}\n'
        '{"item_id": "pens", "user_ids": ["ann"]}\n'
        '{"user_ids": {"a": 1}}\n'
    )

    result = batchwork("validate", "references", str(path))

    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"error: {path}: thing 1 ('mugs'): user_ids is \"ann\"; give a list of ids",
        f"error: {path}: thing 1 ('mugs'): member_ids is [\"eve\", 7]; give a list of ids",
        f"error: {path}: thing 3 (''): user_ids is {{\"a\": 1}}; give a list of ids",
    ]
    assert not server.requests


def test_references_of_another_tenant_are_not_validated(batchwork, server, file):  # noqa: F811
    result = batchwork("--tenant", "acme", "validate", "references", file)

    assert result.exit_code == 2
    assert "validate references works on the tenant of the API key" in result.stderr
    assert not server.requests
