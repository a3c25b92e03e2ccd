"""Chunks of a paused batch that a claim has locked when the batch goes on, on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import sqlalchemy as sa
from batchwork_server.domain.batch import Batch, BatchState, StateReason
from batchwork_server.store.database import Database, open_database
from batchwork_server.store.sql_store import SqlStore

from tests.fakes import START
from tests.store.test_chunks import claim, current, insert

Step = Callable[[SqlStore, Batch], Coroutine[Any, Any, Batch | None]]

_LOCK_CHUNKS = sa.text("SELECT chunk_key FROM chunks FOR UPDATE")
_WAITING = sa.text("SELECT COUNT(*) FROM pg_locks WHERE NOT granted")


@pytest.fixture
async def database(postgresql_url: str) -> AsyncIterator[Database]:
    opened = await open_database(postgresql_url)
    yield opened
    await opened.close()


async def pause(store: SqlStore, batch: Batch) -> Batch | None:
    async with store.transaction() as tx:
        return await store.changes.pause(
            tx,
            batch.key,
            reason=StateReason.PAUSED_BY_CALLER,
            message="",
            resume_time=None,
            now=START,
        )


async def resume(store: SqlStore, batch: Batch) -> Batch | None:
    async with store.transaction() as tx:
        return await store.changes.resume(tx, batch.key, now=START)


async def cancel(store: SqlStore, batch: Batch) -> Batch | None:
    async with store.transaction() as tx:
        return await store.changes.close(
            tx,
            batch.key,
            closing=BatchState.CANCELLED,
            reason=StateReason.CANCELLED_BY_CALLER,
            message="",
            stop_in_flight=False,
            now=START,
        )


async def while_chunks_are_locked(
    database: Database, store: SqlStore, batch: Batch, step: Step
) -> None:
    """Takes a step while another transaction has the chunks, as one that came too late has."""
    async with database.transaction() as tx:
        await tx.connection.execute(_LOCK_CHUNKS)
        stepping = asyncio.create_task(step(store, batch))
        while not stepping.done() and not await _somebody_waits(database):
            pass
    await stepping


async def _somebody_waits(database: Database) -> bool:
    async with database.reading() as connection:
        return bool((await connection.execute(_WAITING)).scalar_one())


async def test_a_batch_goes_on_with_chunks_that_somebody_had_locked(database, store):
    batch = await insert(store, 10)
    await pause(store, batch)

    await while_chunks_are_locked(database, store, batch, resume)

    [chunk] = await claim(store)
    assert len(chunk.items) == 10


async def test_a_cancellation_closes_chunks_that_somebody_had_locked(database, store):
    batch = await insert(store, 10)
    await pause(store, batch)

    await while_chunks_are_locked(database, store, batch, cancel)
    while await store.changes.close_some(now=START):
        pass

    assert (await current(store, batch)).state is BatchState.CANCELLED
