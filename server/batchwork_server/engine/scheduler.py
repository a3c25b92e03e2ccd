"""Fires the jobs that are due."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Protocol


class Fires(Protocol):
    """What the scheduler drives."""

    async def schedule_all(self) -> None:
        """Gives a next run to every job that has none."""
        ...

    async def fire_due(self) -> int:
        """Decides about what is due, and tells for how many jobs."""
        ...


class Scheduler:
    """Looks every second for what is due; two of these fire each due time once."""

    INTERVAL: ClassVar = timedelta(seconds=1)

    def __init__(self, firing: Fires) -> None:
        self._firing = firing
        self._all_scheduled = False

    async def run_once(self) -> None:
        """Fires what is due, at first also for jobs that an older release stored.

        Raises:
            StoreUnavailable: what is due stays due.
        """
        if not self._all_scheduled:
            await self._firing.schedule_all()
            self._all_scheduled = True
        while await self._firing.fire_due():
            pass
