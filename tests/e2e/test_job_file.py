"""A server process follows its job file while the file changes, breaks and is mended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
from batchwork_client import Batchwork, connect
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.e2e.conftest import StartServer

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING


def make_job(job_id: str, **fields: Any) -> dict[str, Any]:
    return {"id": job_id, "type": "individual", "category": "posts"} | fields


def replace(path: Path, *jobs: dict[str, Any]) -> None:
    """Writes another file and gives it the name, as editors and orchestrators do."""
    other = path.with_suffix(".new")
    other.write_text(json.dumps({"batch_processing_jobs": jobs}))
    other.replace(path)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await holds():
            await asyncio.sleep(0.05)


async def jobs_of(client: Batchwork) -> list[str]:
    return [job.job_id async for job in client.jobs.list_jobs()]


async def test_a_job_file_is_followed_breaks_and_is_mended(
    start_server: StartServer, sqlite_url: str, tmp_path: Path
):
    path = tmp_path / "jobs.json"
    one, two = (make_job(f"job_{name}", template_id="telling") for name in ("one", "two"))
    replace(path, one)

    server = await start_server(
        sqlite_url, BATCHWORK_JOBS_FILE=str(path), BATCHWORK_JOBS_POLL_INTERVAL="1"
    )
    async with (
        connect(server.target) as client,
        grpc.aio.insecure_channel(server.target) as channel,
    ):

        async def health_is(wanted: int) -> bool:
            answer = await HealthStub(channel).Check(HealthCheckRequest(service="job-file"))
            return bool(answer.status == wanted)

        assert await health_is(SERVING)
        assert await jobs_of(client) == ["job_one"]

        replace(path, one, two)
        await server.until_logged('"created":1,"updated":0,"unchanged":1,"deleted":0')
        assert await jobs_of(client) == ["job_one", "job_two"]

        replace(path, two, make_job("job_bad", template_id="no_such"))
        await until(lambda: health_is(NOT_SERVING))
        await server.until_logged("job_file.refused")
        assert await jobs_of(client) == ["job_one", "job_two"]

        replace(path, two)
        await until(lambda: health_is(SERVING))
        assert await jobs_of(client) == ["job_two"]
    assert await server.terminate() == 0
