"""Closes what is left of batches that are being cancelled or whose time is over."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import ClassVar

from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Batch, BatchState
from batchwork_server.failpoints import reach
from batchwork_server.store.store import Store
from batchwork_server.wakeups import Wakeups


class Closing:
    """Closes items by ranges, thousands in a transaction, without a worker.

    Attributes:
        wake: Set when there may be something to close.
    """

    INTERVAL: ClassVar = timedelta(seconds=1)

    def __init__(self, *, store: Store, clock: Clock, wakeups: Wakeups) -> None:
        self._store = store
        self._clock = clock
        self._wakeups = wakeups
        self.wake = asyncio.Event()
        wakeups.subscribe(self._on_batch)

    def _on_batch(self, batch: Batch) -> None:
        if batch.state is BatchState.CANCELLING:
            self.wake.set()

    async def run_once(self) -> None:
        """Closes everything that no worker has in hand.

        Raises:
            StoreUnavailable: what was closed by then stays so.
        """
        while batch := await self._store.changes.close_some(now=self._clock.now()):
            reach("close.committed")
            self._wakeups.batch_changed(batch)
