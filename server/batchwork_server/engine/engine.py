"""Starts and stops the loops of the working half, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from batchwork_server.clock import Clock
from batchwork_server.engine.batch_processor import BatchProcessor
from batchwork_server.engine.loop import supervise, tick
from batchwork_server.engine.recovery import Recovery
from batchwork_server.engine.retention import Retention
from batchwork_server.logs import get_logger
from batchwork_server.ports import Dispatcher

log = get_logger(__name__)

CLAIM_GRACE = timedelta(seconds=5)
"""How long a claim that is under way may take at a stop."""


class Engine:
    """The durable half of a server: recovery, workers, committer, leases, dispatch.

    Args:
        slots: Items in flight at once.
        lease: How long a chunk stays taken without a word from its worker.
    """

    def __init__(
        self,
        *,
        processor: BatchProcessor,
        dispatcher: Dispatcher,
        recovery: Recovery,
        retention: Retention,
        clock: Clock,
        slots: int,
        lease: timedelta,
    ) -> None:
        self._processor = processor
        self._dispatcher = dispatcher
        self._recovery = recovery
        self._retention = retention
        self._clock = clock
        self._slots = slots
        self._lease = lease
        self._stop_claims = asyncio.Event()
        self._stop_all = asyncio.Event()
        self._claims: list[asyncio.Task[None]] = []
        self._workers: list[asyncio.Task[None]] = []
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Takes back what a dead process left, then begins to work.

        Raises:
            StoreUnavailable: the database is away.
        """
        reopened = await self._recovery.take_back()
        log.info("engine.started", slots=self._slots, reopened_chunks=reopened)
        self._workers = [
            self._supervise(f"worker-{n}", self._processor.work, stop=self._stop_claims)
            for n in range(self._slots)
        ]
        self._loops = [
            self._supervise("committer", self._commit, stop=self._stop_all),
            self._tick("leases", self._processor.extend_leases, self._lease / 3),
            self._tick("recovery", self._recovery.run_once, Recovery.INTERVAL),
            self._tick("retention", self._retention.run_once, Retention.INTERVAL),
        ]
        self._claims = [self._supervise("dispatcher", self._dispatch, stop=self._stop_claims)]

    async def _commit(self) -> None:
        await self._processor.commit(self._stop_all)

    async def _dispatch(self) -> None:
        await self._dispatcher.run(
            self._processor.take, room=self._processor.room, stop=self._stop_claims
        )

    def _supervise(
        self, name: str, run: Callable[[], Awaitable[None]], *, stop: asyncio.Event
    ) -> asyncio.Task[None]:
        return asyncio.create_task(supervise(name, run, clock=self._clock, stop=stop), name=name)

    def _tick(
        self, name: str, run_once: Callable[[], Awaitable[object]], interval: timedelta
    ) -> asyncio.Task[None]:
        loop = tick(name, run_once, interval=interval, clock=self._clock, stop=self._stop_all)
        return asyncio.create_task(loop, name=name)

    @property
    def is_running(self) -> bool:
        """Tells whether every loop is alive."""
        tasks = [*self._claims, *self._workers, *self._loops]
        return bool(tasks) and not any(task.done() for task in tasks)

    async def stop_claims(self) -> None:
        """Takes no further chunk and starts no further item; those in flight go on."""
        self._stop_claims.set()
        self._processor.stop_taking()
        if self._claims:
            # A claim that is cut off would be ours without our knowing it.
            await asyncio.wait(self._claims, timeout=CLAIM_GRACE.total_seconds())
        await _cancel(self._claims)

    async def drain(self, grace: timedelta) -> None:
        """Waits for the items in flight; those that take longer than ``grace`` are given back."""
        if self._workers:
            await asyncio.wait(self._workers, timeout=grace.total_seconds())
        interrupted = sum(not task.done() for task in self._workers)
        await _cancel(self._workers)
        log.info("engine.drained", interrupted_items=interrupted)

    async def stop(self) -> None:
        """Records what is done, gives back what is not, and ends the loops."""
        self._stop_all.set()
        await _cancel(self._loops)
        await self._processor.release()
        log.info("engine.stopped")


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
