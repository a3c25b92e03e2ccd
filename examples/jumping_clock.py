"""A clock for a demo: two days pass in seconds, because it jumps over the time between."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class JumpingClock:
    """Runs as fast as the machine's clock, from a moment of its own, and jumps ahead when told to.

    Who waits is woken by a jump over the end of the wait. Both times jump together, as they would
    have gone on together had nobody jumped.
    """

    def __init__(self, start: datetime) -> None:
        self._start = start
        self._began = time.monotonic()
        self._jumped = timedelta()
        self._jump = asyncio.Event()

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self.monotonic())

    def micros(self) -> int:
        return (self.now() - _EPOCH) // _MICROSECOND

    def monotonic(self) -> float:
        return time.monotonic() - self._began + self._jumped.total_seconds()

    def jump_to(self, moment: datetime) -> None:
        """Makes it ``moment``, unless it is later already."""
        self._jumped += max(timedelta(), moment - self.now())
        jump, self._jump = self._jump, asyncio.Event()
        jump.set()

    async def wait(self, event: asyncio.Event, patience: timedelta) -> bool:
        deadline = self.monotonic() + patience.total_seconds()
        while not event.is_set() and (left := deadline - self.monotonic()) > 0:
            await _either(event, self._jump, seconds=left)
        await asyncio.sleep(0)  # a loop that waits for nothing lets others run
        return event.is_set()


async def _either(*events: asyncio.Event, seconds: float) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
