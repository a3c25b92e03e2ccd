"""Forgets what has been kept long enough."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from batchwork_server.clock import Clock
from batchwork_server.store.store import Store

REQUESTS_ARE_KEPT = timedelta(hours=25)
"""How long a request id is known; a caller is promised 24 hours."""


class Retention:
    """Removes answers to requests that nobody repeats any more."""

    INTERVAL: ClassVar = timedelta(hours=1)

    def __init__(self, *, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def run_once(self) -> None:
        await self._store.requests.forget(before=self._clock.now() - REQUESTS_ARE_KEPT)
