"""What becomes of items, on each database."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import orjson
import pytest
from batchwork_server.domain.batch import BatchState, Counts
from batchwork_server.domain.item import ItemState
from batchwork_server.domain.submission import Idempotency, RequestedOptions
from batchwork_server.errors import ItemFailed, ItemSkipped, StoreUnavailable
from batchwork_server.ports import ItemCall, ItemResult

from tests.engine.conftest import CALLER, Worker, gated
from tests.fakes import FakeProcessor


def busy(**changes) -> ItemFailed:
    return ItemFailed("BUSY", "Come back later.", **{"retryable": True} | changes)


@pytest.mark.arrow("batch G", "item D")
async def test_every_item_is_processed_and_its_result_is_kept(worker: Worker):
    batch = await worker.submit([f"i{n}" for n in range(25)])

    batch = await worker.finish(batch)

    assert batch.state is BatchState.SUCCEEDED
    assert batch.counts == Counts(total=25, succeeded=25)
    items = await worker.items(batch)
    assert [orjson.loads(item.result_json or "")["id"] for item in items] == [
        f"i{n}" for n in range(25)
    ]
    assert {item.attempt_count for item in items} == {1}


async def test_what_fails_is_tried_again_and_its_attempts_are_kept(worker: Worker):
    worker.work.on("i1", busy(), busy())
    batch = await worker.submit(["i0", "i1", "i2"])

    batch = await worker.finish(batch)

    assert batch.counts == Counts(total=3, succeeded=3, retries=2)
    item = await worker.store.batches.get_item(batch, "i1")
    assert [(a.number, a.error.reason if a.error else "") for a in item.attempts] == [
        (1, "BUSY"),
        (2, "BUSY"),
        (3, ""),
    ]
    keys = {call.idempotency_key for call in worker.work.calls if call.item_id == "i1"}
    assert len(keys) == 1, "every attempt has the same idempotency key"
    assert [c.attempt for c in worker.work.calls if c.item_id == "i1"] == [1, 2, 3]


@pytest.mark.arrow("batch I", "item I")
async def test_retries_end_at_the_limit(worker: Worker):
    worker.work.on("i0", *[busy() for _ in range(10)])
    batch = await worker.submit(["i0"], options=RequestedOptions(retry_limit=2))

    batch = await worker.finish(batch)

    assert batch.state is BatchState.FAILED
    assert worker.work.attempts("i0") == 3
    [item] = await worker.items(batch)
    assert (item.state, item.error.reason, item.attempt_count) == (ItemState.FAILED, "BUSY", 3)


@pytest.mark.arrow("item J")
async def test_what_cannot_succeed_is_not_tried_again(worker: Worker):
    worker.work.on("i0", ItemFailed("TOO_LONG", "It has 300 characters."))
    batch = await worker.submit(["i0", "i1"])

    batch = await worker.finish(batch)

    assert batch.state is BatchState.PARTIALLY_SUCCEEDED
    assert worker.work.attempts("i0") == 1
    assert not (await worker.items(batch))[0].error.retryable


@pytest.mark.arrow("item L")
async def test_a_processor_may_skip_an_item(worker: Worker):
    worker.work.on("i0", ItemSkipped("NOTHING_TO_DO"))
    batch = await worker.submit(["i0"])

    batch = await worker.finish(batch)

    assert (batch.state, batch.counts) == (BatchState.SUCCEEDED, Counts(total=1, skipped=1))
    assert (await worker.items(batch))[0].skip_reason == "NOTHING_TO_DO"


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(1),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
        MemoryError(),
        TimeoutError("its own"),
        ZeroDivisionError("division by zero"),
        ValueError("a \ud800 lone surrogate and a \x00"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_a_processor_raises_only_its_item_fails(worker: Worker, error):
    worker.work.on("i1", *[error] * 10)
    batch = await worker.submit(["i0", "i1", "i2"])

    batch = await worker.finish(batch)

    assert batch.counts == Counts(total=3, succeeded=2, failed=1, retries=3)
    item = (await worker.items(batch))[1]
    assert item.error.reason == "PROCESSOR_ERROR"
    assert item.error.message.startswith(type(error).__name__)
    assert worker.engine.is_running


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


async def test_reasons_and_messages_are_kept_in_a_form_that_can_be_kept(worker: Worker):
    worker.work.on("i0", ItemFailed("rate limit\x00 é", "\x00\ud800" + "x" * 5000))
    worker.work.on("i1", ItemSkipped(""))
    worker.work.on("i2", *[Unspeakable()] * 4)
    worker.work.on("i3", ItemFailed("LATER", retryable=True, retry_after=-timedelta(days=9)))
    batch = await worker.submit(["i0", "i1", "i2", "i3"])

    batch = await worker.finish(batch)

    items = await worker.items(batch)
    assert (items[0].error.reason, len(items[0].error.message)) == ("RATE_LIMIT", 1000)
    assert items[1].skip_reason == "UNSPECIFIED"
    assert items[2].error.message == "Unspeakable"
    assert items[3].state is ItemState.SUCCEEDED


async def test_an_attempt_that_takes_too_long_is_stopped(worker: Worker):
    async with gated(worker.work):
        batch = await worker.submit(
            ["i0"],
            options=RequestedOptions(item_timeout=timedelta(milliseconds=1), retry_limit=1),
        )
        batch = await worker.finish(batch)

    [item] = await worker.items(batch)
    assert (item.error.reason, item.attempt_count) == ("ITEM_TIMEOUT", 2)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        pytest.param(ItemResult(value="x" * 1024 * 1024), "RESULT_TOO_LARGE", id="too large"),
        pytest.param(ItemResult(value={1, 2}), "RESULT_INVALID", id="not JSON"),
        pytest.param(ItemResult(value=1, quality_score=1.5), "RESULT_INVALID", id="bad score"),
        pytest.param(lambda call: {"plain": call.data}, "RESULT_INVALID", id="no ItemResult"),
    ],
)
async def test_a_result_that_cannot_be_kept_fails_its_item(worker: Worker, result, reason):
    worker.work.on("i0", result)
    batch = await worker.submit(["i0", "i1"])

    batch = await worker.finish(batch)

    items = await worker.items(batch)
    assert [item.state for item in items] == [ItemState.FAILED, ItemState.SUCCEEDED]
    assert items[0].error.reason == reason


async def test_a_processor_that_is_not_installed_fails_its_items_with_its_name(worker: Worker):
    batch = await worker.submit(
        ["i0"], template_id="uninstalled", options=RequestedOptions(retry_limit=0)
    )

    batch = await worker.finish(batch)

    [item] = await worker.items(batch)
    assert item.error.reason == "PROCESSOR_UNKNOWN"
    assert "uninstalled" in item.error.message


async def test_no_more_items_are_in_flight_than_the_server_allows(start_worker):
    work = FakeProcessor()
    worker = await start_worker(work, slots=3)
    async with gated(work) as gate:
        batch = await worker.submit([f"i{n}" for n in range(10)])
        await work.started.wait()
        for _ in range(100):
            await asyncio.sleep(0)
        in_flight = len(work.calls)
        gate.set()
        await worker.finish(batch)

    assert in_flight == 3


async def test_no_more_items_are_in_flight_than_the_batch_allows(start_worker):
    work = FakeProcessor()
    worker = await start_worker(work, slots=8)
    async with gated(work) as gate:
        batch = await worker.submit(
            [f"i{n}" for n in range(10)], options=RequestedOptions(max_concurrent_items=2)
        )
        await work.started.wait()
        for _ in range(100):
            await asyncio.sleep(0)
        in_flight = len(work.calls)
        gate.set()
        batch = await worker.finish(batch)

    assert in_flight == 2
    assert batch.counts.succeeded == 10


@pytest.mark.arrow("batch Q", "batch T", "item M")
async def test_cancelling_lets_items_in_flight_finish_and_starts_no_other(start_worker):
    work = FakeProcessor()
    worker = await start_worker(work, slots=2)
    async with gated(work) as gate:
        batch = await worker.submit([f"i{n}" for n in range(30)])
        await work.started.wait()

        cancelling = await worker.changes.cancel_batch(
            batch.batch_id, caller=CALLER, idempotency=Idempotency()
        )
        started = len(work.calls)
        gate.set()
        batch = await worker.finish(batch)

    assert cancelling.state is BatchState.CANCELLING
    assert batch.state is BatchState.CANCELLED
    assert len(work.calls) == started
    assert batch.counts == Counts(total=30, succeeded=started, cancelled=30 - started)


async def test_a_cancelled_batch_waits_for_no_retry(start_worker):
    work = FakeProcessor({"i0": [busy()]})
    worker = await start_worker(work, slots=1)
    async with gated(work):
        batch = await worker.submit(["i0", "i1"])
        await work.started.wait()
        await worker.changes.cancel_batch(batch.batch_id, caller=CALLER, idempotency=Idempotency())
    batch = await worker.finish(batch)

    assert batch.counts == Counts(total=2, cancelled=2, retries=1)
    assert (await worker.store.batches.get_item(batch, "i0")).attempts[0].error.reason == "BUSY"


@pytest.mark.arrow("item F")
async def test_a_shutdown_gives_items_back_and_the_next_server_goes_on(start_worker):
    first_work, second_work = FakeProcessor(), FakeProcessor()
    first = await start_worker(first_work, slots=2)
    async with gated(first_work):
        batch = await first.submit([f"i{n}" for n in range(25)])
        await first_work.started.wait()
        await first.stop(grace=timedelta(0))

        kept, counted = await first.store.chunks.check_counts(batch.key)
        assert kept == counted
        assert kept.running == 0

        second = await start_worker(second_work)
        batch = await second.finish(batch)

    assert batch.counts == Counts(total=25, succeeded=25)
    assert {item.attempt_count for item in await second.items(batch)} == {1}
    keys = {call.item_id: call.idempotency_key for call in second_work.calls}
    assert all(keys[call.item_id] == call.idempotency_key for call in first_work.calls)


async def test_a_shutdown_waits_for_items_that_finish_in_time(start_worker):
    work = FakeProcessor()
    worker = await start_worker(work, slots=2)
    async with gated(work) as gate:
        batch = await worker.submit([f"i{n}" for n in range(10)])
        await work.started.wait()
        stopping = asyncio.create_task(worker.stop())
        await asyncio.sleep(0)
        gate.set()
        await stopping

    kept, counted = await worker.store.chunks.check_counts(batch.key)
    assert kept == counted
    assert kept.succeeded == len(work.calls)
    assert kept.pending == 10 - len(work.calls)


async def test_while_the_database_is_away_nothing_is_lost(start_worker, monkeypatch):
    work = FakeProcessor()
    worker = await start_worker(work)
    record = worker.store.chunks.record
    failures = iter([True, True])

    async def flaky(records, *, now):
        if next(failures, False):
            raise StoreUnavailable("The database does not answer.")
        return await record(records, now=now)

    monkeypatch.setattr(worker.store.chunks, "record", flaky)
    monkeypatch.setattr("batchwork_server.engine.committer._PAUSE", timedelta(0))
    batch = await worker.submit([f"i{n}" for n in range(10)])

    batch = await worker.finish(batch)

    assert batch.counts == Counts(total=10, succeeded=10)
    assert len(work.calls) == 10, "what was done is recorded, not done again"


async def test_a_chunk_that_ends_while_the_database_is_away_is_recorded_once(
    start_worker, monkeypatch
):
    # The story: outcomes of a chunk that went on could not be written; until that was known the
    # chunk had ended, stood among those that are done twice, and was counted twice.
    work = FakeProcessor()
    worker = await start_worker(work, slots=2)
    record, gate, tries = worker.store.chunks.record, asyncio.Event(), []

    def close_gate(call: ItemCall) -> ItemResult:
        work.gate = gate  # the items after this one wait
        return ItemResult(value=call.item_id)

    async def failing_first(records, *, now):
        tries.append([len(each.outcomes) for each in records])
        if len(tries) == 1:
            gate.set()
            for _ in range(200):
                await asyncio.sleep(0)
            raise StoreUnavailable("The database does not answer.")
        return await record(records, now=now)

    work.on("i1", close_gate)
    monkeypatch.setattr(worker.store.chunks, "record", failing_first)
    monkeypatch.setattr("batchwork_server.engine.committer._PAUSE", timedelta(0))
    monkeypatch.setattr("batchwork_server.engine.committer.FLUSH_INTERVAL", timedelta(0))
    batch = await worker.finish(await worker.submit([f"i{n}" for n in range(10)]))

    assert tries[0][0] < 10, "the chunk went on while it was recorded"
    assert tries[1] == [10], "it had ended before that was tried again"
    assert batch.counts == Counts(total=10, succeeded=10)
    assert len(work.calls) == 10


async def test_a_chunk_that_was_taken_away_is_left_alone(start_worker):
    work = FakeProcessor()
    worker = await start_worker(work, slots=2)
    async with gated(work) as gate:
        batch = await worker.submit([f"i{n}" for n in range(10)])
        await work.started.wait()
        await worker.store.chunks.reopen_all(now=batch.create_time)
        [(key, *_)] = await worker.store.chunks.next_chunks(now=batch.create_time, limit=1)
        claimed = await worker.store.chunks.claim(
            [key], owner="heir", now=batch.create_time, lease=timedelta(0)
        )
        await worker.processor.extend_leases()
        gate.set()
        for _ in range(100):
            await asyncio.sleep(0)

    [heir] = claimed.chunks
    assert len(heir.items) == 10
    assert len(work.calls) == 2, "no further item of the lost chunk starts"
    kept, counted = await worker.store.chunks.check_counts(batch.key)
    assert kept == counted == Counts(total=10, running=10)


async def test_the_same_request_a_hundred_times_at_once_is_one_batch(worker: Worker):
    idempotency = Idempotency(request_id="once", request_hash="h")

    batches = await asyncio.gather(
        *(worker.submit(["i0"], idempotency=idempotency) for _ in range(100))
    )

    assert len({batch.batch_id for batch in batches}) == 1
    await worker.finish(batches[0])
    assert len(worker.work.calls) == 1
