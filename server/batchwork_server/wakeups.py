"""Wake-ups between the halves of one process.

A wake-up is a courtesy: every loop and watcher also looks by itself, and a lost wake-up costs
one interval, never a batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from batchwork_server.domain.batch import Batch

Listener = Callable[[Batch], None]


class Wakeups:
    """Tells loops that there is something to look at.

    Attributes:
        work: Set when there may be chunks to take; the dispatcher clears it.
        room: Set when the workers could use more items; the dispatcher clears it.
        schedules: Set when a run may begin earlier than was known; the scheduler clears it.
    """

    def __init__(self) -> None:
        self.work = asyncio.Event()
        self.room = asyncio.Event()
        self.schedules = asyncio.Event()
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> None:
        """Calls ``listener`` with each batch that was written, as it is now; it must not block."""
        self._listeners.append(listener)

    def batch_changed(self, batch: Batch) -> None:
        """Tells every listener, before it returns, that a batch was written."""
        for listener in self._listeners:
            listener(batch)

    def work_arrived(self) -> None:
        """Tells the dispatcher that there may be chunks to take."""
        self.work.set()

    def schedules_changed(self) -> None:
        """Tells the scheduler that a run may begin earlier than was known."""
        self.schedules.set()
