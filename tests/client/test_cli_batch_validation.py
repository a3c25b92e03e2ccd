"""The command line tells what is wrong with a batch before it is submitted."""

from __future__ import annotations

import json
from pathlib import Path

from batchwork.v1.batch_pb2 import (
    BatchPlan,
    ReferenceCounts,
    ReferenceValidation,
    UserValidation,
    Violation,
)
from batchwork.v1.batch_pb2 import Warning as BatchWarning
from batchwork.v1.validation_service_pb2 import ValidateBatchResponse

from tests.client.test_cli import batchwork, server  # noqa: F401  # fixtures

EXAMPLE = str(Path(__file__).parents[1] / "data" / "guide_category_batch.json")


def test_a_valid_batch_shows_what_it_would_be(batchwork, server):  # noqa: F811
    server.answers["ValidateBatch"] = ValidateBatchResponse(
        valid=True,
        plan=BatchPlan(item_count=3, skips={"NO_VALID_USERS": 1}, sample_item_ids=["a", "b"]),
        user_validation=UserValidation(total=2, valid=2),
        reference_validation=ReferenceValidation(
            user_references=ReferenceCounts(total=2, valid=1, invalid=1)
        ),
        warnings=[BatchWarning(reason="NOTHING_TO_PROCESS", path="items", message="Nothing.")],
    )

    result = batchwork("validate", "batch", EXAMPLE, "--metadata", "team=blue")

    assert result.exit_code == 0, result.stderr
    rows = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "would process 3" in rows
    assert "would skip 1 NO_VALID_USERS" in rows
    assert "users 2 of 2 valid" in rows
    assert "references to users 1 of 2 valid, 1 invalid" in rows
    assert "warning NOTHING_TO_PROCESS items Nothing." in rows
    assert result.stderr == "0 violations, 1 warnings\n"
    sent = server.sent("ValidateBatch").batch
    assert (sent.template_id, len(sent.items)) == ("category_report", 1)
    assert sent.batch_metadata["team"] == "blue"


def test_a_batch_with_violations_ends_with_one(batchwork, server):  # noqa: F811
    wrong = Violation(reason="UNKNOWN_TEMPLATE", path="template_id", message="There is none.")
    server.answers["ValidateBatch"] = ValidateBatchResponse(violations=[wrong], violation_count=1)

    text = batchwork("validate", "batch", "--category", "shops", "--filter", "min_sales=3")
    as_json = batchwork("validate", "batch", EXAMPLE, "--json")

    assert (text.exit_code, as_json.exit_code) == (1, 1)
    assert "UNKNOWN_TEMPLATE" in text.stdout
    assert json.loads(as_json.stdout)["violation_count"] == 1
    first, _ = server.requests["ValidateBatch"]
    assert (first.batch.category, first.batch.filters["min_sales"]) == ("shops", 3)


def test_a_file_or_a_category_has_to_be_given(batchwork, server):  # noqa: F811
    assert batchwork("validate", "batch").exit_code == 2
    assert batchwork("validate", "batch", EXAMPLE, "--category", "shops").exit_code == 2
    assert not server.requests
