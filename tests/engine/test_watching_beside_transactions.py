"""Watching while transactions of PostgreSQL go on: nothing waits for them, nothing is lost."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
import sqlalchemy as sa
from batchwork_server.application import event_feed
from batchwork_server.application.event_feed import TableReader
from batchwork_server.application.told import FeedMessage
from batchwork_server.domain.batch import StateReason
from batchwork_server.domain.submission import RequestedOptions
from batchwork_server.store.store import Transaction

from tests.engine.conftest import StartWorker, gated
from tests.engine.test_watching_many import watch_many
from tests.fakes import START


@pytest.fixture
def database_url(postgresql_url: str) -> str:
    """Only there do transactions that write overlap."""
    return postgresql_url


async def begin_to_write(tx: Transaction) -> None:
    """Gives the transaction its number, as any that writes has one."""
    await tx.connection.execute(sa.text("SELECT pg_current_xact_id()"))


async def test_a_watch_ends_while_an_old_transaction_goes_on(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
):
    # The events behind a page of those that are not settled were not looked at.
    monkeypatch.setattr(event_feed, "PAGE", 4)
    worker = await start_worker(slots=1)
    async with gated(worker.work) as gate:
        batch = await worker.submit(
            [f"i{n}" for n in range(12)], options=RequestedOptions(chunk_size=1)
        )
        async with aclosing(worker.watch(batch)) as watch, worker.store.transaction() as old:
            await anext(watch)
            await begin_to_write(old)
            gate.set()

            async with asyncio.timeout(30):
                told = [message async for message in watch]

    assert [message.sequence for message in told] == sorted(message.sequence for message in told)
    assert told[-1].kind == "END"


async def test_an_event_that_waits_for_another_is_told_by_whoever_reads_on(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
):
    # A resumed watch reads the table first. What it held there was told by nobody.
    worker = await start_worker(slots=1)
    changes, looked = worker.store.changes, asyncio.Event()
    async with gated(worker.work):
        batch = await worker.submit(["i0", "i1"])
        await worker.work.started.wait()
        async with aclosing(watch_many(worker)) as watch:
            before = await anext(watch)
        async with worker.store.transaction() as middle:
            async with worker.store.transaction() as older:
                await begin_to_write(older)
                await begin_to_write(middle)
                async with worker.store.transaction() as younger:
                    await changes.pause(
                        younger,
                        batch.key,
                        reason=StateReason.PAUSED_BY_CALLER,
                        message="",
                        resume_time=None,
                        now=START,
                    )
                await changes.resume(older, batch.key, now=START)

            look = TableReader.look

            async def noted(reader: TableReader) -> event_feed.Look:
                found = await look(reader)
                if reader.holds_something:
                    looked.set()
                return found

            monkeypatch.setattr(TableReader, "look", noted)
            told: list[FeedMessage] = []
            async with aclosing(watch_many(worker, resume=before.resume)) as watch:
                reading = asyncio.create_task(_read(watch, told, until=2))
                await looked.wait()
                await middle.connection.execute(sa.text("ROLLBACK"))
                async with asyncio.timeout(30):
                    await reading

    assert [message.batch and message.batch.state for message in told] == ["PAUSED", "RUNNING"]


async def _read(watch, told: list[FeedMessage], *, until: int) -> None:
    async for message in watch:
        if message.kind == "STATE_CHANGED":
            told.append(message)
        if len(told) == until:
            return
