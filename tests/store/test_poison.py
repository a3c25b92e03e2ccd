"""An item that brings its process down, and is tried again, on each database.

The state machine's author looked for two attempts of one item with the same number. There were
some: the outcome of an item that died with its process told of the attempts before it and not of
its own. When RetryBatch kept that outcome among the earlier attempts, their numbers met, and the
call ended as an internal error, for this batch for ever.
"""

from __future__ import annotations

from batchwork_server.domain.filters import RetryFilter
from batchwork_server.engine.executor import poisoned

from tests.fakes import START
from tests.store.test_chunks import claim, current, insert, record_of

MICROS = 1_000_000


async def test_an_item_that_is_poison_can_be_tried_again_as_often_as_anybody_likes(store):
    batch = await insert(store, 1)

    for _ in range(3):
        [chunk] = await claim(store)
        [item] = chunk.items
        now = int(START.timestamp()) * MICROS
        await store.chunks.record([record_of(chunk, [poisoned(item, now=now)])], now=START)
        batch = await current(store, batch)
        async with store.transaction() as tx:
            _, count = await store.changes.reopen(tx, batch, RetryFilter(), now=START)
        assert count == 1

    item = await store.batches.get_item(await current(store, batch), "item-0")
    assert [attempt.number for attempt in item.attempts] == [1, 2, 3]
