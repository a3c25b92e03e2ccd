"""Takes back what workers hold that are gone: their chunks, and their locks."""

from __future__ import annotations

from batchwork_server.clock import Clock
from batchwork_server.logs import get_logger
from batchwork_server.store.store import Reopened, Store
from batchwork_server.wakeups import Wakeups

log = get_logger(__name__)


class Recovery:
    """Opens chunks whose lease is over, so that a worker takes them again.

    Args:
        alone: Whether no other process can work on this database. Then, at the start, every
            chunk that is taken belongs to a process that is dead, whatever its lease says.
    """

    def __init__(self, *, store: Store, clock: Clock, wakeups: Wakeups, alone: bool) -> None:
        self._store = store
        self._clock = clock
        self._wakeups = wakeups
        self._alone = alone

    async def take_back(self) -> int:
        """Opens what a dead process left, and returns how many chunks that were."""
        if not self._alone:
            return await self._reopen_expired()
        return self._tell(await self._store.chunks.reopen_all(now=self._clock.now()))

    async def run_once(self) -> None:
        """Opens what other processes left; one that is alone has no others."""
        reopened = 0 if self._alone else await self._reopen_expired()
        if reopened:
            log.warning("recovery.reopened", chunks=reopened)

    async def end_stalled(self) -> None:
        """Ends what a frozen server is in the middle of, whose locks would hold up the others."""
        ended = 0 if self._alone else await self._store.end_stalled()
        if ended:
            log.warning("recovery.ended_stalled", connections=ended)

    async def _reopen_expired(self) -> int:
        return self._tell(await self._store.chunks.reopen_expired(now=self._clock.now()))

    def _tell(self, reopened: Reopened) -> int:
        for batch in reopened.batches.values():
            self._wakeups.batch_changed(batch)
        if reopened.chunk_count:
            self._wakeups.work_arrived()
        return reopened.chunk_count
