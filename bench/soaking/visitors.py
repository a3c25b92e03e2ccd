"""Everybody who uses the server during a soak: each kind is one endless round."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import timedelta
from uuid import uuid4

import grpc
from batchwork.v1.batch_pb2 import Batch, BatchState
from batchwork.v1.batch_service_pb2 import (
    BATCH_EVENT_KIND_PROGRESS,
    WatchBatchRequest,
    WatchBatchResponse,
)
from batchwork.v1.batch_service_pb2_grpc import BatchServiceStub
from batchwork.v1.item_pb2 import ItemInput, ItemState
from batchwork_client import Batchwork, WrongStateError, connect

from bench.fates import Fate
from bench.soaking.ledger import Expected, Ledger

Round = Callable[[], Awaitable[None]]

_MIXED = (Fate.SUCCEED,) * 12 + (Fate.RETRY, Fate.FAIL, Fate.SKIP, Fate.WAIT)
_SMALL = 40
_LARGE = 4_000
_SLOW = 400
_RECENT = 40  # batches that the others look at
_KEPT = 200  # batches that are not deleted yet
_DEAF = 5  # watchers at once that never read
_PAUSE = 0.2


class Visitors:
    """The load of one soak, through one server's API.

    Args:
        channel: Only for those who behave in a way that the client package does not.
    """

    def __init__(
        self, client: Batchwork, channel: grpc.aio.Channel, target: str, ledger: Ledger
    ) -> None:
        self._client = client
        self._stub = BatchServiceStub(channel)
        self._target = target
        self._ledger = ledger
        self._random = random.Random(7)
        self._recent: deque[str] = deque(maxlen=_RECENT)
        self._over: deque[str] = deque()
        self._deaf: deque[grpc.aio.UnaryStreamCall[WatchBatchRequest, WatchBatchResponse]] = deque()

    @property
    def rounds(self) -> Sequence[Round]:
        """What goes on side by side, again and again."""
        return [
            *[self.process_small_batch] * 3,
            self.process_large_batch,
            self.cancel_batch,
            *[self.watch_for_a_while] * 2,
            self.list_and_read,
            self.pause_and_resume,
            self.retry_failed,
            self.delete_old,
            self.upload,
        ]

    async def process_small_batch(self) -> None:
        """Creates a batch, now and then twice with one request id, and waits for its end."""
        fates = self._fates(self._random.randint(1, _SMALL))
        request_id = uuid4().hex
        batch = await self._create(fates, request_id=request_id)
        if self._random.random() < 0.1:
            again = await self._client.batches.create_batch(
                _items(fates), template_id="fated", request_id=request_id
            )
            if again.batch_id != batch.batch_id:
                self._ledger.complain(f"{again.batch_id} repeats {batch.batch_id}.")
        await self._wait(batch)

    async def process_large_batch(self) -> None:
        """Creates a large batch that somebody watches who never reads, and reads what failed."""
        fates = self._fates(_LARGE)
        batch = await self._create(fates)
        await self._open_deaf_watch(batch)
        await self._wait(batch)
        failed = await _count(
            self._client.batches.list_items(batch.batch_id, states=[ItemState.ITEM_STATE_FAILED])
        )
        if failed != fates.count(Fate.FAIL):
            self._ledger.complain(f"{batch.batch_id} lists {failed} failed items.")
        await asyncio.sleep(5 * _PAUSE)

    async def cancel_batch(self) -> None:
        """Cancels a batch that has begun."""
        batch = await self._create([Fate.WAIT] * _SLOW, may_be_cancelled=True)
        await self._see_progress(batch)
        await self._unless_over(self._client.batches.cancel_batch(batch.batch_id))
        await self._wait(batch)
        await asyncio.sleep(_PAUSE)

    async def watch_for_a_while(self) -> None:
        """Connects anew, watches a batch, leaves, and sometimes comes back to where it was."""
        batch_id = self._any_recent()
        if batch_id is not None:
            include_items = self._random.random() < 0.5
            async with connect(self._target) as client:
                token = await self._watch_some(client, batch_id, include_items=include_items)
                if self._random.random() < 0.5:
                    await self._watch_some(
                        client, batch_id, include_items=include_items, resume_token=token
                    )
        await asyncio.sleep(_PAUSE * self._random.random())

    async def list_and_read(self) -> None:
        """Turns pages of batches and items."""
        await _count(self._client.batches.list_batches(limit=250))
        running = [BatchState.BATCH_STATE_RUNNING]
        await _count(self._client.batches.list_batches(states=running, limit=100))
        batch_id = self._any_recent()
        if batch_id is not None:
            await _count(self._client.batches.list_items(batch_id, limit=300))
            await self._client.batches.get_item(batch_id, item_id="item-0")
        await asyncio.sleep(_PAUSE)

    async def pause_and_resume(self) -> None:
        batch = await self._create([Fate.WAIT] * _SLOW)
        await self._see_progress(batch)
        if await self._unless_over(self._client.batches.pause_batch(batch.batch_id)):
            await asyncio.sleep(_PAUSE)
            await self._unless_over(self._client.batches.resume_batch(batch.batch_id))
        await self._wait(batch)
        await asyncio.sleep(_PAUSE)

    async def retry_failed(self) -> None:
        """Runs what failed again; it was made to fail, and does."""
        batch = await self._create([Fate.FAIL, Fate.SUCCEED] * _SMALL)
        await self._wait(batch)
        await self._client.batches.retry_batch(batch.batch_id)
        self._ledger.done(await self._client.batches.wait_for_batch(batch.batch_id))
        await asyncio.sleep(_PAUSE)

    async def delete_old(self) -> None:
        """Deletes batches that nobody looks at any more."""
        while len(self._over) > _KEPT:
            batch_id = self._over.popleft()
            self._ledger.deleted(batch_id)
            await self._client.batches.delete_batch(batch_id)
        await asyncio.sleep(_PAUSE)

    async def upload(self) -> None:
        fates = self._fates(_LARGE)
        draft = await self._client.batches.create_batch(template_id="fated", draft=True)
        self._ledger.created(draft.batch_id, Expected(fates=Counter(fates)))
        await self._client.batches.upload_items(draft.batch_id, _items(fates))
        await self._wait(
            await self._client.batches.seal_batch(draft.batch_id, expected_count=len(fates))
        )
        await asyncio.sleep(5 * _PAUSE)

    async def close(self) -> None:
        for call in self._deaf:
            call.cancel()
        # The server hears of it in its own time; what comes next is not to find the streams open.
        await asyncio.gather(*(_ended(call) for call in self._deaf))

    async def _create(
        self, fates: Sequence[Fate], *, may_be_cancelled: bool = False, request_id: str = ""
    ) -> Batch:
        batch = await self._client.batches.create_batch(
            _items(fates), template_id="fated", request_id=request_id or None
        )
        expected = Expected(fates=Counter(fates), may_be_cancelled=may_be_cancelled)
        self._ledger.created(batch.batch_id, expected)
        self._recent.append(batch.batch_id)
        return batch

    async def _wait(self, batch: Batch) -> None:
        final = await self._client.batches.wait_for_batch(batch.batch_id)
        self._ledger.done(final)
        self._over.append(batch.batch_id)

    async def _open_deaf_watch(self, batch: Batch) -> None:
        """Asks for every item and reads one message, so that the stream is there; then none."""
        call = self._stub.WatchBatch(WatchBatchRequest(batch_id=batch.batch_id, include_items=True))
        await call.read()
        self._deaf.append(call)
        if len(self._deaf) > _DEAF:
            oldest = self._deaf[1]  # the first one stays to the end
            del self._deaf[1]
            oldest.cancel()

    async def _see_progress(self, batch: Batch) -> None:
        async with aclosing(self._client.batches.watch_batch(batch.batch_id)) as events:
            async for event in events:
                if event.kind == BATCH_EVENT_KIND_PROGRESS:
                    return

    async def _watch_some(
        self, client: Batchwork, batch_id: str, *, include_items: bool, resume_token: str = ""
    ) -> str:
        """Returns the newest token of a watch that saw a few events."""
        token = resume_token
        left = self._random.randint(1, 50)
        async with aclosing(
            client.batches.watch_batch(
                batch_id,
                resume_token=resume_token,
                include_items=include_items,
                min_interval=timedelta(milliseconds=100),
            )
        ) as events:
            async for event in events:
                token = event.resume_token
                left -= 1
                if not left:
                    break
        return token

    async def _unless_over(self, call: Awaitable[Batch]) -> bool:
        """Tells whether a batch could still be acted on."""
        try:
            await call
        except WrongStateError:
            return False
        return True

    def _fates(self, count: int) -> list[Fate]:
        return self._random.choices(_MIXED, k=count)

    def _any_recent(self) -> str | None:
        return self._random.choice(self._recent) if self._recent else None


def _items(fates: Sequence[Fate]) -> list[ItemInput]:
    return [
        ItemInput(item_id=f"item-{number}", data_json=f'{{"fate":"{fate}"}}')
        for number, fate in enumerate(fates)
    ]


async def _count(found: AsyncIterator[object]) -> int:
    return sum([1 async for _ in found])


async def _ended(call: grpc.aio.UnaryStreamCall[WatchBatchRequest, WatchBatchResponse]) -> None:
    await call.code()
