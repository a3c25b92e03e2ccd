"""Processors that misbehave, and servers that are told to stop while items are in flight."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from batchwork.v1.batch_pb2 import Batch, BatchOptions
from batchwork.v1.item_pb2 import Item, ItemState
from batchwork_client import Batchwork, connect

from tests.e2e.conftest import StartServer
from tests.e2e.test_kill import assert_counts_are_true
from tests.long import times

SUCCEEDED, FAILED = ItemState.ITEM_STATE_SUCCEEDED, ItemState.ITEM_STATE_FAILED
OTHERS = [f"fine-{n}" for n in range(20)]


async def submit(client: Batchwork, *item_ids: str, timeout: float = 30) -> Batch:
    options = BatchOptions(chunk_size=50, retry_limit=0)
    options.item_timeout.FromTimedelta(timedelta(seconds=timeout))
    return await client.batches.create_batch(
        [(item_id, {}) for item_id in (*item_ids, *OTHERS)],
        template_id="faulty",
        options=options,
    )


async def items_of(client: Batchwork, batch: Batch) -> dict[str, Item]:
    return {item.item_id: item async for item in client.batches.list_items(batch.batch_id)}


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        ("error", "PROCESSOR_ERROR"),
        ("base", "PROCESSOR_ERROR"),
        ("exit", "PROCESSOR_ERROR"),
        ("interrupt", "PROCESSOR_ERROR"),
        ("generator", "PROCESSOR_ERROR"),
        ("large", "RESULT_TOO_LARGE"),
        ("hang", "ITEM_TIMEOUT"),
        ("stubborn", "ITEM_TIMEOUT"),
    ],
)
async def test_only_the_item_fails_and_the_server_lives(
    start_server: StartServer, sqlite_url: str, deed: str, reason: str
):
    server = await start_server(sqlite_url, BATCHWORK_SHUTDOWN_GRACE="1")
    async with connect(server.target) as client:
        batch = await submit(client, f"{deed}-0", timeout=0.3)
        done = await client.batches.wait_for_batch(batch.batch_id)
        items = await items_of(client, done)
        next_one = await client.batches.wait_for_batch((await submit(client)).batch_id)
    code = await server.terminate()

    assert code == 0
    assert (items[f"{deed}-0"].state, items[f"{deed}-0"].error.reason) == (FAILED, reason)
    assert {items[item_id].state for item_id in OTHERS} == {SUCCEEDED}
    assert next_one.counts.succeeded == len(OTHERS)


async def test_a_processor_that_blocks_the_loop_only_delays_the_others(
    start_server: StartServer, sqlite_url: str
):
    server = await start_server(sqlite_url)
    async with connect(server.target) as client:
        batch = await submit(client, "block-0", "block-1")
        done = await client.batches.wait_for_batch(batch.batch_id)
    await server.terminate()

    assert done.counts.succeeded == len(OTHERS) + 2


async def test_an_item_that_kills_its_process_is_poison_after_three_crashes(
    start_server: StartServer, sqlite_url: str
):
    server = await start_server(sqlite_url)
    async with connect(server.target) as client:
        batch = await submit(client, "die-0")
        codes = [await server.ended()]
    for _ in range(2):
        server = await start_server(sqlite_url)
        codes.append(await server.ended())

    server = await start_server(sqlite_url)
    async with connect(server.target) as client:
        done = await client.batches.wait_for_batch(batch.batch_id)
        items = await items_of(client, done)
    assert await server.terminate() == 0

    assert codes == [3, 3, 3]
    assert (items["die-0"].state, items["die-0"].error.reason) == (FAILED, "POISON")
    assert {items[item_id].state for item_id in OTHERS} == {SUCCEEDED}
    await assert_counts_are_true(sqlite_url, batch.batch_id)


async def test_a_server_that_is_told_to_stop_again_and_again_fails_no_item(
    start_server: StartServer, sqlite_url: str
):
    stops = times(5, long=50)
    count = 400
    server = await start_server(sqlite_url, BATCHWORK_SHUTDOWN_GRACE="0")
    async with connect(server.target) as client:
        batch = await client.batches.create_batch(
            [(f"item-{n}", {}) for n in range(count)], template_id="paced"
        )
    codes = []
    for _ in range(stops):
        await server.until_processed(10)
        codes.append(await server.terminate())
        server = await start_server(sqlite_url, BATCHWORK_SHUTDOWN_GRACE="0")
    async with connect(server.target) as client:
        async with asyncio.timeout(120):
            done = await client.batches.wait_for_batch(batch.batch_id)
        attempts = [i.attempt_count async for i in client.batches.list_items(batch.batch_id)]
    await server.terminate()

    assert codes == [0] * stops
    assert done.counts.succeeded == count
    assert attempts == [1] * count
    await assert_counts_are_true(sqlite_url, batch.batch_id)
