"""Watching all batches: nothing is missed, and memory stays bounded by what runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from batchwork_server.application import watching_many
from batchwork_server.application.told import HEARTBEAT, FeedMessage, FeedPoint
from batchwork_server.domain.batch import UserValidation
from batchwork_server.domain.feed_place import FeedPlace
from batchwork_server.domain.filters import BatchFilter
from batchwork_server.domain.selection import SelectedItem
from batchwork_server.errors import QuotaExceeded, ResumeTokenExpired, ShuttingDown
from batchwork_server.store import tables

from tests.engine.conftest import Worker, gated
from tests.engine.counting import ReadsCounted
from tests.fakes import FakeClock, FakeProcessor

_Key = tuple[str, int, str]


def watch_many(worker: Worker, **changes: Any) -> AsyncGenerator[FeedMessage, None]:
    matching = {"tenant_id": "default"} | changes.pop("matching", {})
    defaults: dict[str, Any] = {
        "resume": None,
        "min_interval": timedelta(milliseconds=100),
        "with_progress": True,
    }
    return worker.watching.watch_many(BatchFilter(**matching), **defaults | changes)


async def until(
    watch: AsyncIterator[FeedMessage], holds: Callable[[FeedMessage], bool]
) -> list[FeedMessage]:
    """Returns the messages up to the first of which something holds."""
    told = []
    async with asyncio.timeout(60):
        async for message in watch:
            told.append(message)
            if holds(message):
                break
    return told


def ends(number: int) -> Callable[[FeedMessage], bool]:
    """Holds of the message with which so many batches are over."""
    left = number

    def is_last(message: FeedMessage) -> bool:
        nonlocal left
        left -= message.kind == "END"
        return left == 0

    return is_last


def key_of(message: FeedMessage) -> _Key:
    return message.batch_id, message.sequence, message.event_type


def of_batch(told: list[FeedMessage], batch_id: str) -> list[str]:
    return [m.event_type for m in told if m.batch_id == batch_id and m.kind != "PROGRESS"]


@asynccontextmanager
async def joined(worker: Worker, **changes: Any) -> AsyncIterator[AsyncGenerator[FeedMessage]]:
    """Watches from before what the test does: one batch has come and gone already."""
    async with gated(worker.work) as gate, aclosing(watch_many(worker, **changes)) as watch:
        await worker.submit(["first"])
        await anext(watch)
        gate.set()
        await until(watch, ends(1))
        yield watch


async def test_it_begins_with_a_snapshot_of_each_batch_that_is_not_over(worker: Worker):
    await worker.finish(await worker.submit(["i0"]))
    async with gated(worker.work):
        running = [await worker.submit(["i0"]) for _ in range(3)]
        async with aclosing(watch_many(worker)) as watch:
            told = [await anext(watch) for _ in running]

    assert {message.kind for message in told} == {"SNAPSHOT"}
    assert [m.batch_id for m in told] == [batch.batch_id for batch in reversed(running)]


async def test_snapshots_come_page_by_page(worker: Worker, monkeypatch):
    monkeypatch.setattr(watching_many, "_SNAPSHOT_PAGE", 2)
    async with gated(worker.work):
        running = [await worker.submit(["i0"]) for _ in range(5)]
        async with aclosing(watch_many(worker)) as watch:
            told = [await anext(watch) for _ in running]

    assert {m.batch_id for m in told} == {batch.batch_id for batch in running}


async def test_a_batch_is_shown_from_its_creation_to_its_end(worker: Worker):
    async with joined(worker) as watch:
        batch = await worker.submit([f"i{n}" for n in range(25)])
        told = await until(watch, ends(1))

    assert of_batch(told, batch.batch_id) == ["batch:created", "batch:started", "batch:completed"]
    assert told[-1].batch.counts.succeeded == 25
    assert {m.tenant_id for m in told} == {"default"}
    sequences = [message.sequence for message in told]
    assert sequences == sorted(set(sequences))


async def test_what_users_were_found_is_told(worker: Worker):
    async with joined(worker) as watch:
        worker.users.add("u1")
        items = tuple(
            SelectedItem(item_id=item_id, user_id=user_id, data_json="{}")
            for item_id, user_id in (("a", "u1"), ("b", "u2"))
        )
        await worker.submit([], items=items)
        [created, validated] = await until(watch, lambda m: m.kind == "VALIDATION")

    assert created.event_type == "batch:created"
    assert (validated.sequence, validated.event_type) == (2, "batch:validated")
    assert validated.user_validation == UserValidation(total=2, valid=1, invalid=1)


@pytest.mark.parametrize(
    "matching",
    [
        pytest.param({"labels": {"team": "blue"}}, id="labels"),
        pytest.param({"tenant_id": None, "labels": {"team": "blue"}}, id="every tenant"),
    ],
)
async def test_only_what_matches_is_told(worker: Worker, matching):
    async with gated(worker.work) as gate:
        before = await worker.submit(["i0"], labels={"team": "blue"})
        await worker.submit(["i0"], labels={"team": "red"})
        async with aclosing(watch_many(worker, matching=matching)) as watch:
            first = await anext(watch)
            await worker.submit(["i0"], labels={"team": "red"})
            after = await worker.submit(["i0"], labels={"team": "blue", "more": "yes"})
            gate.set()
            rest = await until(watch, ends(2))

    assert first.batch_id == before.batch_id
    assert {m.batch_id for m in rest} == {before.batch_id, after.batch_id}


async def test_another_tenant_is_told_nothing(worker: Worker):
    async with aclosing(watch_many(worker, matching={"tenant_id": "other"})) as watch:
        telling = asyncio.create_task(anext(watch))
        async with asyncio.timeout(60):
            while not worker.watchers.count:
                await asyncio.sleep(0)
        await worker.finish(await worker.submit(["i0"]))

        worker.watching.close()

        assert (await telling).kind == "GOING_AWAY"


async def test_progress_is_left_out_when_asked(worker: Worker):
    async with gated(worker.work) as gate:
        await worker.submit([f"i{n}" for n in range(25)])
        async with aclosing(watch_many(worker, with_progress=False)) as watch:
            await anext(watch)
            gate.set()
            told = await until(watch, ends(1))

    assert "PROGRESS" not in {message.kind for message in told}


async def test_at_most_one_progress_of_each_batch_waits(worker: Worker):
    async with gated(worker.work) as gate:
        batches = [await worker.submit([f"i{n}" for n in range(50)]) for _ in range(3)]
        async with aclosing(watch_many(worker, min_interval=timedelta(hours=1))) as watch:
            for _ in batches:
                await anext(watch)
            gate.set()
            told = await until(watch, ends(3))

    # The first is told at once, and the last before the end, because nothing else tells it.
    progress = [m.batch_id for m in told if m.kind == "PROGRESS"]
    assert all(progress.count(batch.batch_id) <= 2 for batch in batches)


async def test_a_watch_that_was_cut_anywhere_misses_nothing(worker: Worker):
    async with gated(worker.work) as gate:
        batches = [await worker.submit([f"i{n}" for n in range(15)]) for _ in range(3)]
        async with aclosing(watch_many(worker)) as watch:
            snapshots = [await anext(watch) for _ in batches]
            gate.set()
            whole = snapshots + await until(watch, ends(3))

    facts = {key_of(m) for m in whole if m.kind not in ("SNAPSHOT", "PROGRESS")}
    for cut in range(len(whole) - 1):
        before = whole[: cut + 1]
        # What came while counts waited may come again, the end of another batch included.
        over = {m.batch_id for m in before if m.kind == "END"}

        def is_last(message: FeedMessage, over: set[str] = over) -> bool:
            over |= {message.batch_id} if message.kind == "END" else set()
            return len(over) == len(batches)

        async with aclosing(watch_many(worker, resume=whole[cut].resume)) as watch:
            rest = await until(watch, is_last)
        seen = {key_of(m) for m in (*before, *rest) if m.kind not in ("SNAPSHOT", "PROGRESS")}
        assert facts <= seen, f"cut after {cut}"


async def test_snapshots_go_on_where_a_stream_broke_among_them(worker: Worker):
    async with gated(worker.work):
        batches = [await worker.submit(["i0"]) for _ in range(4)]
        async with aclosing(watch_many(worker)) as watch:
            before = [await anext(watch) for _ in range(2)]

        async with aclosing(watch_many(worker, resume=before[-1].resume)) as watch:
            rest = [await anext(watch) for _ in range(2)]

    told = [m.batch_id for m in (*before, *rest) if m.kind == "SNAPSHOT"]
    assert sorted(told) == sorted(batch.batch_id for batch in batches)


async def test_a_slow_reader_goes_back_to_the_table_and_misses_nothing(worker: Worker, monkeypatch):
    monkeypatch.setattr(watching_many, "_MOST_WAITING", 4)
    async with gated(worker.work) as gate:
        batches = [await worker.submit([f"i{n}" for n in range(25)]) for _ in range(4)]
        async with aclosing(watch_many(worker)) as watch:
            await anext(watch)
            gate.set()
            for batch in batches:
                await worker.end_of(batch)
            told = await until(watch, ends(4))

    for batch in batches:
        assert of_batch(told, batch.batch_id)[-1] == "batch:completed"
    facts = [key_of(m) for m in told if m.kind != "SNAPSHOT"]
    assert len(facts) == len(set(facts))


async def test_a_thousand_watchers_of_many_batches_share_every_look(start_worker, monkeypatch):
    worker = await start_worker(max_watchers=1000)
    counted = ReadsCounted(worker.store, monkeypatch)
    reads = {}
    for number in (1, 1000):
        async with gated(worker.work) as gate:
            batches = [await worker.submit(["i0"]) for _ in range(5)]
            watches = [watch_many(worker) for _ in range(number)]
            for watch in watches:
                await until(watch, lambda message: message.batch_id == batches[0].batch_id)  # noqa: B023
            counted.reset()
            gate.set()

            rests = await asyncio.gather(*[until(watch, ends(5)) for watch in watches])

        for watch in watches:
            await watch.aclose()
        ended = [{m.batch_id for m in told if m.kind == "END"} for told in rests]
        assert all(ids == {batch.batch_id for batch in batches} for ids in ended)
        reads[number] = counted.by_watchers.copy()

    # How often the feed looks depends on the pace of the machine, but not on who watches.
    assert reads[1000]["events.of_batch"] == reads[1000]["batches.list"] == 0
    assert reads[1000]["batches.get_by_key"] <= reads[1]["batches.get_by_key"] + 10
    assert reads[1000]["events.after"] < 100


async def test_a_retried_batch_comes_back_and_ends_again(worker: Worker):
    worker.work.on("i0", *[ValueError("no")] * 4)
    batch = await worker.finish(await worker.submit(["i0", "i1"]))
    async with joined(worker) as watch:
        await worker.retry(batch)
        told = await until(watch, ends(1))

    assert of_batch(told, batch.batch_id)[0] == "batch:retried"
    assert told[-1].batch.counts.succeeded == 2
    assert told[-1].batch.attempt_number == 2


async def test_a_token_before_events_that_were_forgotten_has_expired(worker: Worker):
    async with joined(worker) as watch:
        batch = await worker.submit(["i0"])
        told = await until(watch, ends(1))
    events = tables.events.c
    async with worker.store.transaction() as tx:
        await tx.connection.execute(
            sa.delete(tables.events).where(
                events.batch_key == batch.key, events.sequence < told[-1].sequence
            )
        )

    with pytest.raises(ResumeTokenExpired, match="not kept"):
        await anext(watch_many(worker, resume=told[0].resume))

    async with aclosing(watch_many(worker, resume=told[-1].resume)) as watch:
        later = asyncio.create_task(until(watch, ends(1)))
        other = await worker.submit(["i0"])
        assert {message.batch_id for message in await later} == {other.batch_id}


async def test_what_is_left_of_a_deleted_batch_is_told_to_nobody(worker: Worker):
    async with gated(worker.work):
        kept = await worker.submit(["i0"])
        async with aclosing(watch_many(worker)) as watch:
            token = (await anext(watch)).resume
    deleted = await worker.end_of(await worker.submit(["i0"]))
    await worker.end_of(kept)
    async with worker.store.transaction() as tx:
        assert await worker.store.retention.delete(tx, deleted.key)

    async with aclosing(watch_many(worker, resume=token)) as watch:
        told = await until(watch, ends(1))

    assert {message.batch_id for message in told} == {kept.batch_id}


async def test_a_token_from_the_future_is_refused(worker: Worker):
    future = FeedPoint(place=FeedPlace(2**40, 2**40))

    with pytest.raises(ResumeTokenExpired, match="newer"):
        await anext(watch_many(worker, resume=future))


async def test_silence_is_broken_by_heartbeats_about_no_batch(start_worker):
    clock, work = FakeClock(), FakeProcessor()
    worker = await start_worker(work, clock=clock)
    watch = watch_many(worker)
    heartbeat = asyncio.create_task(anext(watch))
    async with asyncio.timeout(60):
        while not heartbeat.done():
            waited_on = asyncio.create_task(clock.waited_on())
            await asyncio.wait({heartbeat, waited_on}, return_when=asyncio.FIRST_COMPLETED)
            waited_on.cancel()
            clock.advance(HEARTBEAT)
    message = await heartbeat
    await watch.aclose()

    assert (message.kind, message.batch_id, message.sequence) == ("HEARTBEAT", "", 0)
    assert worker.watchers.count == 0


async def test_both_kinds_of_watchers_share_the_quota(worker: Worker):
    async with gated(worker.work):
        batch = await worker.submit(["i0"])
        watches = [worker.watch(batch) for _ in range(5)]
        many = [watch_many(worker) for _ in range(5)]
        for watch in (*watches, *many):
            await anext(watch)

        with pytest.raises(QuotaExceeded):
            await anext(watch_many(worker))
        with pytest.raises(QuotaExceeded):
            await anext(worker.watch(batch))
        for watch in (*watches, *many):
            await watch.aclose()


async def test_it_ends_when_the_server_goes_away(worker: Worker):
    async with gated(worker.work):
        await worker.submit(["i0"])
        watch = watch_many(worker)
        await anext(watch)

        worker.watching.close()

        last = (await until(watch, lambda m: m.kind == "GOING_AWAY"))[-1]
        with pytest.raises(ShuttingDown):
            await anext(watch)

    assert last.batch_id == ""
