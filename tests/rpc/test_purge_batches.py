"""PurgeBatches counts what is over, and deletes it when it is told to."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from batchwork.v1.batch_pb2 import (
    BATCH_STATE_CANCELLED,
    BATCH_STATE_FAILED,
    BATCH_STATE_PAUSED,
    BATCH_STATE_RUNNING,
    BATCH_STATE_SUCCEEDED,
    BATCH_STATE_UNSPECIFIED,
)
from batchwork.v1.batch_service_pb2 import ListBatchesRequest, PurgeBatchesRequest
from batchwork_server.errors import ItemFailed

from tests.rpc.api import ADA, BOB, Api, as_caller, refused


async def over(api: Api, *items: str, metadata: Any = (), **fields: Any) -> str:
    batch = await api.create_batch(*items, metadata=metadata, **fields)
    await api.finished(batch.batch_id, metadata=metadata)
    return batch.batch_id


async def purge(api, *, metadata=(), **fields):
    request = PurgeBatchesRequest(**{"older_than_days": 0, "force": True} | fields)
    return await api.batches.PurgeBatches(request, metadata=metadata)


async def listed(api, *, metadata=()) -> list[str]:
    found = await api.batches.ListBatches(ListBatchesRequest(), metadata=metadata)
    return [batch.batch_id for batch in found.batches]


async def test_without_force_it_only_counts(api):
    batch_ids = [await over(api, "a", "b"), await over(api, "c")]

    answer = await purge(api, force=False)

    assert (answer.batch_count, answer.item_count) == (2, 3)
    assert list(answer.sample_batch_ids) == batch_ids
    assert sorted(await listed(api)) == sorted(batch_ids)


async def test_with_force_it_deletes_what_it_counted(api):
    await over(api, "a", "b")
    await over(api, "c")
    counted = await purge(api, force=False)

    deleted = await purge(api)

    assert deleted == counted
    assert await listed(api) == []
    assert (await purge(api)).batch_count == 0


async def test_the_sample_has_the_ten_oldest(api):
    batch_ids = [await over(api, "a") for _ in range(12)]

    counted, deleted = await purge(api, force=False), await purge(api)

    assert counted.batch_count == deleted.batch_count == 12
    assert list(counted.sample_batch_ids) == list(deleted.sample_batch_ids) == batch_ids[:10]


async def test_younger_batches_stay(api):
    batch_id = await over(api, "a")

    assert (await purge(api, older_than_days=1)).batch_count == 0

    assert await listed(api) == [batch_id]


async def test_only_the_states_that_are_asked_for_are_purged(api, processor):
    processor.on("b", ItemFailed("BROKEN"))
    succeeded, failed = await over(api, "a"), await over(api, "b")

    answer = await purge(api, states=[BATCH_STATE_FAILED, BATCH_STATE_CANCELLED])

    assert list(answer.sample_batch_ids) == [failed]
    assert await listed(api) == [succeeded]


async def test_what_is_not_over_is_never_touched(api, processor):
    processor.gate = asyncio.Event()
    running = await api.create_batch("a")
    draft = await api.create_batch("b", draft=True)
    await processor.started.wait()

    answer = await purge(api)

    assert answer.batch_count == 0
    assert sorted(await listed(api)) == sorted([running.batch_id, draft.batch_id])
    processor.gate.set()
    await api.finished(running.batch_id)


async def test_the_same_request_id_gets_the_first_answer_and_deletes_nothing_else(api):
    await over(api, "a", "b")
    first = await purge(api, request_id="request-1")
    later = await over(api, "c")

    again = await purge(api, request_id="request-1")

    assert again == first
    assert (again.batch_count, again.item_count) == (1, 2)
    assert await listed(api) == [later]


async def test_a_request_id_with_other_content_is_refused(api):
    await purge(api, request_id="request-1")

    refusal = await refused(purge(api, request_id="request-1", older_than_days=3))

    assert refusal.code is grpc.StatusCode.ALREADY_EXISTS
    assert refusal.reason == "REQUEST_ID_REUSED"


async def test_counting_does_not_use_the_request_id_up(api):
    await over(api, "a")
    await purge(api, request_id="request-1", force=False)

    assert (await purge(api, request_id="request-1")).batch_count == 1


async def test_a_tenant_purges_only_its_own(guarded):
    await over(guarded, "a", metadata=as_caller(ADA))
    of_bob = await over(guarded, "a", metadata=as_caller(BOB))

    answer = await purge(guarded, metadata=as_caller(ADA))

    assert answer.batch_count == 1
    assert await listed(guarded, metadata=as_caller(BOB)) == [of_bob]


async def test_the_age_is_required(api):
    refusal = await refused(api.batches.PurgeBatches(PurgeBatchesRequest(force=True)))

    assert list(refusal.violations) == ["older_than_days"]


@pytest.mark.parametrize("days", [-1, 36_501])
async def test_an_age_has_its_bounds(api, days):
    refusal = await refused(purge(api, older_than_days=days))

    assert list(refusal.violations) == ["older_than_days"]


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(BATCH_STATE_RUNNING, id="running"),
        pytest.param(BATCH_STATE_PAUSED, id="paused"),
        pytest.param(BATCH_STATE_UNSPECIFIED, id="unspecified"),
        pytest.param(99, id="unknown"),
    ],
)
async def test_a_state_that_is_not_final_is_refused(api, state):
    refusal = await refused(purge(api, states=[BATCH_STATE_SUCCEEDED, state]))

    assert list(refusal.violations) == ["states[1]"]
