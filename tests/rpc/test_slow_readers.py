"""A reader that does not read harms nobody but itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import grpc
import pytest
from batchwork.v1.batch_pb2 import BatchOptions
from batchwork.v1.batch_service_pb2 import (
    BATCH_EVENT_KIND_END,
    BATCH_EVENT_KIND_ITEM_FINISHED,
    StreamResultsRequest,
    StreamResultsResponse,
    WatchBatchesRequest,
    WatchBatchesResponse,
    WatchBatchRequest,
)
from batchwork.v1.item_pb2 import ItemInput
from batchwork_server.bootstrap import Serving, serving
from batchwork_server.rpc import interceptors
from structlog.testing import capture_logs

from tests.rpc.api import Api, Refusal, told_until_refused

_OPTIONS = (("grpc.http2.lookahead_bytes", 65536), ("grpc.http2.bdp_probe", 0))


async def test_a_watcher_that_never_reads_is_ended_and_nobody_else_notices(
    settings, processors, processor, monkeypatch
):
    monkeypatch.setattr(interceptors, "CLEANUP", timedelta(seconds=1))
    impatient = replace(settings, write_timeout=timedelta(seconds=1))
    processor.gate = asyncio.Event()
    items = [ItemInput(item_id=f"i{n}", data_json=f'"{"x" * 100_000}"') for n in range(60)]
    with capture_logs() as logs:
        async with (
            serving(impatient, processors=processors) as server,
            grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
            # A channel of its own: streams of one connection share what can be in flight.
            grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=_OPTIONS) as slow_channel,
        ):
            api = Api(channel)
            batch = await api.create_batch(items=items, options=BatchOptions(chunk_size=10))
            request = WatchBatchRequest(batch_id=batch.batch_id, include_items=True)
            unread = aiter(Api(slow_channel).batches.WatchBatch(request))
            await anext(unread)
            good = aiter(api.batches.WatchBatch(request))
            await anext(good)

            processor.gate.set()
            told = [response.event async for response in good]
            async with asyncio.timeout(60):
                while server.application.watchers.count:
                    await api.finished(batch.batch_id)
                _, refusal = await told_until_refused(unread)

    assert told[-1].kind == BATCH_EVENT_KIND_END
    assert sum(event.kind == BATCH_EVENT_KIND_ITEM_FINISHED for event in told) == 60
    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "QUOTA_SLOW_READER",
    )
    slow_ones = [line for line in logs if line["event"] == "rpc.slow_reader"]
    assert [line["method"] for line in slow_ones] == ["/batchwork.v1.BatchService/WatchBatch"]


@pytest.fixture
async def impatient_server(settings, processors, monkeypatch) -> AsyncIterator[Serving]:
    monkeypatch.setattr(interceptors, "CLEANUP", timedelta(seconds=1))
    impatient = replace(settings, write_timeout=timedelta(seconds=1))
    async with serving(impatient, processors=processors) as server:
        yield server


@asynccontextmanager
async def api_of(server: Serving) -> AsyncIterator[Api]:
    """Calls over a connection of its own: streams of one share what can be in flight."""
    target = f"127.0.0.1:{server.port}"
    async with grpc.aio.insecure_channel(target, options=_OPTIONS) as channel:
        yield Api(channel)


async def ended(api: Api, unread: AsyncIterator[Any], logs: Sequence[Mapping[str, Any]]) -> Refusal:
    """Returns how the server ended a stream that was not read; meanwhile it answers others."""
    async with asyncio.timeout(60):
        while not any(line["event"] == "rpc.slow_reader" for line in logs):
            await api.finished("bat-1")
        _, refusal = await told_until_refused(unread)
    return refusal


async def test_results_that_nobody_reads_are_ended_and_others_get_theirs(impatient_server):
    items = [ItemInput(item_id=f"i{n}", data_json=f'"{"x" * 100_000}"') for n in range(60)]
    request = StreamResultsRequest(batch_id="bat-1")
    with capture_logs() as logs:
        async with api_of(impatient_server) as api, api_of(impatient_server) as slow:
            await api.create_batch(items=items, batch_id="bat-1")
            await api.finished("bat-1")

            unread = aiter(slow.batches.StreamResults(request))
            await anext(unread)
            read: list[StreamResultsResponse] = [
                message async for message in api.batches.StreamResults(request)
            ]
            refusal = await ended(api, unread, logs)

    assert sum(len(message.items) for message in read) == 60
    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "QUOTA_SLOW_READER",
    )


async def _read_ends(watch: AsyncIterator[WatchBatchesResponse], count: int) -> None:
    async with asyncio.timeout(60):
        while count:
            count -= (await anext(watch)).event.kind == BATCH_EVENT_KIND_END


async def test_a_watcher_of_all_batches_that_never_reads_is_ended_and_others_are_told(
    impatient_server,
):
    count = 200
    with capture_logs() as logs:
        async with api_of(impatient_server) as api, api_of(impatient_server) as slow:
            await api.create_batch(batch_id="a-draft", draft=True)
            unread = aiter(slow.batches.WatchBatches(WatchBatchesRequest()))
            await anext(unread)
            good = aiter(api.batches.WatchBatches(WatchBatchesRequest()))
            await anext(good)
            all_ended = asyncio.create_task(_read_ends(good, count))
            for number in range(1, count + 1):
                await api.create_batch(batch_id=f"bat-{number}", description="x" * 2000)

            await all_ended
            refusal = await ended(api, unread, logs)

    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "QUOTA_SLOW_READER",
    )
    slow_ones = [line["method"] for line in logs if line["event"] == "rpc.slow_reader"]
    assert slow_ones == ["/batchwork.v1.BatchService/WatchBatches"]
