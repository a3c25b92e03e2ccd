"""Runs processors in child processes, which may die, or be killed, without the server."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from datetime import timedelta

from pebble import ProcessExpired, ProcessPool

from batchwork_server.engine.child import (
    EXITED_WITH_ZERO,
    Load,
    answer_of,
    begin,
    ready,
    work,
)
from batchwork_server.errors import ItemFailed
from batchwork_server.logs import get_logger
from batchwork_server.ports import ItemCall, ItemResult
from batchwork_server.spawn import Spawn

log = get_logger(__name__)

_STARTS = 3  # of a pool for one call
_START_LIMIT = 60.0  # seconds for the first child of a pool to be ready
_SILENCE = 30.0  # seconds beyond its limit after which a call says that the pool is stuck


class ChildDied(Exception):
    """A child process ended by itself, in the middle of an item.

    Attributes:
        message: Names the exit code or the signal.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ChildProcesses:
    """Processors in child processes. They start with the first call and are kept for the next.

    Args:
        load: Builds the processors, once in each child. A function of a module, or a class
            method, which the child imports; not of ``__main__``, which it does not.
        workers: How many children there are, and so how many calls go on at once.
    """

    def __init__(self, *, load: Load, workers: int) -> None:
        self._load = load
        self.workers = workers
        self._free = asyncio.Semaphore(workers)
        self._changing = asyncio.Lock()
        self._pool: ProcessPool | None = None
        self._starts: set[asyncio.Task[ProcessPool]] = set()
        self._closed = False

    async def process(
        self,
        processor_name: str,
        call: ItemCall,
        *,
        limit: timedelta,
        begun: Callable[[], None] = lambda: None,
    ) -> ItemResult:
        """Has a processor work on one item in a child process.

        A caller that is cancelled has the child killed.

        Args:
            limit: For the attempt, from when a child has it; then the child is killed.
            begun: Is called when a child is free for it.

        Raises:
            ItemFailed: ITEM_TIMEOUT when the child was killed for its time.
            ChildDied: the child ended by itself.
            RuntimeError: no child could be started, or the processor raised what cannot be told
                to another process.
            BaseException: what the processor raised.
        """
        async with self._free:
            for _ in range(_STARTS):
                try:
                    pool = await self._running()
                    begun()
                    written = await self._ask(pool, processor_name, call, limit)
                except BrokenProcessPool:
                    # A child died that had nothing in hand; the pool gives up all that is queued.
                    continue
                return answer_of(written)
        raise RuntimeError("The child processes end before they begin to work; stderr says why.")

    async def _ask(
        self, pool: ProcessPool, processor_name: str, call: ItemCall, limit: timedelta
    ) -> bytes:
        seconds = limit.total_seconds()
        try:
            future = pool.schedule(work, args=(processor_name, call), timeout=seconds)
        except RuntimeError as error:  # so the pool says that it broke just now
            raise BrokenProcessPool(str(error)) from error
        deadline = asyncio.timeout(seconds + _SILENCE)
        try:
            async with deadline:
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            if deadline.expired():
                await self._drop_stuck(pool)
            raise ItemFailed(
                "ITEM_TIMEOUT",
                f"The attempt took longer than {seconds:g} s; its process was killed.",
                retryable=True,
            ) from error
        except ProcessExpired as error:
            raise ChildDied(_death(error.exitcode)) from error

    async def _running(self) -> ProcessPool:
        if self._pool is not None and self._pool.active:
            return self._pool
        # A caller that runs out of time leaves the start to those that come after it.
        start = asyncio.create_task(self._renewed())
        self._starts.add(start)
        start.add_done_callback(self._starts.discard)
        return await asyncio.shield(start)

    async def _renewed(self) -> ProcessPool:
        async with self._changing:
            if self._closed:
                raise RuntimeError("The child processes have ended; the server stops.")
            if self._pool is not None and not self._pool.active:
                await self._drop("broken")
            if self._pool is None:
                self._pool = await self._start()
            return self._pool

    async def _start(self) -> ProcessPool:
        """Returns a pool with a child that is ready, so that no item pays for the start."""
        pool = ProcessPool(
            max_workers=self.workers,
            initializer=begin,
            initargs=(self._load,),
            context=Spawn(),
        )
        try:
            # In a thread: the first call is the one that starts the processes.
            first = await asyncio.to_thread(pool.schedule, ready)
            async with asyncio.timeout(_START_LIMIT):
                await asyncio.wrap_future(first)
        except (BrokenProcessPool, TimeoutError) as error:
            await asyncio.to_thread(_end, pool)
            raise BrokenProcessPool("No child process could begin.") from error
        log.info("children.started", processes=self.workers)
        return pool

    async def _drop_stuck(self, pool: ProcessPool) -> None:
        async with self._changing:
            if self._pool is pool:
                await self._drop("stuck")

    async def _drop(self, why: str) -> None:
        """Ends the children; the next call starts new ones. The caller holds the lock."""
        pool, self._pool = self._pool, None
        if pool is not None:
            log.warning("children.dropped", why=why)
            await asyncio.to_thread(_end, pool)

    async def close(self) -> None:
        """Ends every child, whatever it does."""
        async with self._changing:
            self._closed = True
            if self._pool is not None:
                pool, self._pool = self._pool, None
                await asyncio.to_thread(_end, pool)


def _end(pool: ProcessPool) -> None:
    pool.stop()  # type: ignore[no-untyped-call]  # pebble left it out
    pool.join()


def _death(exitcode: int) -> str:
    if exitcode < 0:
        return f"The process of the item was ended by {_signal_name(-exitcode)}."
    code = 0 if exitcode == EXITED_WITH_ZERO else exitcode
    return f"The process of the item ended by itself with exit code {code}."


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
