"""ImportJobs takes a job file, all of it or nothing."""

from __future__ import annotations

import json

import grpc
from batchwork.v1.job_service_pb2 import (
    JOB_CHANGE_KIND_CREATED,
    JOB_CHANGE_KIND_UNCHANGED,
    JOB_CHANGE_KIND_UPDATED,
    GetJobRequest,
    ImportJobsRequest,
    ListJobsRequest,
)

from tests.rpc.api import make_job, refused


def job_file(*jobs) -> str:
    return json.dumps({"batch_processing_jobs": jobs})


async def test_each_job_is_created_then_left_or_updated(api):
    first = await api.import_jobs(make_job("job-1"), make_job("job-2"))
    second = await api.import_jobs(make_job("job-1"), make_job("job-2", name="Other"))

    assert [change.kind for change in first.changes] == [JOB_CHANGE_KIND_CREATED] * 2
    assert [change.kind for change in second.changes] == [
        JOB_CHANGE_KIND_UNCHANGED,
        JOB_CHANGE_KIND_UPDATED,
    ]
    assert second.changes[1].revision == 2
    assert second.changes[1].changed_fields == ["display_name"]


async def test_the_source_is_kept_with_the_job(api):
    request = ImportJobsRequest(jobs_json=job_file(make_job("job-1")), source="repository")

    await api.jobs.ImportJobs(request)

    found = await api.jobs.GetJob(GetJobRequest(job_id="job-1"))
    assert found.job.source == "repository"


async def test_one_bad_job_keeps_all_of_them_out(api):
    jobs = job_file(make_job("job-1"), make_job("job-2", operation="no-such", schedule={"at": 9}))

    refusal = await refused(api.jobs.ImportJobs(ImportJobsRequest(jobs_json=jobs)))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert all(path.startswith("$.batch_processing_jobs[1]") for path in refusal.violations)
    assert not (await api.jobs.ListJobs(ListJobsRequest())).jobs


async def test_text_that_is_no_json_is_refused_with_its_place(api):
    refusal = await refused(api.jobs.ImportJobs(ImportJobsRequest(jobs_json="{\n]")))

    assert list(refusal.violations) == ["$"]
    assert "line 2" in refusal.violations["$"]


async def test_a_file_that_is_too_large_is_refused(api):
    refusal = await refused(
        api.jobs.ImportJobs(ImportJobsRequest(jobs_json=" " * (4 * 1024 * 1024 + 1)))
    )

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason == "PAYLOAD_TOO_LARGE"
    assert refusal.metadata["limit"] == str(4 * 1024 * 1024)


async def test_validate_only_answers_the_difference_and_stores_nothing(api):
    request = ImportJobsRequest(jobs_json=job_file(make_job("job-1")), validate_only=True)

    response = await api.jobs.ImportJobs(request)

    assert [change.kind for change in response.changes] == [JOB_CHANGE_KIND_CREATED]
    assert not (await api.jobs.ListJobs(ListJobsRequest())).jobs


async def test_the_same_request_id_gets_the_first_answer(api):
    request = ImportJobsRequest(jobs_json=job_file(make_job("job-1")), request_id="request-1")

    first = await api.jobs.ImportJobs(request)
    second = await api.jobs.ImportJobs(request)

    assert second == first


async def test_a_request_id_with_another_file_is_refused(api):
    one = ImportJobsRequest(jobs_json=job_file(make_job("job-1")), request_id="request-1")
    other = ImportJobsRequest(jobs_json=job_file(make_job("job-2")), request_id="request-1")
    await api.jobs.ImportJobs(one)

    refusal = await refused(api.jobs.ImportJobs(other))

    assert refusal.code is grpc.StatusCode.ALREADY_EXISTS
    assert refusal.reason == "REQUEST_ID_REUSED"


async def test_a_source_with_spaces_is_a_violation(api):
    request = ImportJobsRequest(jobs_json=job_file(make_job("job-1")), source="my file")

    refusal = await refused(api.jobs.ImportJobs(request))

    assert list(refusal.violations) == ["source"]
