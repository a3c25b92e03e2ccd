"""Wake-ups between the halves of one process.

A wake-up is a courtesy: every loop and watcher also looks by itself, and a lost wake-up costs
one interval, never a batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Wakeups:
    """Tells loops that there is something to look at.

    Attributes:
        work: Set when chunks were enqueued; the dispatcher clears it.
    """

    def __init__(self) -> None:
        self.work = asyncio.Event()
        self._on_batch: list[Callable[[int], None]] = []

    def subscribe(self, listener: Callable[[int], None]) -> None:
        """Calls ``listener`` with the key of each batch that changed; it must not block."""
        self._on_batch.append(listener)

    def batch_changed(self, batch_key: int) -> None:
        """Tells every listener, before it returns, that a batch was written."""
        for listener in self._on_batch:
            listener(batch_key)

    def work_arrived(self) -> None:
        """Tells the dispatcher that chunks were enqueued."""
        self.work.set()
