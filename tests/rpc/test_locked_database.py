"""A database whose write lock somebody else holds."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path

import grpc
import pytest
from batchwork.v1.batch_service_pb2 import GetBatchRequest
from batchwork_server.store.database import open_database

from tests.rpc.api import Api, make_job, refused


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a statement wait for a lock for a moment only."""
    impatient = partial(open_database, busy_timeout=timedelta(milliseconds=50))
    monkeypatch.setattr("batchwork_server.bootstrap.opening.open_database", impatient)


@pytest.fixture
def stranger(api: Api, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Another program with the file open."""
    file = tmp_path / "batchwork.db"
    with closing(
        sqlite3.connect(file, isolation_level=None, timeout=30, check_same_thread=False)
    ) as connection:
        yield connection


async def lock(stranger: sqlite3.Connection) -> None:
    """Takes the lock for the stranger, when the server has ended what it is writing."""
    await asyncio.to_thread(stranger.execute, "BEGIN EXCLUSIVE")


async def test_calls_that_write_are_unavailable_and_calls_that_read_are_answered(api, stranger):
    batch = await api.create_batch("item-1")
    await api.finished(batch.batch_id)
    await lock(stranger)

    refusals = [
        await refused(api.create_batch("item-2")),
        await refused(api.import_jobs(make_job())),
    ]
    found = await api.batches.GetBatch(GetBatchRequest(batch_id=batch.batch_id))
    stranger.execute("ROLLBACK")

    assert [refusal.code for refusal in refusals] == [grpc.StatusCode.UNAVAILABLE] * 2
    assert {refusal.reason for refusal in refusals} == {"DEPENDENCY_UNAVAILABLE"}
    assert all("RetryInfo" in refusal.details for refusal in refusals)
    assert found.batch.counts.succeeded == 1
    assert await api.finished((await api.create_batch("item-2")).batch_id)


async def test_outcomes_wait_for_the_lock_and_are_recorded_once(api, processor, stranger, logged):
    processor.gate = asyncio.Event()
    batch = await api.create_batch("item-1", "item-2", "item-3")
    await processor.started.wait()
    await lock(stranger)

    processor.gate.set()
    async with asyncio.timeout(30):
        while not any(line["event"] == "commit.waiting" for line in logged()):
            await asyncio.sleep(0)
    stranger.execute("ROLLBACK")

    done = await api.finished(batch.batch_id)
    assert (done.counts.succeeded, done.counts.total) == (3, 3)
    assert len(processor.calls) == 3
