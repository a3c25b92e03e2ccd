"""Finished items come in the order in which they finished, each once, on each database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from batchwork_server.application.batches import chunks_of
from batchwork_server.application.results import (
    LONGEST_SILENCE,
    PAGE_ITEMS,
    ResultPage,
    ResultPoint,
    Results,
    Wanted,
)
from batchwork_server.domain.batch import Batch
from batchwork_server.domain.filters import RetryFilter
from batchwork_server.domain.item import ItemError, ItemState, NewItem, Outcome
from batchwork_server.errors import NotFound, ResumeTokenExpired, ShuttingDown
from batchwork_server.store.sql_store import SqlStore
from batchwork_server.store.statements import run
from batchwork_server.store.store import ChunkRecord, ClaimedChunk
from batchwork_server.wakeups import Wakeups

from tests.factories import TENANT, make_item, make_items, make_options, make_outcome, make_request
from tests.fakes import START, FakeClock
from tests.store.test_chunks import claim

FAILED = ItemState.FAILED


@pytest.fixture
def wakeups() -> Wakeups:
    return Wakeups()


@pytest.fixture
def results(store: SqlStore, clock: FakeClock, wakeups: Wakeups) -> Results:
    return Results(store=store, clock=clock, wakeups=wakeups)


async def insert(store: SqlStore, items: Sequence[NewItem], *, chunk_size: int = 10) -> Batch:
    request = make_request(options=make_options(chunk_size=chunk_size))
    async with store.transaction() as tx:
        return await store.batches.insert(
            tx,
            tenant_id=TENANT,
            batch_id="bat-1",
            request=request,
            items=items,
            chunks=chunks_of(items, request.options, now=START),
            now=START,
        )


def failed(index: int) -> Outcome:
    error = ItemError(reason="BUSY", message="Come back later.", retryable=False)
    return make_outcome(index, state=FAILED, result_json=None, error=error)


async def record(store: SqlStore, chunk: ClaimedChunk, *failing: int, **changes: Any) -> None:
    """Records every item of a chunk as succeeded, but for those that failed."""
    outcomes = [
        replace(
            failed(item.index) if item.index in failing else make_outcome(item.index, **changes),
            is_new=item.is_new,
        )
        for item in chunk.items
    ]
    one = ChunkRecord(
        chunk_key=chunk.chunk_key,
        epoch=chunk.epoch,
        batch_key=chunk.batch_key,
        taken=len(chunk.items),
        outcomes=outcomes,
        done=True,
    )
    await store.chunks.record([one], now=START)


async def pages_of(
    results: Results,
    batch: Batch,
    *,
    resume: ResultPoint | None = None,
    follow: bool = False,
    **wanted: Any,
) -> list[ResultPage]:
    stream = results.stream_results(batch, resume=resume, wanted=Wanted(**wanted), follow=follow)
    return [page async for page in stream]


def indexes_in(pages: Sequence[ResultPage]) -> list[int]:
    return [item.index for page in pages for item in page.items]


async def retry(store: SqlStore, batch: Batch) -> None:
    async with store.transaction() as tx:
        await store.changes.reopen(tx, batch, RetryFilter(), now=START)


async def forget_events(store: SqlStore, batch: Batch) -> None:
    async with store.transaction() as tx:
        await run(tx.connection, "DELETE FROM events WHERE batch_key = ?", (batch.key,))


async def test_items_come_in_the_order_in_which_they_finished(store, results):
    batch = await insert(store, make_items(30))
    first, second, third = await claim(store)
    await record(store, third)
    await record(store, first)

    shown = indexes_in(await pages_of(results, batch))

    assert shown == [*range(20, 30), *range(10)]
    await record(store, second)
    assert indexes_in(await pages_of(results, batch)) == [*shown, *range(10, 20)]


async def test_items_that_were_skipped_from_the_start_come_first(store, results):
    skipped = make_item(skip_reason="USER_NOT_FOUND")
    batch = await insert(store, [make_item(), skipped, make_item()])
    [chunk] = await claim(store)
    await record(store, chunk)

    assert indexes_in(await pages_of(results, batch)) == [1, 0, 2]


async def test_a_stream_goes_on_after_any_item(store, results):
    batch = await insert(store, make_items(20))
    first, second = await claim(store)
    await record(store, second)
    await record(store, first)
    [page] = await pages_of(results, batch)

    for place, item in enumerate(page.items):
        sequence = page.resume.sequence - (1 if item.index >= 10 else 0)
        after = ResultPoint(sequence=sequence, item_index=item.index)
        rest = indexes_in(await pages_of(results, batch, resume=after))
        assert rest == [each.index for each in page.items[place + 1 :]]


async def test_a_page_has_no_more_items_than_a_message_may(store, results):
    batch = await insert(store, make_items(PAGE_ITEMS * 2 + 1), chunk_size=1000)
    for chunk in await claim(store):
        await record(store, chunk)

    pages = await pages_of(results, batch)

    assert [len(page.items) for page in pages] == [PAGE_ITEMS, PAGE_ITEMS, 1]
    assert indexes_in(pages) == list(range(PAGE_ITEMS * 2 + 1))


async def test_no_query_asks_for_more_rows_than_a_page_has(store, results, monkeypatch):
    batch = await insert(store, make_items(3000), chunk_size=1000)
    for chunk in await claim(store):
        await record(store, chunk, *range(0, 3000, 3))
    asked: list[int] = []
    for name in ("weights", "items"):
        method = getattr(store.results, name)

        async def measured(batch, indexes, *, method=method, **more):
            asked.append(len(indexes))
            return await method(batch, indexes, **more)

        monkeypatch.setattr(store.results, name, measured)

    shown = indexes_in(await pages_of(results, batch))

    assert shown == list(range(3000))
    assert max(asked) == PAGE_ITEMS


async def test_large_items_make_small_pages(store, results):
    batch = await insert(store, [make_item(data="x" * 400_000) for _ in range(7)])
    [chunk] = await claim(store)
    await record(store, chunk, result_json='"' + "ä" * 100_000 + '"')

    pages = await pages_of(results, batch)
    without = await pages_of(results, batch, with_data=False)

    assert [len(page.items) for page in pages] == [1] * 7
    assert [len(page.items) for page in without] == [5, 2]
    assert {item.data_json for page in without for item in page.items} == {""}


async def test_an_item_that_was_opened_again_comes_once_when_it_is_done_again(store, results):
    batch = await insert(store, make_items(20))
    first, second = await claim(store)
    await record(store, first, 3, 4)
    await record(store, second)
    await retry(store, batch)

    while_open = indexes_in(await pages_of(results, batch))
    [again] = await claim(store)
    await record(store, again)
    done = indexes_in(await pages_of(results, batch))

    rest = [0, 1, 2, *range(5, 20)]
    assert while_open == rest
    assert done == [*rest, 3, 4]


async def test_only_items_in_the_wanted_states_come(store, results):
    batch = await insert(store, make_items(20))
    for chunk in await claim(store):
        await record(store, chunk, 3, 12)

    assert indexes_in(await pages_of(results, batch, states=(FAILED,))) == [3, 12]
    after = ResultPoint(sequence=3, item_index=3)
    assert indexes_in(await pages_of(results, batch, states=(FAILED,), resume=after)) == [12]


async def test_items_whose_events_were_forgotten_come_in_the_order_of_the_batch(store, results):
    batch = await insert(store, make_items(1200), chunk_size=600)
    first, second = await claim(store)
    await record(store, second, 700)
    await record(store, first)
    await forget_events(store, batch)

    pages = await pages_of(results, batch)

    assert indexes_in(pages) == list(range(1200))
    assert indexes_in(await pages_of(results, batch, resume=pages[0].resume)) == [*range(500, 1200)]
    assert indexes_in(await pages_of(results, batch, states=(FAILED,))) == [700]


async def test_what_was_retried_after_that_comes_after_the_rest(store, results):
    batch = await insert(store, make_items(10))
    [chunk] = await claim(store)
    await record(store, chunk, 2, 5)
    await forget_events(store, batch)
    await retry(store, batch)
    [again] = await claim(store)

    while_open = indexes_in(await pages_of(results, batch))
    await record(store, again)
    pages = await pages_of(results, batch)

    assert while_open == [0, 1, 3, 4, 6, 7, 8, 9]
    assert indexes_in(pages) == [*while_open, 2, 5]
    assert indexes_in(await pages_of(results, batch, resume=pages[-1].resume)) == []


async def test_a_token_into_forgotten_events_has_expired(store, results):
    batch = await insert(store, make_items(10))
    [chunk] = await claim(store)
    await record(store, chunk)
    [page] = await pages_of(results, batch)
    await forget_events(store, batch)

    with pytest.raises(ResumeTokenExpired):
        await pages_of(results, batch, resume=page.resume)


async def test_a_token_from_the_future_has_expired(store, results):
    batch = await insert(store, make_items(10))

    with pytest.raises(ResumeTokenExpired):
        await pages_of(results, batch, resume=ResultPoint(sequence=99, item_index=0))


async def test_a_stream_that_follows_ends_with_the_batch(store, results, clock, wakeups):
    batch = await insert(store, make_items(20))
    first, second = await claim(store)
    await record(store, second)
    following = asyncio.create_task(pages_of(results, batch, follow=True))
    await clock.waited_on()

    await record(store, first)
    wakeups.batch_changed(batch)
    await clock.waited_on()  # for the shortest time between two looks
    clock.advance(LONGEST_SILENCE)

    async with asyncio.timeout(30):
        assert indexes_in(await following) == [*range(10, 20), *range(10)]


async def test_a_lost_wake_up_costs_a_second_and_nothing_else(store, results, clock):
    batch = await insert(store, make_items(10))
    [chunk] = await claim(store)
    following = asyncio.create_task(pages_of(results, batch, follow=True))
    await clock.waited_on()

    await record(store, chunk)

    async with asyncio.timeout(30):
        while not following.done():
            clock.advance(LONGEST_SILENCE)
            await asyncio.sleep(0)
    assert indexes_in(await following) == list(range(10))


async def test_a_server_that_stops_ends_its_streams(store, results, clock):
    batch = await insert(store, make_items(10))
    following = asyncio.create_task(pages_of(results, batch, follow=True))
    await clock.waited_on()

    results.close()

    with pytest.raises(ShuttingDown):
        async with asyncio.timeout(30):
            await following
    with pytest.raises(ShuttingDown):
        await pages_of(results, batch)


async def test_a_reader_that_leaves_is_forgotten(store, results):
    batch = await insert(store, make_items(PAGE_ITEMS + 1), chunk_size=1000)
    [chunk] = await claim(store)
    await record(store, chunk)
    stream = results.stream_results(batch, resume=None, wanted=Wanted(), follow=True)

    async with aclosing(stream):
        await anext(stream)

    assert not results._news


async def test_a_batch_that_was_deleted_meanwhile_is_not_found(store, results):
    batch = await insert(store, make_items(1))
    async with store.transaction() as tx:
        await run(tx.connection, "DELETE FROM batches WHERE batch_key = ?", (batch.key,))

    with pytest.raises(NotFound):
        await pages_of(results, batch)
