"""The command line shows what was found of the users of a batch."""

from __future__ import annotations

import json

from batchwork.v1.batch_pb2 import (
    CategoryCounts,
    ReferenceCounts,
    ReferenceValidation,
    UserValidation,
)
from batchwork.v1.validation_service_pb2 import (
    USER_VERDICT_INACTIVE,
    USER_VERDICT_MALFORMED,
    GetValidationReportResponse,
    InvalidReference,
    InvalidUser,
)

from tests.client.test_cli import batchwork, server  # noqa: F401  # fixtures

REPORT = GetValidationReportResponse(
    batch_id="bat-1",
    user_validation=UserValidation(total=3, valid=2, invalid=1),
    reference_validation=ReferenceValidation(
        categories=CategoryCounts(total=1, valid=1),
        user_references=ReferenceCounts(total=8, valid=5, invalid=2, unknown=1),
    ),
    invalid_users=[InvalidUser(user_id="eve", verdict=USER_VERDICT_INACTIVE, item_id="a")],
    invalid_references=[
        InvalidReference(
            user_id="7",
            verdict=USER_VERDICT_MALFORMED,
            item_id="mugs",
            category="shops",
            field="user_ids",
        )
    ],
)


def test_a_report_shows_counts_and_names(batchwork, server):  # noqa: F811
    server.answers["GetValidationReport"] = REPORT

    result = batchwork("validate", "report", "bat-1")

    assert result.exit_code == 0, result.stderr
    rows = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "users of items 2 of 3 valid, 1 invalid" in rows
    assert "references to users 5 of 8 valid, 2 invalid, 1 unknown" in rows
    assert "eve INACTIVE a" in rows
    assert "7 MALFORMED mugs shops user_ids" in rows


def test_a_report_of_valid_users_is_short(batchwork, server):  # noqa: F811
    users = UserValidation(total=2, valid=2)
    server.answers["GetValidationReport"] = GetValidationReportResponse(user_validation=users)

    result = batchwork("validate", "report", "bat-1")

    assert "2 of 2 valid" in result.stdout
    assert "VERDICT" not in result.stdout


def test_a_long_report_is_cut_and_says_so(batchwork, server):  # noqa: F811
    page = GetValidationReportResponse(next_page_token="more")
    page.MergeFrom(REPORT)
    server.answers["GetValidationReport"] = page

    result = batchwork("--tenant", "acme", "validate", "report", "bat-1", "--limit", "2", "--json")

    assert len(json.loads(result.stdout)["invalid_users"]) == 1
    request = server.sent("GetValidationReport")
    assert (request.tenant_id, request.page_size) == ("acme", 2)
