"""Takes back the chunks of workers that are gone."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from batchwork_server.clock import Clock
from batchwork_server.logs import get_logger
from batchwork_server.store.store import Store
from batchwork_server.wakeups import Wakeups

log = get_logger(__name__)


class Recovery:
    """Opens chunks whose lease is over, so that a worker takes them again.

    Args:
        alone: Whether no other process can work on this database. Then, at the start, every
            chunk that is taken belongs to a process that is dead, whatever its lease says.
    """

    INTERVAL: ClassVar = timedelta(seconds=15)

    def __init__(self, *, store: Store, clock: Clock, wakeups: Wakeups, alone: bool) -> None:
        self._store = store
        self._clock = clock
        self._wakeups = wakeups
        self._alone = alone

    async def take_back(self) -> int:
        """Opens what a dead process left, and returns how many chunks that were."""
        return await self._reopen(owner_is_dead=self._alone)

    async def run_once(self) -> None:
        reopened = await self._reopen(owner_is_dead=False)
        if reopened:
            log.warning("recovery.reopened", chunks=reopened)

    async def _reopen(self, *, owner_is_dead: bool) -> int:
        reopened = await self._store.chunks.reopen_expired(
            now=self._clock.now(), owner_is_dead=owner_is_dead
        )
        for batch in reopened.batches.values():
            self._wakeups.batch_changed(batch)
        if reopened.chunk_count:
            self._wakeups.work_arrived()
        return reopened.chunk_count
