"""DeleteJob makes a job disappear and leaves its batches."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from batchwork.v1.batch_service_pb2 import GetBatchRequest, ListBatchesRequest
from batchwork.v1.job_service_pb2 import (
    DeleteJobRequest,
    GetJobRequest,
    ListJobsRequest,
    RunJobRequest,
)
from batchwork_server.domain.selection import LoadedItem

from tests.fakes import START
from tests.rpc.api import ADA, BOB, as_caller, make_job, refused


@pytest.fixture
async def posts(server) -> None:
    async with server.application.store.transaction() as tx:
        items = [LoadedItem(item_id="post-1", data_json="{}")]
        await server.application.store.categories.load(
            tx, tenant_id="default", category="posts", items=items, now=START
        )


async def delete(api, job_id="job-1", **fields):
    return await api.jobs.DeleteJob(DeleteJobRequest(job_id=job_id, **fields))


async def ids(api) -> list[str]:
    return [job.job_id for job in (await api.jobs.ListJobs(ListJobsRequest())).jobs]


async def test_a_deleted_job_is_nowhere_to_be_found(api):
    await api.import_jobs(make_job("job-1"), make_job("job-2"))

    await delete(api)

    assert await ids(api) == ["job-2"]
    for call in (
        api.jobs.GetJob(GetJobRequest(job_id="job-1")),
        api.jobs.RunJob(RunJobRequest(job_id="job-1")),
        api.jobs.DeleteJob(DeleteJobRequest(job_id="job-1")),
    ):
        assert (await refused(call)).code is grpc.StatusCode.NOT_FOUND


@pytest.mark.usefixtures("posts")
async def test_its_batches_stay(api):
    await api.import_jobs(make_job("job-1"))
    batch = (await api.jobs.RunJob(RunJobRequest(job_id="job-1"))).batch
    done = await api.finished(batch.batch_id)

    await delete(api)

    found = await api.batches.GetBatch(GetBatchRequest(batch_id=batch.batch_id))
    assert found.batch == done
    listed = await api.batches.ListBatches(ListBatchesRequest(job_id="job-1"))
    assert [each.batch_id for each in listed.batches] == [batch.batch_id]


@pytest.mark.usefixtures("posts")
async def test_a_batch_that_is_running_goes_on(api, processor):
    processor.gate = asyncio.Event()
    await api.import_jobs(make_job("job-1"))
    batch = (await api.jobs.RunJob(RunJobRequest(job_id="job-1"))).batch
    await processor.started.wait()

    await delete(api)
    processor.gate.set()

    done = await api.finished(batch.batch_id)
    assert (done.job_id, done.job_revision, done.counts.succeeded) == ("job-1", 1, 1)


async def test_its_id_can_be_used_again(api):
    await api.import_jobs(make_job("job-1"))
    await delete(api)

    await api.import_jobs(make_job("job-1", name="Another"))

    found = await api.jobs.GetJob(GetJobRequest(job_id="job-1"))
    assert (found.job.display_name, found.job.revision) == ("Another", 1)


async def test_an_etag_that_is_out_of_date_is_refused_and_both_are_named(api):
    await api.import_jobs(make_job("job-1"))
    old = (await api.jobs.GetJob(GetJobRequest(job_id="job-1"))).job.etag
    await api.import_jobs(make_job("job-1", name="Another"))
    now = (await api.jobs.GetJob(GetJobRequest(job_id="job-1"))).job.etag

    refusal = await refused(delete(api, etag=old))

    assert refusal.code is grpc.StatusCode.ABORTED
    assert refusal.reason == "ETAG_MISMATCH"
    assert old in refusal.message
    assert now in refusal.message
    assert await ids(api) == ["job-1"]


async def test_the_etag_of_the_job_lets_it_go(api):
    await api.import_jobs(make_job("job-1"))
    etag = (await api.jobs.GetJob(GetJobRequest(job_id="job-1"))).job.etag

    await delete(api, etag=etag)

    assert await ids(api) == []


async def test_a_job_that_is_not_there_may_be_missing_when_that_is_said(api):
    refusal = await refused(delete(api))

    await delete(api, allow_missing=True)

    assert refusal.code is grpc.StatusCode.NOT_FOUND


async def test_the_same_request_id_deletes_once(api):
    await api.import_jobs(make_job("job-1"))
    await delete(api, request_id="request-1")
    await api.import_jobs(make_job("job-1"))

    await delete(api, request_id="request-1")

    assert await ids(api) == ["job-1"]


async def test_a_request_id_with_another_job_is_refused(api):
    await api.import_jobs(make_job("job-1"), make_job("job-2"))
    await delete(api, request_id="request-1")

    refusal = await refused(delete(api, "job-2", request_id="request-1"))

    assert refusal.code is grpc.StatusCode.ALREADY_EXISTS
    assert refusal.reason == "REQUEST_ID_REUSED"
    assert await ids(api) == ["job-2"]


async def test_a_request_that_was_refused_can_come_again(api):
    await refused(delete(api, request_id="request-1"))
    await api.import_jobs(make_job("job-1"))

    await delete(api, request_id="request-1")

    assert await ids(api) == []


async def test_the_job_of_another_tenant_stays(guarded):
    await guarded.import_jobs(make_job("job-1"), metadata=as_caller(ADA))

    request = DeleteJobRequest(job_id="job-1", allow_missing=True)
    await guarded.jobs.DeleteJob(request, metadata=as_caller(BOB))

    found = await guarded.jobs.GetJob(GetJobRequest(job_id="job-1"), metadata=as_caller(ADA))
    assert found.job.tenant_id == "blue"


async def test_all_that_is_wrong_is_answered_at_once(api):
    refusal = await refused(delete(api, "a b", request_id="\n", etag="\n"))

    assert sorted(refusal.violations) == ["etag", "job_id", "request_id"]
