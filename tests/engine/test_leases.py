"""What a worker has in hand is its own for as long as its lease, and as long as it is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from batchwork_server.domain.batch import Batch, BatchState, Counts
from batchwork_server.engine.engine import RELEASE_PAUSE, RELEASE_TRIES
from batchwork_server.engine.isolation import ChildProcesses
from batchwork_server.errors import StoreUnavailable
from batchwork_server.ports import ItemCall, ItemResult
from batchwork_server.processors.registry import ProcessorRegistry
from batchwork_server.store.database import open_database
from batchwork_server.store.sql_store import SqlStore

from tests.engine.conftest import RequestedOptions, Worker, calls_of, gated, put_together
from tests.fakes import FakeClock, FakeProcessor

SECOND = timedelta(seconds=1)
LEASE = timedelta(seconds=30)

StartPeer = Callable[..., Awaitable[Worker]]


class Interruptible(FakeProcessor):
    """Counts the attempts that were stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped = 0

    async def process(self, call: ItemCall) -> ItemResult:
        try:
            return await super().process(call)
        except asyncio.CancelledError:
            self.stopped += 1
            raise


class Children(ChildProcesses):
    """Child processes of which none is ever started."""

    def __init__(self) -> None:
        super().__init__(load=ProcessorRegistry.installed, workers=1)
        self.closed = False

    async def close(self) -> None:
        await super().close()
        self.closed = True


@pytest.fixture
async def start_peer(database_url: str, clock: FakeClock) -> AsyncIterator[StartPeer]:
    """Starts servers that share one database, and stops them all at the end."""
    database = await open_database(database_url, synchronous="NORMAL")
    peers: list[Worker] = []

    async def start(
        work: FakeProcessor,
        *,
        alone: bool = False,
        slots: int = 2,
        children: ChildProcesses | None = None,
    ) -> Worker:
        peer = put_together(
            SqlStore(database),
            work,
            slots=slots,
            clock=clock,
            retry_limit=3,
            owner=f"peer-{len(peers)}",
            alone=alone,
            children=children,
        )
        await peer.engine.start()
        peers.append(peer)
        return peer

    yield start
    for peer in peers:
        await peer.stop(grace=timedelta(0))
    await database.close()


class CutOff:
    """Keeps a worker from its database, until the block is over."""

    def __init__(self, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
        self._worker = worker
        self._monkeypatch = monkeypatch

    async def __aenter__(self) -> None:
        async def away(*_: Any, **__: Any) -> None:
            raise StoreUnavailable("The database does not answer.")

        for name in ("extend", "record", "claim", "next_chunks", "stopped", "reopen_expired"):
            self._monkeypatch.setattr(self._worker.store.chunks, name, away)

    async def __aexit__(self, *_: object) -> None:
        self._monkeypatch.undo()


async def settled() -> None:
    """Lets everybody go on who can."""
    for _ in range(200):
        await asyncio.sleep(0)


def names(count: int) -> list[str]:
    return [f"i{number}" for number in range(count)]


async def until_over(clock: FakeClock, worker: Worker, batch: Batch) -> Batch:
    """Returns the batch when it is over; the time goes on meanwhile."""
    ended = asyncio.create_task(worker.end_of(batch))
    while not ended.done():
        clock.advance(SECOND)
        await settled()
    return await ended


async def test_a_worker_that_is_cut_off_stops_when_its_lease_is_over(
    start_peer: StartPeer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
):
    # The story: it went on with its chunks for as long as it was cut off, beside the peer that
    # had taken them over.
    work = Interruptible()
    worker = await start_peer(work)
    async with gated(work) as gate:
        batch = await worker.submit(names(5))
        await calls_of(work, 2)

        async with CutOff(worker, monkeypatch):
            clock.advance(LEASE)
            await settled()
            before = work.stopped
            clock.advance(SECOND)
            await settled()
            after = work.stopped, len(work.calls)
        gate.set()
        done = await until_over(clock, worker, batch)

    assert before == 0, "it is ours until then"
    assert after == (2, 2), "what went on is stopped, and nothing else begins"
    assert done.counts == Counts(total=5, succeeded=5)
    assert {item.attempt_count for item in await worker.items(batch)} == {1}


async def test_what_was_done_before_the_lease_was_over_is_not_done_again(
    start_peer: StartPeer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
):
    work = FakeProcessor()
    worker = await start_peer(work)
    async with gated(work) as gate:
        batch = await worker.submit(names(2))
        await calls_of(work, 2)
        async with CutOff(worker, monkeypatch):
            gate.set()
            await settled()
            clock.advance(2 * LEASE)
            await settled()
        done = await until_over(clock, worker, batch)

    assert done.counts == Counts(total=2, succeeded=2)
    assert len(work.calls) == 2


async def test_a_worker_that_reaches_its_database_keeps_what_it_has(
    start_peer: StartPeer, clock: FakeClock
):
    work = Interruptible()
    worker = await start_peer(work)
    async with gated(work):
        await worker.submit(names(2))
        await calls_of(work, 2)

        for _ in range(100):
            clock.advance(SECOND)
            await worker.processor.extend_leases()
            await settled()

        assert work.stopped == 0


async def test_a_worker_that_is_alone_goes_on_without_its_database(
    start_peer: StartPeer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
):
    work = Interruptible()
    worker = await start_peer(work, alone=True)
    async with gated(work):
        await worker.submit(names(2))
        await calls_of(work, 2)

        async with CutOff(worker, monkeypatch):
            clock.advance(2 * LEASE)
            await settled()

        assert work.stopped == 0, "nobody else could have taken it"


@pytest.mark.parametrize("verb", ["pause", "cancel"])
async def test_a_second_server_starts_no_item_after_it_heard_of_a_stop(
    start_peer: StartPeer, clock: FakeClock, verb: str
):
    # The story: it heard of it when it recorded something, or when it extended its leases, ten
    # seconds later, and began item after item until then.
    work = FakeProcessor()
    busy, other = await start_peer(work, slots=1), await start_peer(FakeProcessor(), slots=1)
    await other.engine.stop_claims()
    state = BatchState.PAUSED if verb == "pause" else BatchState.CANCELLING
    heard = busy.told(state)
    async with gated(work) as gate:
        batch = await busy.submit(names(5), options=RequestedOptions(chunk_size=5))
        await calls_of(work, 1)

        await getattr(other, verb)(batch)
        clock.advance(SECOND)
        await heard.wait()
        gate.set()
        await busy.until(batch, lambda batch: not batch.counts.running)

    assert len(work.calls) == 1


async def test_cancelling_at_another_server_stops_what_is_in_flight(
    start_peer: StartPeer, clock: FakeClock
):
    work = Interruptible()
    busy, other = await start_peer(work), await start_peer(FakeProcessor())
    await other.engine.stop_claims()
    async with gated(work):
        batch = await busy.submit(names(5))
        await calls_of(work, 2)

        await other.cancel(batch, stop_in_flight=True)
        done = await until_over(clock, busy, batch)

    assert work.stopped == 2
    assert done.counts == Counts(total=5, cancelled=5)


async def test_a_stop_without_a_database_is_a_stop(
    start_peer: StartPeer,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
):
    # The story: a server that was told to stop while its database was away ended with the exit
    # code of wrong settings, and left its child processes behind.
    work, children = Interruptible(), Children()
    worker = await start_peer(work, children=children)
    async with gated(work):
        batch = await worker.submit(names(2))
        await calls_of(work, 2)
        async with CutOff(worker, monkeypatch):
            stopping = asyncio.create_task(worker.stop(grace=timedelta(0)))
            while not stopping.done():
                clock.advance(RELEASE_PAUSE)
                await asyncio.sleep(0)
            await stopping

    successor = await start_peer(FakeProcessor())
    await successor.store.chunks.reopen_all(now=clock.now())  # as when the lease is over
    done = await until_over(clock, successor, batch)

    assert children.closed
    assert done.counts == Counts(total=2, succeeded=2)


async def test_a_database_that_comes_back_during_a_stop_is_told(
    start_peer: StartPeer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
):
    work = FakeProcessor()
    worker = await start_peer(work)
    async with gated(work):
        batch = await worker.submit(names(2))
        await calls_of(work, 2)
        async with CutOff(worker, monkeypatch):
            stopping = asyncio.create_task(worker.stop(grace=timedelta(0)))
            for _ in range(RELEASE_TRIES // 2):
                await clock.waited_on()
                clock.advance(RELEASE_PAUSE)
        while not stopping.done():
            clock.advance(RELEASE_PAUSE)
            await asyncio.sleep(0)
        await stopping

    given_back = await worker.store.batches.get_by_key(batch.key)
    assert given_back is not None
    assert given_back.counts == Counts(total=2, pending=2)
