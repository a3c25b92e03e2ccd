"""CancelBackfill drops what waits of a backfill and leaves the run that goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from batchwork.v1.job_service_pb2 import (
    BACKFILL_FATE_QUEUED,
    OCCURRENCE_DECISION_QUEUED,
    CancelBackfillRequest,
)

from tests.rpc.api import ADA, BOB, as_caller, make_job, refused
from tests.rpc.test_backfill_job import (
    JOB,
    fates_of,
    occurrences,
    paused,
    request_for,
    store,
)

__all__ = ["paused", "store"]


@pytest.fixture
async def backfill_id(api, paused, processor) -> AsyncIterator[str]:
    """A backfill of three due times, of which the first one runs."""
    processor.gate = asyncio.Event()
    answer = await api.jobs.BackfillJob(request_for(3))
    async with asyncio.timeout(30):
        await processor.started.wait()
    yield answer.backfill_id
    processor.gate.set()


async def test_what_waits_is_skipped_and_counted_and_the_run_goes_on(api, backfill_id, processor):
    answer = await api.jobs.CancelBackfill(CancelBackfillRequest(backfill_id=backfill_id))

    first, *rest = await occurrences(api)
    assert answer.cancelled_count == 2
    assert [(each.reason, each.backfill_id) for each in rest] == [("CANCELLED", backfill_id)] * 2
    assert rest[0].message == "Its backfill was cancelled while it waited."
    processor.gate.set()
    assert (await api.finished(first.batch_id)).counts.succeeded == 1
    assert len(processor.calls) == 1


async def test_cancelling_again_cancels_nothing_more(api, backfill_id):
    await api.jobs.CancelBackfill(CancelBackfillRequest(backfill_id=backfill_id))

    again = await api.jobs.CancelBackfill(CancelBackfillRequest(backfill_id=backfill_id))

    assert again.cancelled_count == 0


async def test_the_same_request_id_returns_the_first_count(api, backfill_id):
    request = CancelBackfillRequest(backfill_id=backfill_id, request_id="request-1")

    counts = [(await api.jobs.CancelBackfill(request)).cancelled_count for _ in range(2)]

    assert counts == [2, 2]


async def test_what_was_cancelled_can_be_backfilled_again(api, backfill_id, processor):
    await api.jobs.CancelBackfill(CancelBackfillRequest(backfill_id=backfill_id))

    again = await api.jobs.BackfillJob(request_for(3))

    assert fates_of(again)[1:] == [BACKFILL_FATE_QUEUED] * 2
    assert again.backfill_id != backfill_id
    waiting = await occurrences(api, backfill_id=again.backfill_id)
    assert [each.decision for each in waiting] == [OCCURRENCE_DECISION_QUEUED] * 2


async def test_a_backfill_that_nobody_knows_is_not_found(api):
    refusal = await refused(
        api.jobs.CancelBackfill(CancelBackfillRequest(backfill_id="bfl_nothing"))
    )

    assert refusal.code is grpc.StatusCode.NOT_FOUND


async def test_the_backfill_of_another_tenant_is_not_there(guarded):
    job = make_job(JOB, schedule={"frequency": "hourly"})
    await guarded.import_jobs(job, metadata=as_caller(ADA))
    answer = await guarded.jobs.BackfillJob(request_for(3), metadata=as_caller(ADA))
    request = CancelBackfillRequest(backfill_id=answer.backfill_id)

    refusal = await refused(guarded.jobs.CancelBackfill(request, metadata=as_caller(BOB)))

    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert answer.backfill_id


async def test_all_that_is_wrong_is_answered_at_once(api):
    refusal = await refused(
        api.jobs.CancelBackfill(CancelBackfillRequest(backfill_id="?", request_id="r\n"))
    )

    assert sorted(refusal.violations) == ["backfill_id", "request_id"]
