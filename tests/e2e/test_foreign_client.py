"""A client that knows nothing of us reaches every service through reflection."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import StartServer

BUF = Path(sys.executable).with_name("buf")

CALLS = {
    "BatchService/ListBatches": ({"page_size": 5}, {}),
    "JobService/ListJobs": ({}, {}),
    "PreferenceService/ListPreferences": ({}, {}),
    "ValidationService/ValidateUsers": (
        {"user_ids": ["nobody"]},
        {
            "results": [{"userId": "nobody", "verdict": "USER_VERDICT_NOT_FOUND"}],
            "totals": {"total": "1", "invalid": "1", "notFound": "1"},
        },
    ),
}


async def buf_curl(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return out.decode()


async def test_buf_curl_calls_every_service(start_server: StartServer, sqlite_url: str):
    server = await start_server(sqlite_url)
    answers: dict[str, Any] = {}

    methods = await buf_curl("--list-methods", f"http://{server.target}")
    for method, (request, _) in CALLS.items():
        url = f"http://{server.target}/batchwork.v1.{method}"
        answers[method] = json.loads(await buf_curl("-d", json.dumps(request), url))

    assert {line.rpartition("/")[0] for line in methods.split() if "batchwork" in line} == {
        f"batchwork.v1.{method.partition('/')[0]}" for method in CALLS
    }
    assert answers == {method: answer for method, (_, answer) in CALLS.items()}


@pytest.mark.parametrize("name", ["", "batchwork.v1.BatchService", "engine", "database"])
async def test_a_probe_is_answered(start_server: StartServer, sqlite_url: str, name: str):
    server = await start_server(sqlite_url)

    async def status() -> str:
        url = f"http://{server.target}/grpc.health.v1.Health/Check"
        answer: str = json.loads(await buf_curl("-d", json.dumps({"service": name}), url))["status"]
        return answer

    assert await status() == "SERVING"
