"""ImportJobs takes a job file, all of it or nothing."""

from __future__ import annotations

import json

import grpc
from batchwork.v1.job_pb2 import JOB_SHAPE_INDIVIDUAL, Job
from batchwork.v1.job_service_pb2 import (
    JOB_CHANGE_KIND_CREATED,
    JOB_CHANGE_KIND_DELETED,
    JOB_CHANGE_KIND_UNCHANGED,
    JOB_CHANGE_KIND_UPDATED,
    CreateJobRequest,
    GetJobRequest,
    ImportJobsRequest,
    ListJobsRequest,
)

from tests.rpc.api import make_job, refused


def job_file(*jobs) -> str:
    return json.dumps({"batch_processing_jobs": jobs})


async def import_from(api, source: str, *jobs, **fields):
    request = ImportJobsRequest(jobs_json=job_file(*jobs), source=source, **fields)
    return await api.jobs.ImportJobs(request)


async def owners(api) -> dict[str, str]:
    """Returns the source of each job there is."""
    jobs = (await api.jobs.ListJobs(ListJobsRequest())).jobs
    return {job.job_id: job.source for job in jobs}


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


# A sync.


async def test_a_sync_deletes_the_jobs_of_its_source_that_the_file_does_not_name(api):
    await import_from(api, "nightly", make_job("job-1"), make_job("job-2"), make_job("job-3"))
    await import_from(api, "nightly", make_job("job-3", limit=5))

    answer = await import_from(api, "nightly", make_job("job-2", limit=5), prune=True)

    assert [(change.job_id, change.kind, change.revision) for change in answer.changes] == [
        ("job-2", JOB_CHANGE_KIND_UPDATED, 2),
        ("job-1", JOB_CHANGE_KIND_DELETED, 1),
        ("job-3", JOB_CHANGE_KIND_DELETED, 2),
    ]
    assert await owners(api) == {"job-2": "nightly"}


async def test_a_sync_never_touches_the_jobs_of_others(api):
    await import_from(api, "nightly", make_job("job-1"))
    await import_from(api, "", make_job("job-2"))
    created = Job(
        job_id="job-3", shape=JOB_SHAPE_INDIVIDUAL, categories=["posts"], operation="echo"
    )
    await api.jobs.CreateJob(CreateJobRequest(job=created))

    answer = await import_from(api, "deploy", prune=True)
    default = await import_from(api, "import", prune=True)

    assert not answer.changes
    assert [change.job_id for change in default.changes] == ["job-2"]
    assert await owners(api) == {"job-1": "nightly", "job-3": ""}


async def test_without_prune_nothing_is_deleted(api):
    await import_from(api, "nightly", make_job("job-1"))

    answer = await import_from(api, "nightly", make_job("job-2"))

    assert [change.job_id for change in answer.changes] == ["job-2"]
    assert set(await owners(api)) == {"job-1", "job-2"}


async def test_validate_only_tells_what_a_sync_would_delete_and_deletes_nothing(api):
    await import_from(api, "nightly", make_job("job-1"))

    answer = await import_from(api, "nightly", make_job("job-2"), prune=True, validate_only=True)

    assert [(change.job_id, change.kind) for change in answer.changes] == [
        ("job-2", JOB_CHANGE_KIND_CREATED),
        ("job-1", JOB_CHANGE_KIND_DELETED),
    ]
    assert set(await owners(api)) == {"job-1"}


async def test_a_sync_with_one_bad_job_deletes_nothing(api):
    await import_from(api, "nightly", make_job("job-1"))

    await refused(import_from(api, "nightly", make_job("job-2", limit=0), prune=True))

    assert set(await owners(api)) == {"job-1"}


async def test_the_same_sync_again_gets_the_first_answer_and_deletes_nothing_more(api):
    await import_from(api, "nightly", make_job("job-1"))
    first = await import_from(api, "nightly", prune=True, request_id="request-1")
    await import_from(api, "nightly", make_job("job-1"))

    again = await import_from(api, "nightly", prune=True, request_id="request-1")

    assert again == first
    assert set(await owners(api)) == {"job-1"}


async def test_a_job_that_is_taken_over_is_told_with_both_sources(api):
    await import_from(api, "nightly", make_job("job-1"), make_job("job-2"))
    file = (make_job("job-1"), make_job("job-2", limit=5))

    trial = await import_from(api, "deploy", *file, validate_only=True)
    before = await owners(api)
    answer = await import_from(api, "deploy", *file)
    again = await import_from(api, "deploy", *file)

    told = [warning for warning in answer.warnings if warning.reason == "OWNER_CHANGED"]
    assert [warning.path for warning in told] == [
        "$.batch_processing_jobs[0]",
        "$.batch_processing_jobs[1]",
    ]
    assert all("nightly" in warning.message and "deploy" in warning.message for warning in told)
    assert trial == answer
    assert set(before.values()) == {"nightly"}
    assert await owners(api) == {"job-1": "deploy", "job-2": "deploy"}
    assert [change.kind for change in answer.changes] == [
        JOB_CHANGE_KIND_UNCHANGED,
        JOB_CHANGE_KIND_UPDATED,
    ]
    assert not [warning for warning in again.warnings if warning.reason == "OWNER_CHANGED"]


async def test_a_job_that_was_taken_over_is_not_pruned_by_its_first_source(api):
    await import_from(api, "nightly", make_job("job-1"))
    await import_from(api, "deploy", make_job("job-1"))

    await import_from(api, "nightly", prune=True)

    found = await api.jobs.GetJob(GetJobRequest(job_id="job-1"))
    assert (found.job.source, found.job.revision) == ("deploy", 1)


async def test_beyond_a_thousand_jobs_that_are_taken_over_the_others_are_counted(api):
    file = [make_job(f"job-{number}") for number in range(1005)]
    await import_from(api, "nightly", *file)

    answer = await import_from(api, "deploy", *file, validate_only=True)

    told = [warning for warning in answer.warnings if warning.reason == "OWNER_CHANGED"]
    assert len(told) == 1000
    assert answer.warnings[-1].reason == "MORE_NOTICES"
    assert "5 more" in answer.warnings[-1].message
