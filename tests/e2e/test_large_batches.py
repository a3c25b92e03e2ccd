"""A large batch goes in and comes out whole, over servers that are killed meanwhile."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

from batchwork.v1.batch_pb2 import BatchState
from batchwork_client import Batchwork, connect

from tests.e2e.conftest import ServerProcess, StartServer
from tests.e2e.test_kill import assert_counts_are_true

ITEMS = 12_000


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


async def create_draft(client: Batchwork) -> str:
    batch = await client.batches.create_batch(draft=True, template_id="telling")
    return batch.batch_id


def numbered(count: int) -> Iterator[tuple[str, Any]]:
    return ((f"item-{n}", {"n": n}) for n in range(count))


async def test_an_upload_survives_a_kill_in_its_middle(start_server: StartServer, sqlite_url: str):
    listen = f"127.0.0.1:{free_port()}"
    server = await start_server(sqlite_url, BATCHWORK_LISTEN=listen)

    async def killed_in_the_middle() -> AsyncIterator[tuple[str, Any]]:
        for n, pair in enumerate(numbered(ITEMS)):
            if n == 7000:
                await server.kill()
                await start_server(sqlite_url, BATCHWORK_LISTEN=listen)
            yield pair

    async with connect(listen) as client:
        batch_id = await create_draft(client)
        answer = await client.batches.upload_items(batch_id, killed_in_the_middle())
        draft = await client.batches.get_batch(batch_id)
        await client.batches.cancel_batch(batch_id)

    assert answer.next_offset == draft.upload_offset == draft.counts.total == ITEMS


async def test_results_are_followed_over_a_kill(start_server: StartServer, sqlite_url: str):
    count = 2000
    listen = f"127.0.0.1:{free_port()}"
    server = await start_server(sqlite_url, BATCHWORK_LISTEN=listen)
    servers: list[ServerProcess] = [server]
    found: list[str] = []

    async with connect(listen) as client:
        batch_id = await create_draft(client)
        await client.batches.upload_items(batch_id, numbered(count))
        await client.batches.seal_batch(batch_id, expected_count=count)
        async with asyncio.timeout(120):
            async for item in client.batches.stream_results(batch_id, follow=True):
                found.append(item.item_id)
                if len(found) == 100:
                    await servers[-1].kill()
                    servers.append(await start_server(sqlite_url, BATCHWORK_LISTEN=listen))
        batch = await client.batches.get_batch(batch_id)
    assert await servers[-1].terminate() == 0

    assert batch.state == BatchState.BATCH_STATE_SUCCEEDED
    assert sorted(found) == sorted(f"item-{n}" for n in range(count))
    await assert_counts_are_true(sqlite_url, batch_id)
