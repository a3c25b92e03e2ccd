"""The events of all batches in one order, on each database."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from batchwork_server.application.event_feed import FedEvent, TableReader
from batchwork_server.domain.batch import Batch, UserValidation
from batchwork_server.domain.feed_place import FeedPlace
from batchwork_server.store import tables
from batchwork_server.store.database import open_database
from batchwork_server.store.sql_store import SqlStore
from batchwork_server.store.store import Transaction

from tests.factories import TENANT, make_chunk, make_item, make_items, make_request
from tests.fakes import START

FIRST = FeedPlace(0, 0)


async def insert(store: SqlStore, tx: Transaction, batch_id: str, **changes) -> Batch:
    return await store.batches.insert(
        tx,
        tenant_id=TENANT,
        batch_id=batch_id,
        request=make_request(**changes),
        items=make_items(1),
        chunks=[make_chunk(0, 1)],
        now=START,
    )


async def created(store: SqlStore, batch_id: str, **changes) -> Batch:
    async with store.transaction() as tx:
        return await insert(store, tx, batch_id, **changes)


async def settled(store: SqlStore, after: FeedPlace = FIRST) -> list[int]:
    """Returns the batches whose events no other one can slip in before."""
    events = await store.events.after(after, limit=100)
    return [event.batch_key for event in events if event.is_settled]


async def until_settled(store: SqlStore, count: int, after: FeedPlace = FIRST) -> list[int]:
    """Returns the batches when there are so many; transactions of other tests may go on."""
    async with asyncio.timeout(60):
        while len(keys := await settled(store, after)) < count:
            await asyncio.sleep(0)
    return keys


async def test_events_of_all_batches_come_in_the_order_in_which_they_were_written(store):
    one, two = await created(store, "bat-1"), await created(store, "bat-2")

    assert await until_settled(store, 2) == [one.key, two.key]
    [first, second] = await store.events.after(FIRST, limit=100)
    assert await until_settled(store, 1, after=first.place) == [two.key]
    assert first.place < second.place
    assert store.events.read(first).event_type == "batch:created"


async def test_a_page_holds_no_more_than_is_asked_for(store):
    for number in range(3):
        await created(store, f"bat-{number}")

    assert len(await store.events.after(FIRST, limit=2)) == 2


async def test_what_is_written_later_comes_after_the_newest_place(store):
    await created(store, "bat-1")
    await until_settled(store, 1)
    newest = await store.events.newest()

    later = await created(store, "bat-2")

    assert await until_settled(store, 1, after=newest) == [later.key]


async def test_the_newest_place_stays_when_the_newest_events_are_deleted(store):
    await created(store, "bat-1")
    newest = await store.events.newest()
    async with store.transaction() as tx:
        await tx.connection.execute(sa.delete(tables.events))

    assert await store.events.newest() >= newest


async def test_validated_users_are_an_event_of_their_own(store):
    found = UserValidation(total=3, valid=2, invalid=1)

    batch = await created(store, "bat-1", user_validation=found)

    events = [
        store.events.read(event)
        for event in await store.events.of_batch(batch.key, after=0, limit=100)
    ]
    assert [(e.sequence, e.kind, e.event_type) for e in events] == [
        (1, "STATE_CHANGED", "batch:created"),
        (2, "VALIDATION", "batch:validated"),
    ]
    assert batch.sequence == 2


async def test_a_batch_that_is_over_at_once_tells_of_its_users_before_its_end(store):
    async with store.transaction() as tx:
        batch = await store.batches.insert(
            tx,
            tenant_id=TENANT,
            batch_id="bat-1",
            request=make_request(user_validation=UserValidation(total=1, invalid=1)),
            items=[make_item("a", skip_reason="USER_NOT_FOUND")],
            chunks=[],
            now=START,
        )

    events = await store.events.of_batch(batch.key, after=0, limit=100)
    assert [store.events.read(e).event_type for e in events] == [
        "batch:created",
        "batch:validated",
        "batch:completed",
    ]
    assert batch.sequence == 3


async def test_an_event_whose_predecessor_was_forgotten_is_cut_off(store):
    batch = await created(store, "bat-1", user_validation=UserValidation(total=1, valid=1))
    whole = await store.events.after(FIRST, limit=100)
    async with store.transaction() as tx:
        forgotten = tables.events.c.sequence == 1
        await tx.connection.execute(sa.delete(tables.events).where(forgotten))

    [left] = await store.events.after(FIRST, limit=100)

    assert [event.is_cut_off for event in whole] == [False, False]
    assert (left.batch_key, left.sequence, left.is_cut_off) == (batch.key, 2, True)


@pytest.fixture
async def postgresql(postgresql_url):
    database = await open_database(postgresql_url)
    yield SqlStore(database)
    await database.close()


async def test_nothing_is_settled_that_a_running_transaction_can_come_before(postgresql):
    async with postgresql.transaction() as slow:
        first = await insert(postgresql, slow, "bat-slow")
        second = await created(postgresql, "bat-fast")

        seen = await postgresql.events.after(FIRST, limit=100)

        assert [(event.batch_key, event.is_settled) for event in seen] == [(second.key, False)]
    assert await until_settled(postgresql, 2) == [first.key, second.key]


async def test_a_reader_misses_nothing_that_was_committed_late(postgresql):
    # A feed that went on after the highest position it saw lost what a slower transaction had
    # written at a lower one.
    reader = TableReader(postgresql, FIRST)
    async with postgresql.transaction() as slow:
        first = await insert(postgresql, slow, "bat-slow")
        second = await created(postgresql, "bat-fast")
        early = (await reader.look()).events

    late: list[FedEvent] = []
    async with asyncio.timeout(60):
        while len(late) < 2:
            late += (await reader.look()).events

    assert early == []
    assert [event.batch_key for event in late] == [first.key, second.key]


async def test_events_of_a_batch_keep_their_order_when_transactions_overlap(postgresql):
    # The transaction that began first wrote to the batch last, so its number is the lower one.
    batch = await created(postgresql, "bat-1")
    await until_settled(postgresql, 1)
    reader = TableReader(postgresql, FIRST)
    await reader.look()
    async with postgresql.transaction() as older:
        await insert(postgresql, older, "bat-2")
        async with postgresql.transaction() as younger:
            await note(younger, batch.key, sequence=2)
        await note(older, batch.key, sequence=3)

    told: list[FedEvent] = []
    async with asyncio.timeout(60):
        while len(told) < 3:
            told += (await reader.look()).events

    of_batch = [event for event in told if event.batch_key == batch.key]
    assert [event.sequence for event in of_batch] == [2, 3]
    assert of_batch[0].place > of_batch[1].place
    assert of_batch[0].after < of_batch[1].place


async def note(tx: Transaction, batch_key: int, *, sequence: int) -> None:
    """Writes an event as any transaction does that holds the row of the batch."""
    await tx.connection.execute(
        sa.update(tables.batches)
        .where(tables.batches.c.batch_key == batch_key)
        .values(event_sequence=sequence)
    )
    await tx.connection.execute(
        sa.insert(tables.events).values(
            batch_key=batch_key,
            sequence=sequence,
            kind="STATE_CHANGED",
            event_type="batch:started",
            event_time=0,
            payload_json="{}",
        )
    )
