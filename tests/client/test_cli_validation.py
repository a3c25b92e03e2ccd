"""The command line tells what is wrong with something before it is used."""

from __future__ import annotations

import json

import pytest
from batchwork.v1.batch_pb2 import Violation
from batchwork.v1.batch_pb2 import Warning as BatchWarning
from batchwork.v1.validation_service_pb2 import (
    InvalidItem,
    ItemFinding,
    ItemValidationTotals,
    JobValidation,
    JobValidationTotals,
    RuleCount,
    ValidateItemsResponse,
    ValidateJobsResponse,
)

from tests.client.test_cli import batchwork, server  # noqa: F401  # fixtures

WARNING = BatchWarning(reason="NO_TIME_ZONE", path="$.zone", message="It names no zone.")
VIOLATION = Violation(reason="UNKNOWN_TEMPLATE", path="$.tpl", message="There is no template.")


def answer_about(*violations: Violation) -> ValidateJobsResponse:
    result = JobValidation(
        path="$", job_id="job-1", valid=not violations, violations=violations, warnings=[WARNING]
    )
    totals = JobValidationTotals(
        total=1, valid=int(not violations), violations=len(violations), warnings=1
    )
    return ValidateJobsResponse(results=[result], totals=totals)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "jobs.json"
    path.write_text('{"batch_processing_jobs": []}')
    return str(path)


def test_jobs_with_violations_are_an_exit_code(batchwork, server, file):  # noqa: F811
    server.answers["ValidateJobs"] = answer_about(VIOLATION)

    result = batchwork("validate", "jobs", file)

    assert result.exit_code == 1
    assert "job-1  violation  UNKNOWN_TEMPLATE  $.tpl" in result.stdout
    assert "job-1  warning    NO_TIME_ZONE      $.zone" in result.stdout
    assert result.stderr == "0 of 1 jobs are valid; 1 violations, 1 warnings\n"
    assert server.sent("ValidateJobs").jobs_json == '{"batch_processing_jobs": []}'


def test_warnings_alone_are_none(batchwork, server, file):  # noqa: F811
    server.answers["ValidateJobs"] = answer_about()

    result = batchwork("validate", "jobs", file, "--json")

    assert result.exit_code == 0
    assert json.loads(result.stdout)["totals"]["warnings"] == 1


def test_stored_jobs_are_named_or_all_are_meant(batchwork, server):  # noqa: F811
    server.answers["ValidateJobs"] = answer_about()

    batchwork("--tenant", "blue", "validate", "jobs", "--job", "job-1", "--job", "job-2")
    batchwork("validate", "jobs", "--stored")

    named, every = server.requests["ValidateJobs"]
    assert (list(named.job_ids), named.tenant_id) == (["job-1", "job-2"], "blue")
    assert every.all_stored


def test_it_is_said_in_one_way_which_jobs_are_meant(batchwork, server, file):  # noqa: F811
    assert batchwork("validate", "jobs").exit_code == 2
    assert batchwork("validate", "jobs", file, "--stored").exit_code == 2
    assert not server.requests


@pytest.fixture
def schema(tmp_path):
    path = tmp_path / "schema.json"
    path.write_text('{"type": "object"}')
    return str(path)


def test_items_that_do_not_meet_a_schema_are_an_exit_code(
    batchwork,  # noqa: F811
    server,  # noqa: F811
    schema,
    tmp_path,
):
    items = tmp_path / "items.jsonl"
    items.write_text('{"item_id": "a", "data": 1}\n')
    finding = ItemFinding(path="$", rule="type", schema_path="$.type", message="1 is no object")
    server.answers["ValidateItems"] = ValidateItemsResponse(
        results=[InvalidItem(item_id="a", findings=[finding])],
        rules=[RuleCount(rule="type", schema_path="$.type", items=1, findings=1)],
        totals=ItemValidationTotals(total=4, valid=3, invalid=1, valid_ratio=0.75),
    )

    result = batchwork("validate", "items", schema, str(items))

    assert result.exit_code == 1
    assert "type  $.type         1      1" in result.stdout
    assert "a     $     1 is no object" in result.stdout
    assert result.stderr == "3 of 4 items are valid, 75.0%\n"
    assert server.sent("ValidateItems").items[0].data_json == "1"


def test_items_of_a_category_are_named(batchwork, server, schema):  # noqa: F811
    server.answers["ValidateItems"] = ValidateItemsResponse()

    arguments = ("--category", "posts", "--filter", "min_likes=3", "--limit", "5", "--show", "7")
    result = batchwork("validate", "items", schema, *arguments, "--json")

    assert result.exit_code == 0
    sent = server.sent("ValidateItems")
    assert (sent.category, sent.limit, sent.max_results) == ("posts", 5, 7)
    assert sent.filters["min_likes"] == 3
    assert sent.schema_json == '{"type": "object"}'


def test_either_a_file_or_a_category_is_checked(batchwork, server, schema):  # noqa: F811
    assert batchwork("validate", "items", schema).exit_code == 2
    assert not server.requests
