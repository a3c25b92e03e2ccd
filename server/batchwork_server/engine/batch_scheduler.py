"""Fires the jobs that are due: wakes at the next due time, and looks every few seconds besides."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Protocol

from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Batch
from batchwork_server.wakeups import Wakeups


class Fires(Protocol):
    """What the scheduler drives."""

    async def schedule_all(self) -> None:
        """Gives a next run to every job that has none."""
        ...

    async def fire_due(self) -> int:
        """Decides about what is due, and tells for how many jobs."""
        ...

    async def next_start_time(self, *, after: datetime) -> datetime | None:
        """Returns when the first run begins that begins after a moment."""
        ...


class FiresGroups(Protocol):
    """What the scheduler drives for groups of preferences."""

    async def reconcile(self) -> None:
        """Gives every group of every preference-based job its schedule."""
        ...

    async def fire_due(self) -> int:
        """Decides about groups that are due, fills batches, and tells for how many."""
        ...

    async def next_start_time(self, *, after: datetime) -> datetime | None:
        """Returns when a group is to be looked at first after a moment."""
        ...


class BatchScheduler:
    """Fires what is due, when it is due; two of these fire each due time once.

    An alarm wakes it at the next start time that the store knows of; a change of a job and the end
    of a run, when they come about on this server, wake it at once. All of that is a courtesy. It
    also looks by itself: for what other servers do, after a jump of the clock or a sleep of the
    machine, neither of which the alarm notices, and for jobs that rest.

    Args:
        groups: None leaves preference-based jobs alone.

    Attributes:
        wake: Set when there may be something to decide before the interval is over.
    """

    INTERVAL: ClassVar = timedelta(seconds=5)
    PAUSE: ClassVar = timedelta(seconds=1)

    def __init__(
        self,
        firing: Fires,
        groups: FiresGroups | None = None,
        *,
        clock: Clock,
        wakeups: Wakeups,
    ) -> None:
        self._firing = firing
        self._groups = groups
        self._clock = clock
        self._all_scheduled = False
        self._alarm: Alarm | None = None
        self.wake = wakeups.schedules
        wakeups.subscribe(self._on_batch)

    def _on_batch(self, batch: Batch) -> None:
        """Looks what waited for the end of a run, when one ends."""
        if batch.state.is_final and batch.request.job_id:
            self.wake.set()

    def start(self) -> None:
        """Starts the alarm, in the loop that runs; without it there is a look every interval."""
        self._alarm = Alarm(self.wake.set)

    def close(self) -> None:
        """Ends the alarm."""
        if self._alarm is not None:
            self._alarm.close()
            self._alarm = None

    async def run_once(self) -> None:
        """Fires what is due, at first also for jobs that an older release stored.

        Raises:
            StoreUnavailable: what is due stays due.
        """
        try:
            self._ring_at(await self._fire())
        except Exception:
            # A job that fails unforeseen rests, and the others must not wait for long.
            self._ring_at(self._clock.now() + self.PAUSE)
            raise

    def _ring_at(self, moment: datetime | None) -> None:
        if self._alarm is not None:
            self._alarm.set(moment)

    async def _fire(self) -> datetime | None:
        """Fires what is due, and tells when to do so again."""
        if not self._all_scheduled:
            await self._firing.schedule_all()
            self._all_scheduled = True
        if self._groups is not None:
            await self._groups.reconcile()
        looked = self._clock.now()
        while await self._fire_due():
            looked = self._clock.now()
        # What was up at the last look and is still there rests; it must not ring on and on.
        return await self._next_start_time(after=looked)

    async def _fire_due(self) -> int:
        fired = await self._firing.fire_due()
        return fired + (await self._groups.fire_due() if self._groups is not None else 0)

    async def _next_start_time(self, *, after: datetime) -> datetime | None:
        found = [await self._firing.next_start_time(after=after)]
        if self._groups is not None:
            found.append(await self._groups.next_start_time(after=after))
        return min((moment for moment in found if moment is not None), default=None)


class Alarm:
    """APScheduler with one entry, whatever the number of jobs: when to ring next."""

    _ENTRY = "next-start"

    def __init__(self, ring: Callable[[], None]) -> None:
        # Only a process that schedules pays for it.
        from apscheduler.executors.debug import DebugExecutor
        from apscheduler.schedulers.asyncio import AsyncIOScheduler

        self._ring = ring
        self._rung_for: datetime | None = None
        self._scheduler = AsyncIOScheduler(
            # It calls where it is, which is the thread of the loop; the others use their own.
            executors={"default": DebugExecutor()},
            # However late it is, it rings, and once.
            job_defaults={"misfire_grace_time": None, "coalesce": True},
            timezone=UTC,
        )
        self._scheduler.start()

    def set(self, moment: datetime | None) -> None:
        """Rings at ``moment`` instead of when it was to ring before; or not at all.

        It rings once for each moment: APScheduler has a clock of its own, and where that is ahead
        of ours the moment would come again and again.
        """
        if moment is None:
            self._scheduler.remove_all_jobs()
        elif moment != self._rung_for:
            self._scheduler.add_job(
                self._go_off,
                "date",
                run_date=moment,
                args=[moment],
                id=self._ENTRY,
                replace_existing=True,
            )

    def _go_off(self, moment: datetime) -> None:
        self._rung_for = moment
        self._ring()

    def close(self) -> None:
        self._scheduler.shutdown(wait=False)
