"""What the workers take items from: the chunks that are claimed, in their order."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from batchwork_server.domain.item import Outcome, PendingItem
from batchwork_server.engine.executor import RunningBatch
from batchwork_server.store.store import ClaimedChunk


@dataclass(slots=True, kw_only=True, eq=False)
class ChunkRun:
    """A claimed chunk on its way through the workers.

    Attributes:
        queue: Items that no worker has yet.
        in_flight: Items that a worker has.
        outcomes: Of items that are done and not recorded.
        returned: Items that are given back, and not recorded as such.
        recorded: How many items of the claim records have accounted for.
        gave_back: Items of it were given back: the chunk is not done.
        isolated: It crashed often: one item at a time, in a process of its own.
        retry_time: When the first of its retries is due.
        draw: The jitter of this claim; items that failed together come back together.
        is_recording: The store is being told of it.
        lost: Somebody else has the chunk; nothing of it counts any more.
        finished: Set when the chunk is recorded, released or lost.
    """

    chunk: ClaimedChunk
    running: RunningBatch
    queue: deque[PendingItem]
    in_flight: int = 0
    outcomes: list[Outcome] = field(default_factory=list)
    returned: int = 0
    recorded: int = 0
    gave_back: bool = False
    isolated: bool = False
    retry_time: datetime | None = None
    draw: float = field(default_factory=random.random)
    is_recording: bool = False
    lost: bool = False
    finished: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_done(self) -> bool:
        return not self.queue and not self.in_flight

    @property
    def has_room(self) -> bool:
        return self.running.has_room and not (self.isolated and self.in_flight)

    def give_back(self, count: int) -> None:
        """Says that items are given back without an attempt."""
        self.returned += count
        self.gave_back = self.gave_back or count > 0

    def take_returned(self) -> int:
        """Returns how many items are to be recorded as given back, and counts anew."""
        returned, self.returned = self.returned, 0
        return returned

    def take_outcomes(self, most: int | None = None) -> list[Outcome]:
        """Returns the outcomes that are to be recorded, the first ``most`` or all of them."""
        if most is None:
            most = len(self.outcomes)
        outcomes, self.outcomes = self.outcomes[:most], self.outcomes[most:]
        return outcomes


class Feed:
    """Hands items to a fixed set of workers, without a task or a lock for each.

    Attributes:
        queued: Items that no worker has yet.
    """

    def __init__(self) -> None:
        self._runs: deque[ChunkRun] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self.queued = 0

    def put(self, run: ChunkRun) -> None:
        self._runs.append(run)
        self.queued += len(run.queue)
        self.wake(len(run.queue))

    def take(self) -> tuple[ChunkRun, PendingItem] | None:
        """Returns the next item whose batch has room for one more, or none."""
        while self._runs and not self._runs[0].queue:
            self._runs.popleft()
        if self._closed:
            return None
        for run in self._runs:
            if run.queue and run.has_room:
                self.queued -= 1
                run.in_flight += 1
                run.running.in_flight += 1
                return run, run.queue.popleft()
        return None

    def give_back(self, run: ChunkRun) -> None:
        """Says that the worker is done with an item of ``run``."""
        run.in_flight -= 1
        run.running.in_flight -= 1
        if self._idle and self.queued:
            self.wake(1)

    def interrupt(self, run: ChunkRun, item: PendingItem) -> None:
        """Puts an item back that a worker was stopped at; its attempt does not count."""
        run.queue.appendleft(item)
        self.queued += 1
        if run not in self._runs:  # this was the last item of it that nobody had
            self._runs.appendleft(run)
        self.give_back(run)

    def drop(self, run: ChunkRun) -> int:
        """Takes away what no worker has yet, and returns how much that was."""
        dropped = len(run.queue)
        self.queued -= dropped
        run.queue.clear()
        return dropped

    def close(self) -> None:
        """Hands out nothing more; idle workers come back from ``wait``."""
        self._closed = True
        self.wake(len(self._idle))

    @property
    def closed(self) -> bool:
        return self._closed

    async def wait(self) -> None:
        """Waits until there may be an item."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.append(future)
        await future

    def wake(self, count: int) -> None:
        while count > 0 and self._idle:
            future = self._idle.popleft()
            if not future.done():
                future.set_result(None)
                count -= 1
