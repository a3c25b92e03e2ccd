"""StreamResults brings every finished item once, over streams that do not last."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from batchwork.v1.batch_pb2 import BatchOptions
from batchwork.v1.batch_service_pb2 import (
    RetryBatchRequest,
    StreamResultsRequest,
    StreamResultsResponse,
)
from batchwork.v1.item_pb2 import (
    ITEM_STATE_FAILED,
    ITEM_STATE_PENDING,
    ITEM_STATE_SUCCEEDED,
    ItemInput,
)

from tests.rpc.api import ADA, BOB, OLGA, as_caller, refused, told_until_refused

NO_RETRY = BatchOptions(retry_limit=0, chunk_size=10)


async def streamed(api, **fields: Any) -> list[StreamResultsResponse]:
    stream = api.batches.StreamResults(StreamResultsRequest(batch_id="bat-1", **fields))
    return [message async for message in stream]


def ids_in(messages: list[StreamResultsResponse]) -> list[str]:
    return [item.item_id for message in messages for item in message.items]


async def done(api, count: int = 3, **fields: Any) -> list[str]:
    """Runs a batch to its end, and returns the ids of its items."""
    item_ids = [f"item-{n}" for n in range(count)]
    await api.create_batch(*item_ids, batch_id="bat-1", **fields)
    await api.finished("bat-1")
    return item_ids


async def test_all_items_of_a_batch_that_is_over_come_once(api):
    item_ids = await done(api, 1200)

    messages = await streamed(api)

    assert [len(message.items) for message in messages] == [500, 500, 200]
    assert sorted(ids_in(messages)) == sorted(item_ids)
    assert {item.state for message in messages for item in message.items} == {ITEM_STATE_SUCCEEDED}
    first = messages[0].items[0]
    assert (first.data_json, first.result_json, first.attempt_count) == ("{}", "{}", 1)


async def test_a_stream_goes_on_after_a_token(api):
    await done(api, 1200)
    messages = await streamed(api)

    rest = await streamed(api, resume_token=messages[0].resume_token)

    assert ids_in(rest) == ids_in(messages[1:])
    assert await streamed(api, resume_token=messages[-1].resume_token) == []


async def test_only_items_in_the_states_that_were_asked_for_come(api, processor):
    processor.on("item-1", RuntimeError("broken"))
    await done(api, options=NO_RETRY)

    messages = await streamed(api, states=[ITEM_STATE_FAILED])

    assert ids_in(messages) == ["item-1"]
    refusal = await refused(
        api.batches.StreamResults(
            StreamResultsRequest(batch_id="bat-1", resume_token=messages[0].resume_token)
        )
    )
    assert set(refusal.violations) == {"resume_token"}


async def test_the_input_can_be_left_out(api):
    await api.create_batch(
        batch_id="bat-1", items=[ItemInput(data_json='{"n": 1}')], operation="echo"
    )
    await api.finished("bat-1")

    [message] = await streamed(api, without_data=True)

    assert message.items[0].data_json == ""
    assert message.items[0].result_json != ""


async def test_a_stream_that_does_not_follow_ends_with_what_is_finished(api, processor):
    processor.gate = asyncio.Event()
    await api.create_batch(
        batch_id="bat-1", items=[ItemInput(item_id="a"), ItemInput(item_id="b", user_id="nobody")]
    )

    assert ids_in(await streamed(api)) == ["b"]
    processor.gate.set()


async def test_a_stream_that_follows_ends_with_the_batch(api, processor):
    processor.gate = asyncio.Event()
    item_ids = [f"item-{n}" for n in range(30)]
    await api.create_batch(*item_ids, batch_id="bat-1", options=NO_RETRY)
    request = StreamResultsRequest(batch_id="bat-1", follow=True)
    stream = api.batches.StreamResults(request)
    following = asyncio.create_task(anext(aiter(stream)))
    await processor.started.wait()

    processor.gate.set()
    async with asyncio.timeout(30):
        found = ids_in([await following])
        async for message in stream:
            found += ids_in([message])

    assert sorted(found) == sorted(item_ids)
    assert await stream.code() is grpc.StatusCode.OK


async def test_an_item_that_was_retried_comes_once_with_its_last_outcome(api, processor):
    processor.on("item-1", RuntimeError("broken"))
    await done(api, options=NO_RETRY)

    await api.batches.RetryBatch(RetryBatchRequest(batch_id="bat-1"))
    await api.finished("bat-1")
    messages = await streamed(api)

    assert ids_in(messages) == ["item-0", "item-2", "item-1"]
    assert messages[-1].items[-1].state == ITEM_STATE_SUCCEEDED


async def test_a_server_that_stops_says_so_and_another_stream_goes_on(api, server, processor):
    processor.gate = asyncio.Event()
    await api.create_batch(
        batch_id="bat-1", items=[ItemInput(item_id="a"), ItemInput(item_id="b", user_id="nobody")]
    )
    stream = api.batches.StreamResults(StreamResultsRequest(batch_id="bat-1", follow=True))
    first = await anext(aiter(stream))

    server.application.batches.results.close()
    rest, refusal = await told_until_refused(stream)

    assert ids_in([first, *rest]) == ["b"]
    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert refusal.reason == "SHUTTING_DOWN"
    processor.gate.set()


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        pytest.param({"resume_token": "x"}, "resume_token", id="no token"),
        pytest.param({"states": [ITEM_STATE_PENDING]}, "states[0]", id="not final"),
        pytest.param({"states": [0]}, "states[0]", id="no state"),
        pytest.param({"batch_id": "no id"}, "batch_id", id="no id"),
    ],
)
async def test_what_a_stream_cannot_be_is_refused(api, fields, path):
    await api.create_batch("a", batch_id="bat-1")

    request = StreamResultsRequest(**{"batch_id": "bat-1"} | fields)
    refusal = await refused(api.batches.StreamResults(request))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {path}


async def test_results_are_the_tenants_own(guarded):
    await guarded.create_batch("a", batch_id="bat-1", metadata=as_caller(ADA))
    await guarded.finished("bat-1", metadata=as_caller(ADA))
    request = StreamResultsRequest(batch_id="bat-1")

    refusal = await refused(guarded.batches.StreamResults(request, metadata=as_caller(BOB)))

    assert refusal.code is grpc.StatusCode.NOT_FOUND
    request = StreamResultsRequest(batch_id="bat-1", tenant_id="blue")
    stream = guarded.batches.StreamResults(request, metadata=as_caller(OLGA))
    assert ids_in([message async for message in stream]) == ["a"]


async def test_only_the_items_of_a_user_come_when_one_is_named(api):
    items = [ItemInput(item_id=f"item-{n}", user_id=f"user-{n % 3}") for n in range(1200)]
    await api.create_batch(batch_id="bat-1", items=items)
    await api.finished("bat-1")

    messages = await streamed(api, user_id="user-2")
    rest = await streamed(api, user_id="user-2", resume_token=messages[0].resume_token)
    refusal = await refused(
        api.batches.StreamResults(
            StreamResultsRequest(
                batch_id="bat-1", user_id="user-1", resume_token=messages[0].resume_token
            )
        )
    )

    assert sorted(ids_in(messages)) == sorted(f"item-{n}" for n in range(2, 1200, 3))
    assert ids_in(messages[:1]) + ids_in(rest) == ids_in(messages)
    assert list(refusal.violations) == ["resume_token"]
    assert ids_in(await streamed(api, user_id="nobody")) == []
