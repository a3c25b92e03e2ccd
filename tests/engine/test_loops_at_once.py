"""Two servers run the same loops over one database, and neither harms what the other does."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from batchwork_server.domain.batch import Batch, BatchState, Counts, StateReason
from batchwork_server.engine.closing import Closing
from batchwork_server.engine.deadlines import Deadlines
from batchwork_server.engine.recovery import Recovery
from batchwork_server.store.database import Database
from batchwork_server.store.sql_store import SqlStore
from batchwork_server.wakeups import Wakeups

from tests.fakes import START, FakeClock
from tests.store.test_chunks import claim, current, insert

LOOPS = 3
MINUTE = timedelta(minutes=1)


@pytest.fixture
def store(database: Database) -> SqlStore:
    """Runs the test once on each database."""
    return SqlStore(database)


async def run_at_once(*loops: Recovery | Closing | Deadlines) -> None:
    await asyncio.gather(*(loop.run_once() for loop in loops))


def shared(store: SqlStore, clock: FakeClock) -> dict[str, Any]:
    return {"store": store, "clock": clock, "wakeups": Wakeups()}


async def counts_of(store: SqlStore, batch: Batch) -> Counts:
    kept, counted = await store.chunks.check_counts(batch.key)
    assert kept == counted
    return kept


async def test_what_a_dead_worker_held_is_opened_once(store: SqlStore, clock: FakeClock):
    batch = await insert(store, 40)
    taken = await claim(store, lease=MINUTE)
    async with store.transaction() as tx:
        await tx.connection.exec_driver_sql("UPDATE chunks SET lease_time = 1")

    await run_at_once(*(Recovery(**shared(store, clock), alone=False) for _ in range(LOOPS)))

    assert await counts_of(store, batch) == Counts(total=40, pending=40)
    again = await claim(store)
    assert [chunk.epoch for chunk in again] == [chunk.epoch + 1 for chunk in taken]


async def test_what_is_left_of_a_cancelled_batch_is_closed_once(store: SqlStore, clock: FakeClock):
    batch = await insert(store, 40)
    async with store.transaction() as tx:
        await store.changes.close(
            tx,
            batch.key,
            closing=BatchState.CANCELLED,
            reason=StateReason.CANCELLED_BY_CALLER,
            message="",
            stop_in_flight=False,
            now=START,
        )

    await run_at_once(*(Closing(**shared(store, clock)) for _ in range(LOOPS)))

    assert (await current(store, batch)).state is BatchState.CANCELLED
    assert await counts_of(store, batch) == Counts(total=40, cancelled=40)


async def test_a_batch_resumes_by_itself_once(store: SqlStore, clock: FakeClock):
    batch = await insert(store, 40)
    async with store.transaction() as tx:
        paused = await store.changes.pause(
            tx,
            batch.key,
            reason=StateReason.PROVIDER_DOWN,
            message="",
            resume_time=START + MINUTE,
            now=START,
        )
    clock.advance(MINUTE)

    await run_at_once(*(Deadlines(**shared(store, clock)) for _ in range(LOOPS)))

    resumed = await current(store, batch)
    assert paused is not None
    assert (paused.state, resumed.state) == (BatchState.PAUSED, BatchState.PENDING)
    assert resumed.sequence == paused.sequence + 1, "one event tells of it"
    assert len(await claim(store)) == 4
