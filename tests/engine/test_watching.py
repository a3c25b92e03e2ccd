"""Watching: nothing is missed, nothing comes twice, and a last message is sure to come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from batchwork_server.application.told import HEARTBEAT, ResumePoint, WatchMessage
from batchwork_server.errors import QuotaExceeded, ResumeTokenExpired, ShuttingDown

from tests.engine.conftest import Worker, gated
from tests.engine.counting import ReadsCounted
from tests.fakes import FakeClock, FakeProcessor


async def test_a_watch_begins_with_a_snapshot_and_ends_with_the_final_batch(worker: Worker):
    batch = await worker.submit([f"i{n}" for n in range(25)])

    messages = [message async for message in worker.watch(batch)]

    kinds = [message.kind for message in messages]
    assert kinds[0] == "SNAPSHOT"
    assert kinds[-1] == "END"
    assert kinds.count("END") == 1
    assert messages[-1].batch.counts.succeeded == 25
    assert messages[-1].event_type == "batch:completed"
    sequences = [message.sequence for message in messages]
    assert sequences == sorted(sequences)


async def test_a_watch_of_a_batch_that_is_over_ends_at_once(worker: Worker):
    batch = await worker.finish(await worker.submit(["i0"]))

    messages = [message async for message in worker.watch(batch)]

    assert [message.kind for message in messages] == ["SNAPSHOT", "END"]


async def test_every_item_is_shown_once_when_it_is_asked_for(worker: Worker):
    batch = await worker.submit([f"i{n}" for n in range(25)])

    shown = [
        message.item.item_id
        async for message in worker.watch(batch, include_items=True)
        if message.kind == "ITEM_FINISHED"
    ]

    assert sorted(shown) == sorted(f"i{n}" for n in range(25))


async def test_only_failed_items_are_shown_when_only_they_are_asked_for(worker: Worker):
    worker.work.on("i3", *[ValueError("no")] * 10)
    batch = await worker.submit([f"i{n}" for n in range(10)])

    shown = [
        message.item
        async for message in worker.watch(batch, include_items=True, only_failed=True)
        if message.item is not None
    ]

    assert [item.item_id for item in shown] == ["i3"]
    assert shown[0].error.message == "ValueError: no"


async def test_a_watch_that_was_cut_anywhere_misses_nothing_and_repeats_nothing(worker: Worker):
    batch = await worker.submit([f"i{n}" for n in range(25)])
    start = ResumePoint(sequence=1)
    whole = [m async for m in worker.watch(batch, resume=start, include_items=True)]

    for cut in range(len(whole) - 1):
        rest = [
            message
            async for message in worker.watch(batch, resume=whole[cut].resume, include_items=True)
        ]

        items = [m.item.item_id for m in (*whole[: cut + 1], *rest) if m.item is not None]
        assert sorted(items) == sorted(f"i{n}" for n in range(25)), f"cut after {cut}"
        states = [m.event_type for m in (*whole[: cut + 1], *rest) if m.batch is not None]
        assert states == ["batch:started", "batch:completed"], f"cut after {cut}"


async def test_a_watcher_that_was_slow_reads_the_table_by_itself(worker: Worker, monkeypatch):
    monkeypatch.setattr("batchwork_server.application.watching._KEPT_EVENTS", 1)
    batch = await worker.submit([f"i{n}" for n in range(25)])
    watch = worker.watch(batch, include_items=True)
    first = await anext(watch)
    await worker.finish(batch)

    rest = [message async for message in watch]

    assert first.kind == "SNAPSHOT"
    assert len([m for m in rest if m.kind == "ITEM_FINISHED"]) == 25
    assert rest[-1].kind == "END"


async def test_a_token_from_the_future_is_refused(worker: Worker):
    batch = await worker.finish(await worker.submit(["i0"]))

    with pytest.raises(ResumeTokenExpired):
        await anext(worker.watch(batch, resume=ResumePoint(sequence=99)))


async def _until_heartbeat(watch: AsyncIterator[WatchMessage]) -> WatchMessage:
    return await anext(m async for m in watch if m.kind == "HEARTBEAT")


async def test_silence_is_broken_by_heartbeats(start_worker):
    clock, work = FakeClock(), FakeProcessor()
    worker = await start_worker(work, clock=clock)
    async with gated(work):
        batch = await worker.submit(["i0"])
        await work.started.wait()
        watch = worker.watch(batch)
        first = await anext(watch)
        heartbeat = asyncio.create_task(_until_heartbeat(watch))
        while not heartbeat.done():
            waited_on = asyncio.create_task(clock.waited_on())
            await asyncio.wait({heartbeat, waited_on}, return_when=asyncio.FIRST_COMPLETED)
            waited_on.cancel()
            clock.advance(HEARTBEAT)
        message = await heartbeat

    assert first.kind == "SNAPSHOT"
    assert message.sequence == message.resume.sequence
    await watch.aclose()
    assert worker.watchers.count == 0


async def test_watchers_are_told_when_the_server_goes_away(worker: Worker):
    async with gated(worker.work):
        batch = await worker.submit(["i0"])
        await worker.work.started.wait()
        watch = worker.watch(batch)
        await anext(watch)

        worker.watching.close()
        kinds = []

        async def read_on() -> None:
            kinds.extend([message.kind async for message in watch])

        last = await anext(m async for m in watch if m.kind == "GOING_AWAY")
        with pytest.raises(ShuttingDown):
            await read_on()

    assert last.sequence == last.resume.sequence
    assert kinds == []
    with pytest.raises(ShuttingDown):
        await anext(worker.watch(batch))


async def test_there_are_no_more_watchers_than_the_server_allows(worker: Worker):
    async with gated(worker.work):
        batch = await worker.submit(["i0"])
        watches = [worker.watch(batch) for _ in range(10)]
        for watch in watches:
            await anext(watch)

        with pytest.raises(QuotaExceeded) as refusal:
            await anext(worker.watch(batch))
        for watch in watches:
            await watch.aclose()

    assert refusal.value.reason == "QUOTA_WATCHERS"
    assert refusal.value.retry_after > timedelta(0)
    assert (await anext(worker.watch(batch))).kind == "SNAPSHOT"


async def test_a_watch_goes_on_through_a_retry_until_the_batch_is_over_for_good(worker: Worker):
    worker.work.on("i0", *[ValueError("no")] * 4)
    batch = await worker.finish(await worker.submit(["i0", "i1"]))
    await worker.retry(batch)
    final = await worker.finish(batch)

    messages = [m async for m in worker.watch(batch, resume=ResumePoint(sequence=1))]

    told = [(m.kind, m.event_type) for m in messages if m.kind != "PROGRESS"]
    assert told == [
        ("STATE_CHANGED", "batch:started"),
        ("STATE_CHANGED", "batch:completed"),
        ("STATE_CHANGED", "batch:retried"),
        ("STATE_CHANGED", "batch:started"),
        ("END", "batch:completed"),
    ]
    assert messages[-1].batch == final


async def test_a_watch_of_a_batch_that_is_tried_again_begins_with_a_snapshot(worker: Worker):
    worker.work.on("i0", *[ValueError("no")] * 4)
    batch = await worker.finish(await worker.submit(["i0", "i1"]))
    async with gated(worker.work) as gate:
        await worker.retry(batch)
        watch = worker.watch(batch)
        first = await anext(watch)
        gate.set()
        rest = [message async for message in watch]

    assert (first.kind, first.batch.state.is_final) == ("SNAPSHOT", False)
    assert rest[-1].kind == "END"
    assert rest[-1].batch.counts.succeeded == 2


async def test_a_paused_batch_is_shown_with_its_reason(worker: Worker):
    async with gated(worker.work):
        batch = await worker.submit(["i0"])
        await worker.work.started.wait()
        watch = worker.watch(batch)
        await anext(watch)
        await worker.pause(batch)

        paused = await anext(m async for m in watch if m.event_type == "batch:paused")
        await watch.aclose()

    assert (paused.kind, paused.batch.state) == ("STATE_CHANGED", "PAUSED")
    assert paused.batch.state_reason == "PAUSED_BY_CALLER"


async def test_a_thousand_watchers_of_a_batch_look_at_the_table_once(start_worker, monkeypatch):
    reads = {}
    worker = await start_worker(max_watchers=1000)
    counted = ReadsCounted(worker.store, monkeypatch)
    for number in (1, 1000):
        worker.work.started.clear()
        async with gated(worker.work) as gate:
            batch = await worker.submit([f"i{n}" for n in range(5)])
            await worker.work.started.wait()
            watches = [worker.watch(batch, include_items=True) for _ in range(number)]
            for watch in watches:
                await anext(watch)
            counted.reset()
            gate.set()

            rests = await asyncio.gather(*[_rest_of(watch) for watch in watches])

        assert {messages[-1].kind for messages in rests} == {"END"}
        assert {sum(m.kind == "ITEM_FINISHED" for m in messages) for messages in rests} == {5}
        reads[number] = counted.by_watchers.copy()

    # How often the feed looks depends on the pace of the machine, but not on who watches.
    assert reads[1000]["batches.get_by_key"] <= reads[1]["batches.get_by_key"] + 5
    assert reads[1000]["batches.finished_items"] <= 5
    assert reads[1000]["events.of_batch"] == 0
    assert reads[1000]["events.after"] < 100


async def _rest_of(watch: AsyncIterator[WatchMessage]) -> list[WatchMessage]:
    return [message async for message in watch]


async def test_watchers_of_many_batches_share_every_look(start_worker, monkeypatch):
    worker = await start_worker(max_watchers=1000)
    counted = ReadsCounted(worker.store, monkeypatch)
    async with gated(worker.work) as gate:
        batches = [await worker.submit(["i0"]) for _ in range(100)]
        watches = [worker.watch(batch) for batch in batches for _ in range(3)]
        for watch in watches:
            await anext(watch)
        counted.reset()
        gate.set()

        rests = await asyncio.gather(*[_rest_of(watch) for watch in watches])

    assert {messages[-1].kind for messages in rests} == {"END"}
    assert counted.by_watchers["events.of_batch"] == 0
    # Once for each state of each batch, not for each watcher.
    assert counted.by_watchers["batches.get_by_key"] <= 2 * len(batches)


async def test_nobody_looks_at_the_table_while_nobody_watches(worker: Worker, monkeypatch):
    counted = ReadsCounted(worker.store, monkeypatch)
    batch = await worker.submit(["i0"])

    await worker.end_of(batch)

    assert counted.by_watchers["events.after"] == 0


async def test_only_events_that_somebody_watches_are_read(worker: Worker, monkeypatch):
    counted = ReadsCounted(worker.store, monkeypatch)
    async with gated(worker.work) as gate:
        watched = await worker.submit(["i0"])
        others = [await worker.submit(["i0"]) for _ in range(5)]
        watch = worker.watch(watched)
        await anext(watch)
        gate.set()
        for other in others:
            await worker.end_of(other)
        await _rest_of(watch)

    assert {key for key, _ in counted.events_read} == {watched.key}
