"""GetBatch returns a batch as it is."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from batchwork.v1.batch_pb2 import (
    BATCH_STATE_CANCELLED,
    BATCH_STATE_DRAFT,
    BATCH_STATE_SUCCEEDED,
    BatchOptions,
)
from batchwork.v1.batch_service_pb2 import CancelBatchRequest, GetBatchRequest, PauseBatchRequest
from batchwork.v1.job_pb2 import PRIORITY_LOW
from batchwork_server.bootstrap import serving
from batchwork_server.errors import ItemFailed

from tests.rpc.api import Api, refused, until


async def test_a_finished_batch_tells_what_became_of_its_items(api):
    created = await api.create_batch("a", "b")
    await api.finished(created.batch_id)

    response = await api.batches.GetBatch(GetBatchRequest(batch_id=created.batch_id))

    assert response.batch.state == BATCH_STATE_SUCCEEDED
    assert response.batch.counts.succeeded == 2
    assert response.batch.progress_ratio == 1.0
    assert response.batch.HasField("end_time")


async def test_a_batch_that_is_not_there_is_named(api):
    refusal = await refused(api.batches.GetBatch(GetBatchRequest(batch_id="no-such-batch")))

    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert refusal.message == "There is no batch 'no-such-batch'."
    assert refusal.details == ["ErrorInfo", "ResourceInfo"]


async def test_an_id_that_no_batch_can_have_is_a_violation(api):
    refusal = await refused(api.batches.GetBatch(GetBatchRequest(batch_id="a\0b")))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == ["batch_id"]


async def test_a_missing_id_is_a_violation(api):
    refusal = await refused(api.batches.GetBatch(GetBatchRequest()))

    assert refusal.violations == {"batch_id": "This field is required."}


# What a batch waits for


@pytest.mark.arrow("batch A")
async def test_a_draft_waits_to_be_sealed(api):
    batch = await api.create_batch("a", draft=True)

    [wait] = (await until(api, batch.batch_id, lambda batch: True)).wait_reasons

    assert batch.state == BATCH_STATE_DRAFT
    assert wait.reason == "NOT_SEALED"


async def test_a_paused_batch_waits_for_whoever_paused_it(api, processor):
    processor.gate = asyncio.Event()
    batch = await api.create_batch()
    await api.batches.PauseBatch(PauseBatchRequest(batch_id=batch.batch_id, note="Until noon."))

    [wait] = (await until(api, batch.batch_id, lambda batch: True)).wait_reasons

    assert (wait.reason, wait.message) == ("PAUSED_BY_CALLER", "Until noon.")
    assert not wait.HasField("until")
    processor.gate.set()


async def test_a_batch_whose_items_all_wait_for_a_retry_says_until_when(api, processor):
    hour = timedelta(hours=1)
    processor.on("item-1", ItemFailed("BUSY", retryable=True, retry_after=hour))
    begin = datetime.now(UTC)
    batch = await api.create_batch()

    waiting = await until(api, batch.batch_id, lambda batch: batch.counts.retries == 1)

    [wait] = waiting.wait_reasons
    assert wait.reason == "RETRY_BACKOFF"
    assert wait.until.ToDatetime(UTC) >= begin + hour


async def test_a_batch_behind_others_says_so(settings, processors, processor):
    processor.gate = asyncio.Event()
    one_slot = replace(settings, max_concurrent_items=1)
    async with (
        serving(one_slot, processors=processors) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        api = Api(channel)
        await api.create_batch("a", "b", "c", "d", options=BatchOptions(chunk_size=1))
        await processor.started.wait()
        last = await api.create_batch(options=BatchOptions(priority=PRIORITY_LOW))

        waiting = await until(api, last.batch_id, lambda batch: bool(batch.wait_reasons))
        processor.gate.set()
        done = await api.finished(last.batch_id)

    assert [wait.reason for wait in waiting.wait_reasons] == ["BEHIND_OTHER_WORK"]
    assert not done.wait_reasons


async def test_a_batch_that_bounds_itself_says_so(api, processor):
    processor.gate = asyncio.Event()
    batch = await api.create_batch("a", "b", options=BatchOptions(max_concurrent_items=1))

    waiting = await until(api, batch.batch_id, lambda batch: batch.counts.running == 2)
    processor.gate.set()

    assert [wait.reason for wait in waiting.wait_reasons] == ["CONCURRENCY_LIMIT"]


async def test_where_processing_is_switched_off_a_batch_waits_and_can_be_cancelled(
    settings, processors, processor
):
    switched_off = replace(settings, processing=False)
    async with (
        serving(switched_off, processors=processors) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        api = Api(channel)
        batch = await api.create_batch("a", "b")
        waiting = await until(api, batch.batch_id, lambda batch: bool(batch.wait_reasons))
        await api.batches.CancelBatch(CancelBatchRequest(batch_id=batch.batch_id))
        done = await api.finished(batch.batch_id)

    assert [wait.reason for wait in waiting.wait_reasons] == ["PROCESSING_DISABLED"]
    assert (done.state, done.counts.cancelled) == (BATCH_STATE_CANCELLED, 2)
    assert processor.calls == []


async def test_a_batch_that_goes_on_waits_for_nothing(api, processor):
    processor.gate = asyncio.Event()
    batch = await api.create_batch()

    running = await until(api, batch.batch_id, lambda batch: batch.counts.running == 1)
    processor.gate.set()

    assert not running.wait_reasons
