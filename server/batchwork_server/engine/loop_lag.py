"""How late the event loop is: the first sign of a processor, or a machine, that is too slow."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from batchwork_server.clock import Clock
from batchwork_server.ports import Meter


class LoopLag:
    """Asks to be called at intervals, and measures by how much a call is late."""

    INTERVAL: ClassVar = timedelta(milliseconds=250)

    def __init__(self, *, clock: Clock, meter: Meter) -> None:
        self._clock = clock
        self._meter = meter
        self._last: float | None = None

    async def run_once(self) -> None:
        now = self._clock.monotonic()
        if self._last is not None:
            late = timedelta(seconds=now - self._last) - self.INTERVAL
            self._meter.loop_lagged(max(timedelta(0), late))
        self._last = now
