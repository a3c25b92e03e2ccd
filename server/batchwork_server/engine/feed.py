"""What the workers take items from: the chunks that are claimed, in their order."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from heapq import heappop, heappush
from itertools import count

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
        in_line: The feed has it in a line.
        isolated: It crashed often: one item at a time, in a process of its own.
        retry_time: When the first of its retries is due.
        draw: The jitter of this claim; items that failed together come back together.
        is_recording: The store is being told of it.
        lease_end: Until when it is ours for sure, by the monotonic clock, in seconds.
        lapsed: It may be somebody else's by now: no item of it is attempted here any more.
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
    in_line: bool = False
    isolated: bool = False
    retry_time: datetime | None = None
    draw: float = field(default_factory=random.random)
    is_recording: bool = False
    lease_end: float = 0.0
    lapsed: bool = False
    lost: bool = False
    finished: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_done(self) -> bool:
        return not self.queue and not self.in_flight

    @property
    def startable(self) -> int:
        """How many of its items could begin now, as far as the chunk itself goes."""
        if not self.isolated:
            return len(self.queue)
        return 1 if self.queue and not self.in_flight else 0

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


_Line = list[tuple[datetime, int, ChunkRun]]  # a heap: the first to go is at its top


class Feed:
    """Hands items to a fixed set of workers, in the order of dispatch of their chunks.

    There is neither a task nor a lock for an item, and no look at chunks that cannot give one: a
    chunk whose batch has all in flight that it may have waits aside until an attempt of the batch
    ends.

    Attributes:
        queued: Items that no worker has yet.
    """

    def __init__(self) -> None:
        self._line: _Line = []
        self._aside: dict[int, _Line] = {}
        self._numbers = count()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self.queued = 0

    def put(self, run: ChunkRun) -> None:
        self.queued += len(run.queue)
        run.running.queued += run.startable
        self._line_up(run)
        self.wake(len(run.queue))

    def _line_up(self, run: ChunkRun) -> None:
        if not run.in_line:
            run.in_line = True
            heappush(self._line, (run.chunk.dispatch_time, next(self._numbers), run))

    def take(self) -> tuple[ChunkRun, PendingItem] | None:
        """Returns the next item whose batch has room for one more, or none."""
        while self._line and not self._closed:
            run = self._line[0][2]
            running = run.running
            bound = running.bound
            if not run.queue or (run.isolated and run.in_flight):
                self._leave(run)
            elif running.waits_for_probe or (bound and running.in_flight >= bound):
                self._step_aside(run)
            else:
                self.queued -= 1
                run.in_flight += 1
                running.queued -= 1
                running.in_flight += 1
                return run, run.queue.popleft()
        return None

    def _leave(self, run: ChunkRun) -> None:
        """Takes the first chunk out of the line; the next one of its batch may have its place."""
        heappop(self._line)
        run.in_line = False
        self._call_back(run.chunk.batch_key)

    def _step_aside(self, run: ChunkRun) -> None:
        aside = self._aside.setdefault(run.chunk.batch_key, [])
        heappush(aside, heappop(self._line))

    def _call_back(self, batch_key: int) -> None:
        """Has the next chunk of a batch that waits aside stand in the line again."""
        aside = self._aside.get(batch_key)
        if aside is None:
            return
        while aside:
            place = heappop(aside)
            if place[2].queue:
                heappush(self._line, place)
                break
            place[2].in_line = False
        if not aside:
            del self._aside[batch_key]

    def give_back(self, run: ChunkRun) -> None:
        """Says that the worker is done with an item of ``run``."""
        run.in_flight -= 1
        run.running.in_flight -= 1
        if run.isolated and run.queue:
            run.running.queued += run.startable
            self._line_up(run)
        if self._aside:
            self._call_back(run.chunk.batch_key)
            for sibling in run.running.siblings:  # one of them may have waited for this attempt
                if sibling is not run.running:
                    self._call_back(sibling.batch.key)
        if self._idle and self._line:
            self.wake(1)

    def interrupt(self, run: ChunkRun, item: PendingItem) -> None:
        """Puts an item back that a worker was stopped at; its attempt does not count."""
        self.give_back(run)
        before = run.startable
        run.queue.appendleft(item)
        self.queued += 1
        run.running.queued += run.startable - before
        self._line_up(run)
        self.wake(1)

    def drop(self, run: ChunkRun) -> int:
        """Takes away what no worker has yet, and returns how much that was."""
        dropped = len(run.queue)
        self.queued -= dropped
        run.running.queued -= run.startable
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
