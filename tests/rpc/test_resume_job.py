"""ResumeJob lets a paused job run by its schedule again."""

from __future__ import annotations

import grpc
import pytest
from batchwork.v1.job_service_pb2 import (
    GetJobRequest,
    ListUpcomingRunsRequest,
    PauseJobRequest,
    ResumeJobRequest,
)

from tests.rpc.api import make_job, refused


@pytest.fixture
async def job(api):
    await api.import_jobs(make_job("job-1", schedule={"frequency": "hourly"}))
    return (await api.jobs.GetJob(GetJobRequest(job_id="job-1"))).job


async def resume(api, job_id="job-1", **fields):
    return (await api.jobs.ResumeJob(ResumeJobRequest(job_id=job_id, **fields))).job


async def test_a_resumed_job_is_as_it_was_and_due_again(api, job):
    await api.jobs.PauseJob(PauseJobRequest(job_id="job-1", note="Holidays."))

    resumed = await resume(api)

    assert resumed == job
    answer = await api.jobs.ListUpcomingRuns(
        ListUpcomingRunsRequest(job_ids=["job-1"], page_size=1)
    )
    assert len(answer.runs) == 1


async def test_resuming_a_job_that_is_not_paused_changes_nothing(api, job):
    assert await resume(api) == job


@pytest.mark.usefixtures("job")
async def test_the_same_request_does_not_resume_a_job_that_was_paused_again(api):
    await api.jobs.PauseJob(PauseJobRequest(job_id="job-1"))
    first = await resume(api, request_id="the-one-request")
    await api.jobs.PauseJob(PauseJobRequest(job_id="job-1"))

    assert await resume(api, request_id="the-one-request") == first
    stored = (await api.jobs.GetJob(GetJobRequest(job_id="job-1"))).job
    assert stored.HasField("pause_time")


async def test_a_job_that_nobody_knows_is_not_found(api):
    refusal = await refused(resume(api, "no-such-job"))

    assert refusal.code is grpc.StatusCode.NOT_FOUND
