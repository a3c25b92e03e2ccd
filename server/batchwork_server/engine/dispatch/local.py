"""Dispatch inside one process: the open chunks of the store are the queue."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from batchwork_server.clock import Clock
from batchwork_server.errors import Unavailable
from batchwork_server.logs import WaitingLog, get_logger
from batchwork_server.ports import Room, Take
from batchwork_server.store.store import ChunkStore, OpenChunk
from batchwork_server.wakeups import Wakeups

log = get_logger(__name__)

LONGEST_PAUSE = timedelta(seconds=1)
"""How long work can wait that nobody announced."""

_MOST_CHUNKS = 64


class LocalDispatcher:
    """Implements ``Dispatcher`` for the workers of this process."""

    def __init__(self, *, chunks: ChunkStore, clock: Clock, wakeups: Wakeups) -> None:
        self._chunks = chunks
        self._clock = clock
        self._wakeups = wakeups
        self._waiting = WaitingLog(log, "dispatch", monotonic=clock.monotonic)

    async def enqueue(self, tx: Any, chunk_count: int) -> None:
        """Has nothing to add: the rows that the transaction stored are the queue."""

    def enqueued(self) -> None:
        self._wakeups.work_arrived()

    async def run(self, take: Take, *, room: Callable[[], Room], stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._wakeups.room.clear()
            there_is = room()
            if there_is.items <= 0:
                await self._clock.wait(self._wakeups.room, LONGEST_PAUSE)
                continue
            self._wakeups.work.clear()
            try:
                handed_out = await self._hand_out(take, there_is)
                self._waiting.goes_on()
                if not handed_out:
                    await self._wait_for_work()
            except Unavailable as error:
                self._waiting.waits(error.reason, error.message)
                await self._clock.wait(stop, LONGEST_PAUSE)

    async def _hand_out(self, take: Take, room: Room) -> bool:
        """Takes the next chunks, as many as there is room for, but at least one."""
        waiting = await self._chunks.next_chunks(
            now=self._clock.now(),
            limit=_MOST_CHUNKS,
            without=[key for key, items in room.by_batch.items() if items <= 0],
        )
        keys = _fitting(waiting, room)
        if keys:
            await take(keys)
        return bool(keys)

    async def _wait_for_work(self) -> None:
        """Waits for a word of work, for the next due time, or for the longest pause."""
        now = self._clock.now()
        due = await self._chunks.next_due_time(after=now)
        pause = LONGEST_PAUSE if due is None else min(LONGEST_PAUSE, due - now)
        await self._clock.wait(self._wakeups.work, max(pause, timedelta(milliseconds=1)))


def _fitting(waiting: Sequence[OpenChunk], room: Room) -> list[int]:
    """Returns the keys of those chunks, in their order, for which there is room."""
    keys: list[int] = []
    left, taken = room.items, Counter[int]()
    for chunk in waiting:
        if left <= 0:
            break
        usable = room.of(chunk.batch_key) - taken[chunk.batch_key]
        if usable > 0:
            keys.append(chunk.chunk_key)
            taken[chunk.batch_key] += chunk.item_count
            left -= min(usable, chunk.item_count)
    return keys
