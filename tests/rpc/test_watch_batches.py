"""WatchBatches tells what happens to all batches that match."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import grpc
import pytest
from batchwork.v1.batch_pb2 import BATCH_STATE_SUCCEEDED
from batchwork.v1.batch_service_pb2 import (
    BATCH_EVENT_KIND_END,
    BATCH_EVENT_KIND_GOING_AWAY,
    BATCH_EVENT_KIND_PROGRESS,
    BATCH_EVENT_KIND_SNAPSHOT,
    BatchEvent,
    WatchBatchesRequest,
)
from batchwork_server.bootstrap import serving
from google.protobuf.duration_pb2 import Duration

from tests.rpc.api import ADA, BOB, OLGA, Api, as_caller, refused, told_until_refused


class Leaving:
    """The messages of a stream, which the caller can leave."""

    def __init__(self, call: Any) -> None:
        self._messages = aiter(call)
        self.cancel = call.cancel

    def __aiter__(self) -> Any:
        return self._messages

    async def __anext__(self) -> Any:
        return await anext(self._messages)


def watch(api: Api, *, metadata: Any = (), **fields: Any) -> Any:
    return Leaving(api.batches.WatchBatches(WatchBatchesRequest(**fields), metadata=metadata))


async def until_end(stream: Any, *, batches: int = 1) -> list[BatchEvent]:
    """Returns the events up to the end of so many batches, and leaves."""
    told: list[BatchEvent] = []
    async with asyncio.timeout(60):
        async for response in stream:
            told.append(response.event)
            if [event.kind for event in told].count(BATCH_EVENT_KIND_END) == batches:
                break
    stream.cancel()
    return told


async def test_open_batches_come_as_snapshots_and_then_what_happens_to_them(api, processor):
    processor.gate = asyncio.Event()
    batch = await api.create_batch("a", "b")
    await processor.started.wait()
    stream = watch(api)
    first = (await anext(stream)).event

    processor.gate.set()
    told = await until_end(stream)

    assert first.kind == BATCH_EVENT_KIND_SNAPSHOT
    assert (first.batch_id, first.tenant_id) == (batch.batch_id, "default")
    assert {event.batch_id for event in told} == {batch.batch_id}
    assert told[-1].batch.state == BATCH_STATE_SUCCEEDED
    assert told[-1].event_type == "batch:completed"


async def test_a_batch_that_is_created_later_is_told_with_the_documents_names(api, processor):
    processor.gate = asyncio.Event()
    blue = {"labels": {"team": "blue"}}
    await api.create_batch(**blue)
    stream = watch(api, without_progress=True, **blue)
    await anext(stream)

    await api.create_batch(labels={"team": "red"})
    batch = await api.create_batch("a", **blue)
    processor.gate.set()
    told = await until_end(stream, batches=2)

    later = [event for event in told if event.batch_id == batch.batch_id]
    assert [event.event_type for event in later] == [
        "batch:created",
        "batch:started",
        "batch:completed",
    ]
    assert BATCH_EVENT_KIND_PROGRESS not in [event.kind for event in told]
    assert {event.batch.labels["team"] for event in told} == {"blue"}


async def test_a_watch_goes_on_after_its_newest_token(api, processor):
    processor.gate = asyncio.Event()
    batch = await api.create_batch("a")
    stream = watch(api)
    token = (await anext(stream)).event.resume_token
    stream.cancel()
    processor.gate.set()
    await api.finished(batch.batch_id)

    told = await until_end(watch(api, resume_token=token, min_interval=Duration(seconds=5)))

    assert BATCH_EVENT_KIND_SNAPSHOT not in [event.kind for event in told]
    assert told[-1].batch_id == batch.batch_id


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"operation": "echo"}, id="operation"),
        pytest.param({"labels": {"team": "blue"}}, id="labels"),
        pytest.param({"tenant_id": "blue"}, id="tenant"),
    ],
)
async def test_a_token_is_good_for_the_same_filters_only(api, processor, other):
    processor.gate = asyncio.Event()
    await api.create_batch()
    stream = watch(api)
    token = (await anext(stream)).event.resume_token
    stream.cancel()

    refusal = await refused(watch(api, resume_token=token, **other))

    processor.gate.set()
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == ["resume_token"]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        pytest.param({"resume_token": "garbage"}, "resume_token", id="garbage for a token"),
        pytest.param({"min_interval": Duration(seconds=3601)}, "min_interval", id="over an hour"),
        pytest.param({"job_id": "!"}, "job_id", id="bad job id"),
        pytest.param({"labels": {"": "x"}}, "labels", id="bad label"),
        pytest.param({"operation": "a\nb"}, "operation", id="bad operation"),
    ],
)
async def test_bad_fields_are_violations(api, fields, path):
    refusal = await refused(watch(api, **fields))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [found.partition("[")[0] for found in refusal.violations] == [path]


async def test_a_caller_is_told_of_its_own_tenant_only(guarded, processor):
    processor.gate = asyncio.Event()
    mine = await guarded.create_batch(metadata=as_caller(ADA))
    others = await guarded.create_batch(metadata=as_caller(BOB))
    stream = watch(guarded, metadata=as_caller(ADA))
    telling = asyncio.create_task(until_end(stream))

    everybody = watch(guarded, metadata=as_caller(OLGA), tenant_id="-")
    seen = {(await anext(everybody)).event.batch_id for _ in range(2)}
    everybody.cancel()
    processor.gate.set()

    assert {event.batch_id for event in await telling} == {mine.batch_id}
    assert seen == {mine.batch_id, others.batch_id}


async def test_another_tenant_is_for_operators(guarded):
    refusal = await refused(watch(guarded, metadata=as_caller(ADA), tenant_id="green"))

    assert refusal.code is grpc.StatusCode.PERMISSION_DENIED


async def test_a_server_that_stops_tells_its_watchers(api, server, processor):
    processor.gate = asyncio.Event()
    await api.create_batch()
    stream = watch(api)
    await anext(stream)

    server.application.batches.watching.close()
    told, refusal = await told_until_refused(stream)

    processor.gate.set()
    assert told[-1].event.kind == BATCH_EVENT_KIND_GOING_AWAY
    assert told[-1].event.batch_id == ""
    assert told[-1].event.resume_token
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")


async def test_too_many_watchers_are_told_when_to_come_back(settings, processors, processor):
    processor.gate = asyncio.Event()
    one_watcher = replace(settings, max_watchers=1)
    async with (
        serving(one_watcher, processors=processors) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        api = Api(channel)
        await api.create_batch()
        first = watch(api)
        await anext(first)

        refusal = await refused(watch(api))

        processor.gate.set()
    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "QUOTA_WATCHERS",
    )
