"""A reader that does not read harms nobody but itself."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import grpc
from batchwork.v1.batch_pb2 import BatchOptions
from batchwork.v1.batch_service_pb2 import (
    BATCH_EVENT_KIND_END,
    BATCH_EVENT_KIND_ITEM_FINISHED,
    WatchBatchRequest,
)
from batchwork.v1.item_pb2 import ItemInput
from batchwork_server.bootstrap import serving
from batchwork_server.rpc import interceptors
from structlog.testing import capture_logs

from tests.rpc.api import Api, told_until_refused

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
                while server.application.watching.watchers:
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
