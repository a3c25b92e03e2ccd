"""How these tests call a server: the generated stubs, and what a refusal says."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from batchwork.v1.batch_pb2 import Batch
from batchwork.v1.batch_service_pb2 import (
    BATCH_EVENT_KIND_END,
    BatchEvent,
    CreateBatchRequest,
    GetBatchRequest,
    WatchBatchRequest,
)
from batchwork.v1.batch_service_pb2_grpc import BatchServiceStub
from batchwork.v1.item_pb2 import ItemInput
from batchwork.v1.job_service_pb2 import ImportJobsRequest
from batchwork.v1.job_service_pb2_grpc import JobServiceStub
from batchwork.v1.preference_service_pb2_grpc import PreferenceServiceStub
from batchwork.v1.validation_service_pb2_grpc import ValidationServiceStub
from batchwork_server.config import Settings
from batchwork_server.setting_kinds import Secret
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.sqlite import create_database

KEYS = {
    "ada-key": ("blue", "ada", "member"),
    "bob-key": ("green", "bob", "member"),
    "olga-key": ("operations", "olga", "operator"),
}

ADA, BOB, OLGA = (f"{name}-key" for name in ("ada", "bob", "olga"))


def as_caller(key: str) -> tuple[tuple[str, str], ...]:
    """Returns the metadata with which the owner of a key calls."""
    return (("authorization", f"Bearer {key}"),)


def write_keys(path: Path) -> Path:
    """Writes the file of keys that a server reads."""
    keys = [
        {
            "key_sha256": hashlib.sha256(key.encode()).hexdigest(),
            "tenant_id": tenant_id,
            "name": name,
            "role": role,
        }
        for key, (tenant_id, name, role) in KEYS.items()
    ]
    path.write_text(json.dumps({"keys": keys}))
    path.chmod(0o600)
    return path


def settings_in(folder: Path) -> Settings:
    """Returns the settings of a server that keeps everything in a folder, on a free port."""
    templates = folder / "templates"
    templates.mkdir()
    echo = {"template_id": "echo", "processor": "fake", "operations": ["echo"]}
    (templates / "echo.json").write_text(json.dumps(echo))
    return Settings(
        database_url=Secret(create_database(folder / "batchwork.db")),
        sqlite_synchronous="NORMAL",
        listen="127.0.0.1:0",
        templates_dir=templates,
        retry_initial_backoff=timedelta(0),
        shutdown_grace=timedelta(seconds=5),
    )


class Api:
    """A stub for each service, over one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.batches = BatchServiceStub(channel)
        self.jobs = JobServiceStub(channel)
        self.preferences = PreferenceServiceStub(channel)
        self.validation = ValidationServiceStub(channel)

    async def create_batch(self, *item_ids: str, metadata: Any = (), **fields: Any) -> Batch:
        """Creates a batch that is valid as it is, by default of one item."""
        items = [ItemInput(item_id=item_id) for item_id in item_ids or ("item-1",)]
        request = CreateBatchRequest(**{"operation": "echo", "items": items} | fields)
        response = await self.batches.CreateBatch(request, metadata=metadata)
        return response.batch

    async def watch(self, batch_id: str, *, metadata: Any = (), **fields: Any) -> list[BatchEvent]:
        """Returns every event of a watch that ends by itself."""
        request = WatchBatchRequest(batch_id=batch_id, **fields)
        stream = self.batches.WatchBatch(request, metadata=metadata)
        return [response.event async for response in stream]

    async def finished(self, batch_id: str, *, metadata: Any = ()) -> Batch:
        """Returns the batch when it is done."""
        last = (await self.watch(batch_id, metadata=metadata))[-1]
        assert last.kind == BATCH_EVENT_KIND_END
        return last.batch

    async def import_jobs(self, *jobs: dict[str, Any], metadata: Any = ()) -> Any:
        text = json.dumps({"batch_processing_jobs": jobs})
        return await self.jobs.ImportJobs(ImportJobsRequest(jobs_json=text), metadata=metadata)


async def until(api: Api, batch_id: str, holds: Callable[[Batch], bool]) -> Batch:
    """Returns a batch as soon as something holds of it."""
    async with asyncio.timeout(30):
        while True:
            response = await api.batches.GetBatch(GetBatchRequest(batch_id=batch_id))
            if holds(response.batch):
                return response.batch


def make_job(job_id: str = "job-1", **changes: Any) -> dict[str, Any]:
    """Makes a job as a job file has it, valid as it is."""
    defaults: dict[str, Any] = {
        "id": job_id,
        "name": "Welcome",
        "type": "individual",
        "category": "posts",
        "operation": "echo",
    }
    return defaults | changes


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """What a status says that is not OK."""

    code: grpc.StatusCode
    message: str
    reason: str
    metadata: dict[str, str]
    violations: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    details: Sequence[str] = ()
    trailers: dict[str, Any] = field(default_factory=dict)


async def refused(call: Any) -> Refusal:
    """Returns the refusal that a call ends with; a stream is read until then."""
    if hasattr(call, "__aiter__"):
        return (await told_until_refused(call))[1]
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return refusal_of(raised.value)


async def told_until_refused(responses: AsyncIterable[Any]) -> tuple[list[Any], Refusal]:
    """Returns what a stream brings, and the refusal that it ends with."""
    told = []
    try:
        async for response in responses:
            told.append(response)  # noqa: PERF401  # what came before the error is wanted
    except grpc.aio.AioRpcError as error:
        return told, refusal_of(error)
    raise AssertionError("The stream ended well.")


def refusal_of(error: Any) -> Refusal:
    status = rpc_status.from_call(error)
    assert status is not None
    info, wrong = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        _ = detail.Unpack(info) or detail.Unpack(wrong)
    assert info.domain == "batchwork"
    return Refusal(
        code=error.code(),
        message=error.details() or "",
        reason=info.reason,
        metadata=dict(info.metadata),
        violations={found.field: found.description for found in wrong.field_violations},
        reasons={found.field: found.reason for found in wrong.field_violations},
        details=[detail.type_url.rpartition(".")[2] for detail in status.details],
        trailers=dict(error.trailing_metadata()),
    )
