"""Tells the store, now and then, how long items took."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from batchwork_server.clock import Clock
from batchwork_server.engine.runs import Runs
from batchwork_server.store.store import Store


class ItemDurations:
    """Hands over what the workers have measured, in one statement for all batches.

    What could not be told is forgotten: more of it comes with the next items.
    """

    INTERVAL: ClassVar = timedelta(seconds=10)

    def __init__(self, *, store: Store, clock: Clock, runs: Runs) -> None:
        self._store = store
        self._clock = clock
        self._runs = runs

    async def run_once(self) -> None:
        measured = self._runs.take_measured()
        if measured:
            await self._store.item_durations.learn(measured, now=self._clock.now())
