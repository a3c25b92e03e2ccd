"""The power fails while a batch runs on SQLite: what the disk has is all that is left."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from batchwork.v1.batch_service_pb2 import GetBatchRequest
from batchwork_server.bootstrap import Serving
from batchwork_server.config import Settings
from batchwork_server.domain.batch import Counts
from batchwork_server.store.database import open_database
from batchwork_server.store.sql_store import SqlStore

from tests.rpc.api import Api

ITEMS = 200


@dataclass(frozen=True, kw_only=True)
class Remains:
    """What is on the disk at one moment.

    Attributes:
        acknowledged: How many outcomes a caller had been told of before it.
    """

    file: bytes
    log: bytes
    batch_id: str
    acknowledged: int


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Those of a server that survives a power cut."""
    return replace(settings, sqlite_synchronous="FULL", chunk_size=10)


@pytest.fixture
async def remains(settings: Settings, api: Api, server: Serving, tmp_path: Path) -> Remains:
    """Taken while a batch runs, about half of which is recorded."""
    file = tmp_path / "batchwork.db"
    before = file.read_bytes()
    batch = await api.create_batch(*(f"item-{n}" for n in range(ITEMS)))
    acknowledged = 0
    async with asyncio.timeout(30):
        while acknowledged < ITEMS // 2:
            found = await api.batches.GetBatch(GetBatchRequest(batch_id=batch.batch_id))
            acknowledged = found.batch.counts.succeeded
    async with server.application.database.transaction():  # nobody else writes meanwhile
        remains = Remains(
            file=file.read_bytes(),
            log=file.with_name("batchwork.db-wal").read_bytes(),
            batch_id=batch.batch_id,
            acknowledged=acknowledged,
        )
    # A checkpoint moves only what the disk has for sure; a cut of that would prove nothing.
    assert remains.file == before, "there was a checkpoint; make the batch smaller"
    return remains


async def recovered(remains: Remains, log: bytes, folder: Path) -> Counts | None:
    """Opens what is left and returns the counts of the batch, which its rows agree to."""
    file = folder / "recovered.db"
    file.write_bytes(remains.file)
    file.with_name("recovered.db-wal").write_bytes(log)
    database = await open_database(f"sqlite:///{file}")
    try:
        store = SqlStore(database)
        batch = await store.batches.get(remains.batch_id, tenant_id=None)
        if batch is None:
            return None
        kept, counted = await store.chunks.check_counts(batch.key)
        assert kept == counted
        return kept
    finally:
        await database.close()


def cut(log: bytes, at: int) -> bytes:
    return log[:at]


def lose_rest(log: bytes, at: int) -> bytes:
    """The file has its length, and the disk nothing to fill it with."""
    return log[:at] + bytes(len(log) - at)


def tear(log: bytes, at: int) -> bytes:
    """One sector is something else; what comes after it was written before it."""
    return log[:at] + b"\xa5" * 512 + log[at + 512 :]


async def test_what_was_acknowledged_is_there_after_a_power_cut(remains, tmp_path):
    counts = await recovered(remains, remains.log, tmp_path)

    assert counts is not None
    assert counts.total == ITEMS
    assert counts.succeeded >= remains.acknowledged


@pytest.mark.parametrize("damage", [cut, lose_rest, tear])
async def test_log_that_ends_anywhere_leaves_whole_transactions(
    remains: Remains, tmp_path: Path, damage: Callable[[bytes, int], bytes]
):
    chance = random.Random(20260315)
    places = sorted({0, 1, 31, 32, *(chance.randrange(len(remains.log)) for _ in range(60))})

    recorded = []
    for place in places:
        counts = await recovered(remains, damage(remains.log, place), tmp_path)
        recorded.append(-1 if counts is None else counts.succeeded)

    assert recorded == sorted(recorded)  # a longer log never knows less
    assert recorded[0] == -1
    assert len(set(recorded)) > 3  # the cuts fell between commits
