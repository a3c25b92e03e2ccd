"""Wake-ups between the halves of one process.

A wake-up is a courtesy: every loop and watcher also looks by itself, and a lost wake-up costs
one interval, never a batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from batchwork_server.domain.batch import Batch
from batchwork_server.logs import get_logger

log = get_logger(__name__)

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
        self._surprises: set[tuple[Listener, str]] = set()

    def subscribe(self, listener: Listener) -> None:
        """Calls ``listener`` with each batch that was written, as it is now; it must not block."""
        self._listeners.append(listener)

    def batch_changed(self, batch: Batch) -> None:
        """Tells every listener, before it returns, that a batch was written.

        It is written, whatever a listener makes of that: one that fails holds up neither the
        others nor the caller.
        """
        for listener in self._listeners:
            try:
                listener(batch)
            except Exception as error:  # noqa: BLE001  logged there
                self._log_once(listener, error, batch)

    def _log_once(self, listener: Listener, error: Exception, batch: Batch) -> None:
        """Logs the first error of each kind with its trace; more of a kind say no more."""
        surprise = listener, type(error).__name__
        if surprise not in self._surprises:
            self._surprises.add(surprise)
            log.exception("listener.failed", batch_id=batch.batch_id, exc_info=error)

    def work_arrived(self) -> None:
        """Tells the dispatcher that there may be chunks to take."""
        self.work.set()

    def schedules_changed(self) -> None:
        """Tells the scheduler that a run may begin earlier than was known."""
        self.schedules.set()
