"""A server that is killed in the middle of its work, and what its successor makes of that."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from batchwork.v1.batch_pb2 import Batch, BatchOptions, BatchState
from batchwork.v1.item_pb2 import ItemState
from batchwork_client import Batchwork, connect
from batchwork_server.store.database import open_database
from batchwork_server.store.sql_store import SqlStore

from tests.e2e.conftest import StartServer
from tests.long import times

ITEMS = 2000


async def submit(client: Batchwork, *, count: int = ITEMS, template_id: str = "telling") -> Batch:
    return await client.batches.create_batch(
        [(f"item-{n}", {"n": n}) for n in range(count)], template_id=template_id
    )


Outcome = tuple[str, int, str, int]


async def outcomes_of(client: Batchwork, batch: Batch) -> Counter[Outcome]:
    return Counter(
        [
            (item.item_id, item.state, item.result_json, item.attempt_count)
            async for item in client.batches.list_items(batch.batch_id)
        ]
    )


def assert_exactly_once(batch: Batch, outcomes: Counter[Outcome], processed: list[str]) -> None:
    """Every item has one outcome, and was processed at least once, always under the same key."""
    assert batch.state == BatchState.BATCH_STATE_SUCCEEDED
    assert batch.counts.succeeded == batch.counts.total == ITEMS
    assert outcomes == Counter(
        (f"item-{n}", ItemState.ITEM_STATE_SUCCEEDED, f'{{"item":"item-{n}"}}', 1)
        for n in range(ITEMS)
    )
    assert set(processed) == {f"{batch.batch_id}/item-{n}" for n in range(ITEMS)}


async def assert_counts_are_true(database_url: str, batch_id: str) -> None:
    database = await open_database(database_url)
    store = SqlStore(database)
    batch = await store.batches.get(batch_id, tenant_id=None)
    assert batch is not None
    kept, counted = await store.chunks.check_counts(batch.key)
    await database.close()
    assert kept == counted


async def test_a_batch_survives_kills_at_random_points(start_server: StartServer, sqlite_url: str):
    chance = random.Random(20260315)  # the same points in every run, as far as machines agree
    processed: list[str] = []
    server = await start_server(sqlite_url)
    async with connect(server.target) as client:
        batch = await submit(client)
    for _ in range(times(8, long=30)):
        await server.until_processed(chance.randrange(1, 100))
        await server.kill()
        processed += server.processed
        await assert_counts_are_true(sqlite_url, batch.batch_id)
        server = await start_server(sqlite_url)

    async with connect(server.target) as client:
        batch = await client.batches.wait_for_batch(batch.batch_id)
        outcomes = await outcomes_of(client, batch)
    assert await server.terminate() == 0
    assert_exactly_once(batch, outcomes, processed + server.processed)


@pytest.mark.parametrize("kills", [2])
async def test_on_postgresql_the_lease_decides_when_work_goes_on(
    start_server: StartServer, postgresql_url: str, kills: int
):
    processed: list[str] = []
    server = await start_server(postgresql_url, BATCHWORK_LEASE="3")
    async with connect(server.target) as client:
        batch = await submit(client)
    for _ in range(kills):
        await server.until_processed(200)
        await server.kill()
        processed += server.processed
        server = await start_server(postgresql_url, BATCHWORK_LEASE="3")

    async with connect(server.target) as client:
        batch = await client.batches.wait_for_batch(batch.batch_id)
        outcomes = await outcomes_of(client, batch)
    assert await server.terminate() == 0
    assert_exactly_once(batch, outcomes, processed + server.processed)
    await assert_counts_are_true(postgresql_url, batch.batch_id)


async def test_a_server_that_is_told_to_stop_gives_back_what_it_cannot_finish(
    start_server: StartServer, sqlite_url: str
):
    server = await start_server(sqlite_url, BATCHWORK_SHUTDOWN_GRACE="0")
    async with connect(server.target) as client:
        batch = await submit(client, count=100, template_id="slow")
        await client.batches.get_batch(batch.batch_id)

    code = await server.terminate()

    assert code == 0
    database = await open_database(sqlite_url)
    store = SqlStore(database)
    stored = await store.batches.get(batch.batch_id, tenant_id="default")
    kept, counted = await store.chunks.check_counts(stored.key)
    await database.close()
    assert kept == counted
    assert (kept.pending, kept.running, kept.failed) == (100, 0, 0)


async def test_what_waits_for_its_time_waits_through_a_kill(
    start_server: StartServer, sqlite_url: str
):
    server = await start_server(sqlite_url, TEST_PROVIDER_IS_AWAY="1")
    async with connect(server.target) as client:
        retried, paused = [
            await client.batches.create_batch(
                [(item_id, {})], template_id="faulty", options=BatchOptions(retry_limit=1)
            )
            for item_id in ("busy-0", "limited-0")
        ]
        async with asyncio.timeout(60):
            while retried.counts.retries == 0 or paused.state != BatchState.BATCH_STATE_PAUSED:
                retried = await client.batches.get_batch(retried.batch_id)
                paused = await client.batches.get_batch(paused.batch_id)
        waiting = await client.batches.get_item(retried.batch_id, item_id="busy-0")
    await server.kill()

    server = await start_server(sqlite_url)
    async with connect(server.target) as client:
        retried = await client.batches.wait_for_batch(retried.batch_id)
        resumed = await client.batches.wait_for_batch(paused.batch_id)
        second = await client.batches.get_item(retried.batch_id, item_id="busy-0")
        only = await client.batches.get_item(resumed.batch_id, item_id="limited-0")
    assert await server.terminate() == 0

    assert (retried.counts.succeeded, retried.counts.retries) == (1, 1)
    assert second.attempt_count == 2
    due = waiting.next_attempt_time.ToDatetime()
    assert second.start_time.ToDatetime() >= due, "the retry did not come early"
    assert (resumed.counts.succeeded, only.attempt_count) == (1, 1)
    assert only.start_time.ToDatetime() >= paused.resume_time.ToDatetime()


async def test_a_second_server_on_the_same_file_is_refused(
    start_server: StartServer, sqlite_url: str, tmp_path
):
    server = await start_server(sqlite_url)

    with pytest.raises(AssertionError):  # it ends before it names a port
        await start_server(sqlite_url)

    assert "Another server (process" in (tmp_path / "server.log").read_text()
    assert server.is_running
