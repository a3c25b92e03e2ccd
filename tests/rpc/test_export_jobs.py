"""ExportJobs writes job files that ImportJobs reads."""

from __future__ import annotations

import json

import grpc
import pytest
from batchwork.v1.job_service_pb2 import (
    JOB_CHANGE_KIND_UNCHANGED,
    ExportJobsRequest,
    ImportJobsRequest,
)

from tests.rpc.api import make_job, refused


async def exported(api, **fields) -> list[str]:
    response = await api.jobs.ExportJobs(ExportJobsRequest(**fields))
    return [job["id"] for job in json.loads(response.jobs_json)["batch_processing_jobs"]]


async def test_without_ids_all_jobs_are_exported(api):
    await api.import_jobs(make_job("job-1"), make_job("job-2"))

    assert await exported(api) == ["job-1", "job-2"]


async def test_named_jobs_are_exported_in_the_order_of_the_request(api):
    await api.import_jobs(make_job("job-1"), make_job("job-2"), make_job("job-3"))

    assert await exported(api, job_ids=["job-3", "job-1"]) == ["job-3", "job-1"]


async def test_what_was_exported_changes_nothing_when_it_is_imported(api):
    schedule = {"frequency": "weekly", "days": ["Monday"], "at": "09:00"}
    await api.import_jobs(make_job("job-1", schedule=schedule, filters={"min_likes": 5}))
    text = (await api.jobs.ExportJobs(ExportJobsRequest())).jobs_json

    again = await api.jobs.ImportJobs(ImportJobsRequest(jobs_json=text))

    assert [change.kind for change in again.changes] == [JOB_CHANGE_KIND_UNCHANGED]


async def test_a_job_that_is_not_there_is_named(api):
    refusal = await refused(api.jobs.ExportJobs(ExportJobsRequest(job_ids=["no-such-job"])))

    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert "no-such-job" in refusal.message


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        pytest.param({"job_ids": ["job-1", "?"]}, "job_ids[1]", id="no id"),
        pytest.param({"job_ids": [""]}, "job_ids[0]", id="empty id"),
        pytest.param({"tenant_id": "-"}, "tenant_id", id="a file of all tenants"),
    ],
)
async def test_bad_fields_are_violations(api, fields, path):
    refusal = await refused(api.jobs.ExportJobs(ExportJobsRequest(**fields)))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == [path]
