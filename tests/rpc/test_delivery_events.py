"""DELIVERY: watches tell that results were distributed, and to how many."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from batchwork.v1.batch_pb2 import BatchState
from batchwork.v1.batch_service_pb2 import (
    BatchEvent,
    BatchEventKind,
    CancelBatchRequest,
    CancelMode,
    RetryBatchRequest,
    WatchBatchesRequest,
    WatchBatchRequest,
)
from batchwork.v1.job_service_pb2 import RunJobRequest
from batchwork_server.errors import ItemFailed

from tests.rpc.api import Api, make_job
from tests.rpc.test_list_references import EDITORS, posts  # noqa: F401  # fixture
from tests.rpc.test_own_references import wishing  # noqa: F401  # fixture


async def told_of(api: Api, job_id: str, **fields: Any) -> list[BatchEvent]:
    """Runs a job and returns what a watch of its batch tells."""
    response = await api.jobs.RunJob(RunJobRequest(job_id=job_id))
    return await api.watch(response.batch.batch_id, **fields)


async def prefer(api: Api, **fields: Any) -> None:
    """Imports a job that gives each user who wishes posts their own."""
    job = {"preference_based": True, "feature_type": "posts", "distribute_results": True}
    made = make_job("job-pref", **job | fields)
    del made["category"]
    await api.import_jobs(made)


def deliveries(events: list[BatchEvent]) -> list[tuple[int, int]]:
    return [
        (event.delivery.delivered, event.delivery.failed)
        for event in events
        if event.kind == BatchEventKind.BATCH_EVENT_KIND_DELIVERY
    ]


@pytest.mark.usefixtures("posts")
async def test_a_delivery_is_told_just_before_the_end(api):
    await api.import_jobs(make_job(**EDITORS))

    events = await told_of(api, "job-1")
    *_, delivery, end = events

    assert delivery.kind == BatchEventKind.BATCH_EVENT_KIND_DELIVERY
    assert end.kind == BatchEventKind.BATCH_EVENT_KIND_END
    assert delivery.event_type == "batch:delivered"
    assert end.sequence == delivery.sequence + 1
    assert deliveries(events) == [(2, 0)]


@pytest.mark.usefixtures("posts")
async def test_a_watch_goes_on_after_a_delivery(api):
    await api.import_jobs(make_job(**EDITORS))
    *_, delivery, _ = await told_of(api, "job-1")

    [end] = await api.watch(delivery.batch_id, resume_token=delivery.resume_token)

    assert end.kind == BatchEventKind.BATCH_EVENT_KIND_END


@pytest.mark.usefixtures("posts")
async def test_a_batch_that_gives_nothing_tells_of_no_delivery(api):
    await api.import_jobs(make_job())

    assert deliveries(await told_of(api, "job-1")) == []


@pytest.mark.usefixtures("posts")
async def test_each_end_of_a_batch_delivers(api, processor):
    processor.on("post-1", ItemFailed("BROKEN", "It is broken.", retryable=False))
    users = {"users": ["ada", "bob", "nobody"]}
    await api.import_jobs(make_job(distribute_results=True, distribution=users))

    first = await told_of(api, "job-1")
    batch_id = first[0].batch_id
    await api.batches.RetryBatch(RetryBatchRequest(batch_id=batch_id))
    second = await api.watch(batch_id, resume_token=first[-1].resume_token)

    assert deliveries(first) == [(0, 3)]
    assert deliveries(second) == [(2, 1)]


@pytest.mark.usefixtures("posts")
async def test_a_batch_that_is_cancelled_delivers_nothing_and_says_so(api, processor):
    processor.gate = asyncio.Event()
    await api.import_jobs(make_job(**EDITORS))
    run = await api.jobs.RunJob(RunJobRequest(job_id="job-1"))
    batch_id = run.batch.batch_id
    await processor.started.wait()
    stream = api.batches.WatchBatch(WatchBatchRequest(batch_id=batch_id))
    snapshot = (await stream.read()).event
    stream.cancel()

    mode = CancelMode.CANCEL_MODE_STOP_IN_FLIGHT
    await api.batches.CancelBatch(CancelBatchRequest(batch_id=batch_id, mode=mode))
    told = await api.watch(batch_id, resume_token=snapshot.resume_token)

    assert told[-1].batch.state == BatchState.BATCH_STATE_CANCELLED
    assert deliveries(told) == [(0, 2)]


@pytest.mark.usefixtures("wishing")
@pytest.mark.parametrize("shape", ["individual", "object"])
async def test_own_results_are_counted_by_user(api, shape):
    await prefer(api, type=shape, distribution={"users": ["bob"]})

    assert deliveries(await told_of(api, "job-pref")) == [(3, 1)]


async def test_a_batch_that_is_over_at_once_delivers_as_well(api, server):
    await prefer(api)
    token = await newest_token(api)

    response = await api.jobs.RunJob(RunJobRequest(job_id="job-pref"))
    events = await api.watch(response.batch.batch_id)
    told = await told_of_all(api, token)

    assert [event.kind for event in events][-1] == BatchEventKind.BATCH_EVENT_KIND_END
    assert deliveries(told) == [(0, 0)]


async def newest_token(api: Api) -> str:
    """Returns a token of now: that of the snapshot of a batch that is not over."""
    await api.create_batch(batch_id="bat-open", draft=True)
    stream = api.batches.WatchBatches(WatchBatchesRequest())
    async for response in stream:
        stream.cancel()
        return str(response.event.resume_token)
    raise AssertionError("The stream ended.")


async def told_of_all(api: Api, token: str) -> list[BatchEvent]:
    """Returns what a watch of all batches tells after a token, up to the next end."""
    told = []
    stream = api.batches.WatchBatches(WatchBatchesRequest(resume_token=token))
    async for response in stream:
        told.append(response.event)
        if response.event.kind == BatchEventKind.BATCH_EVENT_KIND_END:
            stream.cancel()
            break
    return told
