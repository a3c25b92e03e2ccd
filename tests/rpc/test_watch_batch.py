"""WatchBatch tells what happens to a batch, and ends with it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import grpc
import pytest
from batchwork.v1.batch_pb2 import BATCH_STATE_SUCCEEDED, BatchOptions
from batchwork.v1.batch_service_pb2 import (
    BATCH_EVENT_KIND_END,
    BATCH_EVENT_KIND_GOING_AWAY,
    BATCH_EVENT_KIND_ITEM_FINISHED,
    BATCH_EVENT_KIND_SNAPSHOT,
    GetBatchRequest,
    WatchBatchRequest,
)
from batchwork_server.bootstrap import serving
from google.protobuf.duration_pb2 import Duration

from tests.rpc.api import Api, refused, told_until_refused


async def test_a_watch_starts_with_a_snapshot_and_ends_with_the_final_batch(api, processor):
    processor.gate = asyncio.Event()
    batch = await api.create_batch("a", "b")
    stream = api.batches.WatchBatch(WatchBatchRequest(batch_id=batch.batch_id))
    responses = aiter(stream)
    first = (await anext(responses)).event

    processor.gate.set()
    events = [response.event async for response in responses]

    assert first.kind == BATCH_EVENT_KIND_SNAPSHOT
    assert first.batch.counts.total == 2
    assert events[-1].kind == BATCH_EVENT_KIND_END
    assert events[-1].batch.counts.succeeded == 2
    assert await stream.code() is grpc.StatusCode.OK


async def test_a_batch_that_was_done_before_the_call_has_an_end_too(api):
    batch = await api.create_batch()
    await api.finished(batch.batch_id)

    events = await api.watch(batch.batch_id)

    assert [event.kind for event in events] == [BATCH_EVENT_KIND_SNAPSHOT, BATCH_EVENT_KIND_END]
    assert events[-1].event_type == "batch:completed"
    assert events[-1].batch.state == BATCH_STATE_SUCCEEDED


async def test_items_are_told_without_their_data_when_asked_for(api, processor):
    processor.gate = asyncio.Event()
    batch = await api.create_batch("a", "b")
    request = WatchBatchRequest(batch_id=batch.batch_id, include_items=True)
    responses = aiter(api.batches.WatchBatch(request))
    await anext(responses)

    processor.gate.set()
    events = [response.event async for response in responses]

    items = [e.item for e in events if e.kind == BATCH_EVENT_KIND_ITEM_FINISHED]
    assert sorted(item.item_id for item in items) == ["a", "b"]
    assert {item.result_json for item in items} == {"{}"}
    assert {item.data_json for item in items} == {""}


async def test_only_failed_items_are_told_when_asked_for(api, processor):
    processor.gate = asyncio.Event()
    processor.on("b", RuntimeError("broken"))
    batch = await api.create_batch("a", "b", options=BatchOptions(retry_limit=0))
    request = WatchBatchRequest(batch_id=batch.batch_id, include_items=True, only_failed_items=True)
    responses = aiter(api.batches.WatchBatch(request))
    await anext(responses)

    processor.gate.set()
    events = [response.event async for response in responses]

    told = [e.item.item_id for e in events if e.kind == BATCH_EVENT_KIND_ITEM_FINISHED]
    assert told == ["b"]


async def test_a_watch_goes_on_after_its_newest_token(api, processor):
    processor.gate = asyncio.Event()
    batch = await api.create_batch("a", "b", options=BatchOptions(chunk_size=1))
    stream = api.batches.WatchBatch(WatchBatchRequest(batch_id=batch.batch_id))
    token = (await stream.read()).event.resume_token
    stream.cancel()

    processor.gate.set()
    events = await api.watch(batch.batch_id, resume_token=token, include_items=True)

    assert BATCH_EVENT_KIND_SNAPSHOT not in [event.kind for event in events]
    told = [e.item.item_id for e in events if e.kind == BATCH_EVENT_KIND_ITEM_FINISHED]
    assert sorted(told) == ["a", "b"]
    sequences = [event.sequence for event in events]
    assert sequences == sorted(sequences)


async def test_a_token_of_another_batch_is_a_violation(api):
    one, other = await api.create_batch("a"), await api.create_batch("a")
    token = (await api.watch(one.batch_id))[0].resume_token

    request = WatchBatchRequest(batch_id=other.batch_id, resume_token=token)
    refusal = await refused(api.batches.WatchBatch(request))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == ["resume_token"]


async def test_a_batch_that_is_not_there_cannot_be_watched(api):
    refusal = await refused(api.batches.WatchBatch(WatchBatchRequest(batch_id="no-such-batch")))

    assert refusal.code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        pytest.param({"batch_id": ""}, "batch_id", id="no batch"),
        pytest.param({"resume_token": "garbage"}, "resume_token", id="garbage for a token"),
        pytest.param({"min_interval": Duration(seconds=3601)}, "min_interval", id="over an hour"),
        pytest.param({"min_interval": Duration(seconds=-1)}, "min_interval", id="negative"),
        pytest.param({"only_failed_items": True}, "only_failed_items", id="without items"),
    ],
)
async def test_bad_fields_are_violations(api, fields, path):
    batch = await api.create_batch()

    request = WatchBatchRequest(**{"batch_id": batch.batch_id} | fields)
    refusal = await refused(api.batches.WatchBatch(request))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == [path]


async def test_a_server_that_stops_tells_its_watchers(api, server, processor):
    processor.gate = asyncio.Event()
    batch = await api.create_batch()
    responses = aiter(api.batches.WatchBatch(WatchBatchRequest(batch_id=batch.batch_id)))
    await anext(responses)

    server.application.batches.watching.close()
    told, refusal = await told_until_refused(responses)

    assert told[-1].event.kind == BATCH_EVENT_KIND_GOING_AWAY
    assert told[-1].event.resume_token
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    processor.gate.set()


async def test_a_watcher_that_leaves_frees_its_place(api, server, processor):
    processor.gate = asyncio.Event()
    batch = await api.create_batch()
    leaving = api.batches.WatchBatch(WatchBatchRequest(batch_id=batch.batch_id))
    await leaving.read()

    leaving.cancel()

    async with asyncio.timeout(10):
        while server.application.watchers.count:
            await api.batches.GetBatch(GetBatchRequest(batch_id=batch.batch_id))
    processor.gate.set()


async def test_too_many_watchers_are_told_when_to_come_back(settings, processors, processor):
    processor.gate = asyncio.Event()
    one_watcher = replace(settings, max_watchers=1)
    async with (
        serving(one_watcher, processors=processors) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        api = Api(channel)
        batch = await api.create_batch()
        request = WatchBatchRequest(batch_id=batch.batch_id)
        first = api.batches.WatchBatch(request)
        await first.read()

        refusal = await refused(api.batches.WatchBatch(request))

        processor.gate.set()
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refusal.reason == "QUOTA_WATCHERS"
    assert refusal.details == ["ErrorInfo", "QuotaFailure", "RetryInfo"]
