"""ListJobs shows definitions by id, a page at a time."""

from __future__ import annotations

import grpc
import pytest
from batchwork.v1.job_pb2 import JOB_SHAPE_INDIVIDUAL, JOB_SHAPE_OBJECT
from batchwork.v1.job_service_pb2 import ListJobsRequest

from tests.rpc.api import make_job, refused


async def ids(api, **fields) -> list[str]:
    return [job.job_id for job in (await api.jobs.ListJobs(ListJobsRequest(**fields))).jobs]


@pytest.fixture
async def jobs(api) -> None:
    await api.import_jobs(
        make_job("job-c"),
        make_job("job-a", purpose_id="growth"),
        make_job("job-b", type="object"),
    )


@pytest.mark.usefixtures("jobs")
async def test_jobs_come_in_the_order_of_their_ids(api):
    assert await ids(api) == ["job-a", "job-b", "job-c"]


@pytest.mark.usefixtures("jobs")
async def test_all_filters_have_to_hold(api):
    assert await ids(api, shape=JOB_SHAPE_OBJECT) == ["job-b"]
    assert await ids(api, purpose_id="growth") == ["job-a"]
    assert await ids(api, shape=JOB_SHAPE_INDIVIDUAL, purpose_id="growth") == ["job-a"]
    assert await ids(api, shape=JOB_SHAPE_OBJECT, purpose_id="growth") == []
    assert await ids(api, feature_type="posts") == []


@pytest.mark.usefixtures("jobs")
async def test_pages_add_up_to_the_whole(api):
    first = await api.jobs.ListJobs(ListJobsRequest(page_size=2))

    rest = await ids(api, page_size=2, page_token=first.next_page_token)

    assert [job.job_id for job in first.jobs] == ["job-a", "job-b"]
    assert rest == ["job-c"]


@pytest.mark.usefixtures("jobs")
async def test_a_token_holds_only_with_the_filters_of_its_first_page(api):
    first = await api.jobs.ListJobs(ListJobsRequest(page_size=1))

    other = ListJobsRequest(page_token=first.next_page_token, purpose_id="growth")
    refusal = await refused(api.jobs.ListJobs(other))

    assert list(refusal.violations) == ["page_token"]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        pytest.param({"shape": 9}, "shape", id="unknown shape"),
        pytest.param({"page_size": -1}, "page_size", id="negative page size"),
        pytest.param({"page_token": "garbage"}, "page_token", id="garbage for a token"),
        pytest.param({"purpose_id": "p" * 129}, "purpose_id", id="long purpose"),
    ],
)
async def test_bad_filters_are_violations(api, fields, path):
    refusal = await refused(api.jobs.ListJobs(ListJobsRequest(**fields)))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == [path]
