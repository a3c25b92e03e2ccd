"""A server that follows a job file has its jobs when it listens, and tells how the file is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from batchwork.v1.job_service_pb2 import ListJobsRequest, ListOccurrencesRequest
from batchwork_server.bootstrap import serving
from batchwork_server.config import Settings
from batchwork_server.domain.filters import OccurrenceFilter
from batchwork_server.domain.firing import NextRun
from batchwork_server.processors.registry import ProcessorRegistry
from batchwork_server.store.database import open_database
from batchwork_server.store.sql_store import SqlStore
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.rpc.api import Api, make_job

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING

HOURLY = {"frequency": "hourly", "minute": 30}

Start = Callable[[], Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.json"


@pytest.fixture
def following(settings: Settings, path: Path) -> Settings:
    """The settings of a server that follows the file."""
    return replace(settings, jobs_file=path, jobs_tenant="default")


@pytest.fixture
def start(following: Settings, processors: ProcessorRegistry) -> Start:
    @asynccontextmanager
    async def running() -> AsyncIterator[Api]:
        async with (
            serving(following, processors=processors) as server,
            grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            yield Api(channel)

    return running


def write(path: Path, *jobs: dict[str, Any]) -> None:
    path.write_text(json.dumps({"batch_processing_jobs": jobs}))


async def jobs_of(api: Api) -> dict[str, str]:
    """Returns the source of each job there is."""
    jobs = (await api.jobs.ListJobs(ListJobsRequest())).jobs
    return {job.job_id: job.source for job in jobs}


async def health_of(api: Api, name: str) -> int:
    response = await HealthStub(api.channel).Check(HealthCheckRequest(service=name))
    return int(response.status)


async def test_the_jobs_of_a_good_file_are_there_when_the_server_listens(start: Start, path: Path):
    write(path, make_job("job-1"), make_job("job-2"))

    async with start() as api:
        health = await health_of(api, "job-file")
        jobs = await jobs_of(api)
        names = (await HealthStub(api.channel).List(HealthListRequest())).statuses

    assert health == SERVING
    assert jobs == {"job-1": "job-file", "job-2": "job-file"}
    assert "job-file" in names


async def test_a_server_starts_with_what_it_has_when_the_file_is_bad(start: Start, path: Path):
    write(path, make_job("job-1"))
    async with start():
        pass

    write(path, make_job("job-1", operation="no-such"), make_job("job-2"))
    async with start() as api:
        health = await health_of(api, "job-file")
        overall = await health_of(api, "")
        jobs = await jobs_of(api)

    assert (health, overall) == (NOT_SERVING, SERVING)
    assert jobs == {"job-1": "job-file"}


async def test_a_server_starts_without_the_file(start: Start):
    async with start() as api:
        health = await health_of(api, "job-file")
        jobs = await jobs_of(api)

    assert (health, jobs) == (NOT_SERVING, {})


@asynccontextmanager
async def store_of(settings: Settings) -> AsyncIterator[SqlStore]:
    """Opens the database of a server that does not run."""
    database = await open_database(settings.database_url.reveal())
    try:
        yield SqlStore(database)
    finally:
        await database.close()


async def is_decided(api: Api, job_id: str) -> bool:
    request = ListOccurrencesRequest(job_id=job_id)
    return bool((await api.jobs.ListOccurrences(request)).occurrences)


async def test_what_the_file_does_not_name_any_more_does_not_fire_at_the_start(
    following: Settings, start: Start, path: Path
):
    write(path, make_job("job-1", schedule=HOURLY), make_job("job-gone", schedule=HOURLY))
    async with start():
        pass
    due = datetime.now(UTC) - timedelta(hours=3)
    run = NextRun(due_time=due, start_time=due)
    async with store_of(following) as store, store.transaction() as tx:
        await store.jobs.schedule(tx, {"job-1": run, "job-gone": run}, tenant_id="default")

    write(path, make_job("job-1", schedule=HOURLY))
    async with start() as api:
        async with asyncio.timeout(30):
            while not await is_decided(api, "job-1"):
                await asyncio.sleep(0)

    wanted = OccurrenceFilter(tenant_id="default", job_id="job-gone")
    async with store_of(following) as store:
        decided, _ = await store.occurrences.list(wanted, page_size=10, before=None)
    assert decided == []
