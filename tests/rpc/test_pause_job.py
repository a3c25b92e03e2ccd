"""PauseJob lets the schedule of a job rest, and nothing else."""

from __future__ import annotations

import grpc
import pytest
from batchwork.v1.job_service_pb2 import (
    GetJobRequest,
    ListUpcomingRunsRequest,
    PauseJobRequest,
    RunJobRequest,
)
from batchwork_server.domain.selection import LoadedItem

from tests.fakes import START
from tests.rpc.api import make_job, refused


@pytest.fixture
async def job(api):
    await api.import_jobs(make_job("job-1", schedule={"frequency": "hourly"}))
    return (await api.jobs.GetJob(GetJobRequest(job_id="job-1"))).job


async def pause(api, job_id="job-1", **fields):
    return (await api.jobs.PauseJob(PauseJobRequest(job_id=job_id, **fields))).job


async def test_a_paused_job_says_since_when_and_why_and_keeps_the_rest(api, job):
    paused = await pause(api, note="Holidays.")

    assert paused.HasField("pause_time")
    assert paused.pause_note == "Holidays."
    assert (await api.jobs.GetJob(GetJobRequest(job_id="job-1"))).job == paused
    paused.ClearField("pause_time")
    paused.ClearField("pause_note")
    assert paused == job


@pytest.mark.usefixtures("job")
async def test_a_paused_job_is_not_due(api):
    await pause(api)

    answer = await api.jobs.ListUpcomingRuns(ListUpcomingRunsRequest(job_ids=["job-1"]))

    assert not answer.runs


@pytest.mark.usefixtures("job")
async def test_a_paused_job_runs_on_request(api, server):
    store = server.application.store
    async with store.transaction() as tx:
        items = [LoadedItem(item_id="post-1", data_json="{}")]
        await store.categories.load(
            tx, tenant_id="default", category="posts", items=items, now=START
        )
    await pause(api)

    batch = (await api.jobs.RunJob(RunJobRequest(job_id="job-1"))).batch

    assert batch.job_id == "job-1"


@pytest.mark.usefixtures("job")
async def test_pausing_a_paused_job_changes_nothing(api):
    first = await pause(api, note="Holidays.")

    assert await pause(api, note="Other reasons.") == first


@pytest.mark.usefixtures("job")
async def test_a_request_id_stands_for_one_pause(api):
    await pause(api, request_id="the-one-request")

    refusal = await refused(pause(api, request_id="the-one-request", note="Another."))

    assert refusal.code is grpc.StatusCode.ALREADY_EXISTS


async def test_a_job_that_nobody_knows_is_not_found(api):
    refusal = await refused(pause(api, "no-such-job"))

    assert refusal.code is grpc.StatusCode.NOT_FOUND


async def test_a_note_that_is_too_long_is_refused(api):
    refusal = await refused(pause(api, "", note="n" * 501))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert sorted(refusal.violations) == ["job_id", "note"]
