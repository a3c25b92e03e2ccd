"""Cancelling a batch before anybody works on it, on each database."""

from __future__ import annotations

from datetime import timedelta

from batchwork_server.domain.batch import BatchState, Counts
from batchwork_server.domain.item import ItemState, Outcome
from batchwork_server.store.sql_store import SqlStore
from batchwork_server.store.store import ChunkRecord

from tests.factories import TENANT, make_chunk, make_items, make_request
from tests.fakes import START


async def test_a_batch_that_has_not_begun_can_be_cancelled(store: SqlStore):
    async with store.transaction() as tx:
        batch = await store.batches.insert(
            tx,
            tenant_id=TENANT,
            batch_id="bat-1",
            request=make_request(),
            items=make_items(2),
            chunks=[make_chunk(item_count=2)],
            now=START,
        )

    async with store.transaction() as tx:
        cancelling = await store.batches.cancel(tx, batch.key, now=START)
    [(key, _)] = await store.chunks.next_chunks(now=START, limit=1)
    lease_time = START + timedelta(seconds=30)
    claimed = await store.chunks.claim([key], owner="worker", now=START, lease_time=lease_time)
    [chunk] = claimed.chunks
    outcomes = [
        Outcome(index=index, state=ItemState.CANCELLED, attempts=0, end_time=START)
        for index in range(2)
    ]
    record = ChunkRecord(
        chunk_key=key, epoch=chunk.epoch, batch_key=batch.key, outcomes=outcomes, done=True
    )
    recorded = await store.chunks.record([record], now=START)

    assert cancelling is not None
    assert cancelling.state is BatchState.CANCELLING
    assert claimed.batches[batch.key].state is BatchState.CANCELLING
    assert recorded.batches[batch.key].state is BatchState.CANCELLED
    assert recorded.batches[batch.key].counts == Counts(total=2, cancelled=2)
