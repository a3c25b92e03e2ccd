"""The time, and waiting for it; nothing else in the server reads a clock."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time and waits.

    Wall time decides what is due; monotonic time measures. Tests move both by hand.
    """

    def now(self) -> datetime:
        """Returns the wall time, UTC-aware."""
        ...

    def micros(self) -> int:
        """Returns the wall time in microseconds since the epoch, for what is done often."""
        ...

    def monotonic(self) -> float:
        """Returns seconds that never run backwards, for durations and leases."""
        ...

    async def wait(self, event: asyncio.Event, patience: timedelta) -> bool:
        """Waits until ``event`` is set or ``patience`` is over; tells whether it was set."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def micros(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()

    async def wait(self, event: asyncio.Event, patience: timedelta) -> bool:
        try:
            async with asyncio.timeout(max(0.0, patience.total_seconds())):
                await event.wait()
        except TimeoutError:
            return False
        return True
