"""What cannot be recorded holds up nothing else, on each database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from batchwork_server.domain.batch import BatchState, Counts
from batchwork_server.domain.item import ItemState, Outcome
from batchwork_server.errors import ItemFailed, StoreUnavailable
from batchwork_server.ports import ItemCall, ItemResult
from batchwork_server.store.store import ChunkRecord, Claimed, Recorded

from tests.engine.conftest import StartWorker, Worker, gated
from tests.fakes import FakeProcessor


def refuse(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, is_bad: Callable[[Outcome], bool]
) -> list[int]:
    """Has the store fail a transaction that holds what is bad, in a way that nobody foresaw.

    Returns:
        How many chunks each transaction had that was asked for.
    """
    record, asked = worker.store.chunks.record, []

    async def picky(records: Sequence[ChunkRecord], *, now: datetime) -> Recorded:
        asked.append(len(records))
        if any(is_bad(outcome) for each in records for outcome in each.outcomes):
            raise TypeError("type 'decimal.Decimal' is not supported")
        return await record(records, now=now)

    monkeypatch.setattr(worker.store.chunks, "record", picky)
    return asked


@pytest.mark.parametrize("bad", [{0}, {9}, {3, 4, 8}, set(range(10))], ids=str)
async def test_only_the_item_fails_whose_outcome_no_transaction_takes(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch, bad: set[int]
):
    # The story: the transaction was tried again as it was, for ever, with the outcomes of all
    # batches in it.
    work = FakeProcessor()
    worker = await start_worker(work, slots=20)

    def is_bad(outcome: Outcome) -> bool:
        return outcome.index in bad and outcome.result_json == f'{{"id":"bad-{outcome.index}"}}'

    refuse(worker, monkeypatch, is_bad)
    async with gated(work):
        batch = await worker.submit([f"bad-{n}" for n in range(10)])
        other = await worker.submit([f"good-{n}" for n in range(10)])
        await work.started.wait()
    other = await worker.finish(other)
    batch = await worker.finish(batch)

    assert other.counts == Counts(total=10, succeeded=10)
    assert batch.counts == Counts(total=10, succeeded=10 - len(bad), failed=len(bad))
    failed = [item for item in await worker.items(batch) if item.state is ItemState.FAILED]
    assert {item.index for item in failed} == bad
    assert {(item.error.reason, item.error.retryable) for item in failed} == {
        ("NOT_RECORDABLE", False)
    }
    assert len(work.calls) == 20, "nothing is done again"


async def test_a_chunk_that_cannot_be_recorded_at_all_is_kept_and_others_go_on(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
):
    work = FakeProcessor()
    worker = await start_worker(work, slots=20)
    monkeypatch.setattr("batchwork_server.engine.committer.RESTART_PAUSE", timedelta(0))
    record, broken, failures = worker.store.chunks.record, True, asyncio.Event()

    async def failing(records: Sequence[ChunkRecord], *, now: datetime) -> Recorded:
        if broken and any(each.batch_key == batch.key for each in records):
            failures.set()
            raise ZeroDivisionError("what nobody foresaw")
        return await record(records, now=now)

    monkeypatch.setattr(worker.store.chunks, "record", failing)
    batch = await worker.submit([f"i{n}" for n in range(10)])
    await failures.wait()
    others = [await worker.finish(await worker.submit([f"j{n}"])) for n in range(3)]
    still = await worker.until(batch, lambda _: True)
    broken = False
    batch = await worker.finish(batch)

    assert [other.state for other in others] == [BatchState.SUCCEEDED] * 3
    assert still.state is BatchState.RUNNING
    assert batch.counts == Counts(total=10, succeeded=10)
    assert sum(call.item_id.startswith("i") for call in work.calls) == 10


async def test_while_the_database_is_away_no_chunk_is_tried_alone(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
):
    work = FakeProcessor()
    worker = await start_worker(work, slots=20)
    monkeypatch.setattr("batchwork_server.engine.committer._PAUSE", timedelta(0))
    record, tries = worker.store.chunks.record, []

    async def away_at_first(records: Sequence[ChunkRecord], *, now: datetime) -> Recorded:
        tries.append(len(records))
        if len(tries) == 1:
            raise StoreUnavailable("The database does not answer.")
        return await record(records, now=now)

    monkeypatch.setattr(worker.store.chunks, "record", away_at_first)
    async with gated(work):
        batch = await worker.submit([f"i{n}" for n in range(20)])
        await work.started.wait()
    batch = await worker.finish(batch)

    assert batch.counts == Counts(total=20, succeeded=20)
    assert sum(tries[1:]) == 2, "the two chunks are written once"


async def test_a_chunk_goes_on_whose_record_was_written_without_an_answer(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
):
    # The story: a connection died after the commit of some outcomes of a chunk. They were written
    # once more, which the table refused, and the chunk was never recorded to its end.
    work = FakeProcessor()
    worker = await start_worker(work, slots=1)
    record, unanswered, lost = worker.store.chunks.record, asyncio.Event(), asyncio.Event()

    async def silent_once(records: Sequence[ChunkRecord], *, now: datetime) -> Recorded:
        recorded = await record(records, now=now)
        if not unanswered.is_set():
            unanswered.set()
            raise StoreUnavailable("The connection was lost.")
        if recorded.lost:
            lost.set()
        return recorded

    monkeypatch.setattr("batchwork_server.engine.committer.FLUSH_INTERVAL", timedelta(0))
    monkeypatch.setattr("batchwork_server.engine.committer._PAUSE", timedelta(0))
    monkeypatch.setattr(worker.store.chunks, "record", silent_once)

    def hold(call: ItemCall) -> ItemResult:
        work.gate = asyncio.Event()  # the item after this one waits, so that the chunk goes on
        return ItemResult(value=call.data)

    work.on("i1", hold)
    batch = await worker.submit(["i0", "i1", "i2"])
    await lost.wait()
    await worker.processor.extend_leases()
    assert work.gate is not None
    work.gate.set()
    batch = await worker.finish(batch)

    assert batch.counts == Counts(total=3, succeeded=3)
    assert {call.item_id for call in work.calls} == {"i0", "i1", "i2"}


async def test_a_chunk_that_is_claimed_again_before_its_record_is_answered_is_not_lost(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
):
    # The story: on PostgreSQL a claim could be answered before the record that had opened its
    # chunk a moment earlier, and the log told of a lost chunk although nothing was.
    work = FakeProcessor()
    work.on("i0", ItemFailed("BUSY", "Come back.", retryable=True, retry_after=timedelta(0)))
    worker = await start_worker(work)
    record, claim = worker.store.chunks.record, worker.store.chunks.claim
    claims, is_claimed_again = 0, asyncio.Event()

    async def counted(chunk_keys: Sequence[int], **rest: Any) -> Claimed:
        nonlocal claims
        claimed = await claim(chunk_keys, **rest)
        claims += bool(claimed.chunks)
        if claims == 2:
            is_claimed_again.set()
        return claimed

    async def slow(records: Sequence[ChunkRecord], *, now: datetime) -> Recorded:
        recorded = await record(records, now=now)
        if any(each.release for each in records):
            worker.wakeups.work_arrived()
            await is_claimed_again.wait()
        return recorded

    monkeypatch.setattr(worker.store.chunks, "claim", counted)
    monkeypatch.setattr(worker.store.chunks, "record", slow)
    batch = await worker.finish(await worker.submit(["i0", "i1"]))

    assert batch.counts == Counts(total=2, succeeded=2, retries=1)
    assert work.attempts("i0") == 2
    assert work.attempts("i1") == 1
    assert worker.processor.committer.losses == 0
