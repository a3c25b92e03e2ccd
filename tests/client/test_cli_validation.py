"""The command line tells what is wrong with something before it is used."""

from __future__ import annotations

import json

import pytest
from batchwork.v1.batch_pb2 import Violation
from batchwork.v1.batch_pb2 import Warning as BatchWarning
from batchwork.v1.validation_service_pb2 import (
    JobValidation,
    JobValidationTotals,
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
