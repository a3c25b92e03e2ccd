"""What the workers take items from."""

from __future__ import annotations

import asyncio
from collections import deque

from batchwork_server.domain.item import PendingItem
from batchwork_server.engine.executor import RunningBatch
from batchwork_server.engine.feed import ChunkRun, Feed
from batchwork_server.store.store import ClaimedChunk

from tests.factories import make_batch


def run_of(*items: PendingItem) -> ChunkRun:
    chunk = ClaimedChunk(
        chunk_key=1, epoch=1, batch_key=1, items=list(items), crashes=0, suspect_index=None
    )
    return ChunkRun(chunk=chunk, running=RunningBatch(batch=make_batch()), queue=deque(items))


async def test_the_last_item_of_a_chunk_comes_back_when_it_is_interrupted():
    # The story: its chunk had left the feed by then. The item was stuck and counted as queued for
    # ever, so that the server claimed less.
    feed, item = Feed(), PendingItem(0, "i0", None, "{}", 0)
    run = run_of(item)
    feed.put(run)
    first = feed.take()
    nothing = feed.take()
    idle = asyncio.create_task(feed.wait())
    await asyncio.sleep(0)

    feed.interrupt(run, item)
    await idle
    again = feed.take()

    assert (first, nothing, again) == ((run, item), None, (run, item))
    assert (feed.queued, run.in_flight, run.running.in_flight) == (0, 1, 1)
