"""Forgets what has been kept long enough."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

from batchwork_server.clock import Clock
from batchwork_server.domain.filters import PurgeFilter
from batchwork_server.domain.group_schedules import MOVES_COUNT_FOR
from batchwork_server.errors import StorageFull
from batchwork_server.failpoints import reach
from batchwork_server.logs import get_logger
from batchwork_server.store.store import Store

log = get_logger(__name__)

REQUESTS_ARE_KEPT = timedelta(hours=25)
"""How long a request id is known; a caller is promised 24 hours."""

RUNS_ARE_KEPT = timedelta(days=93)
"""How long at least the last run of a user is known, after somebody looked at the user last.

That is the longest period, the longest time that is explained at once, and as much again.
"""

_RUNS_AT_ONCE = 5_000
"""So many last runs of users are looked at in one run of the loop."""

MOST_ROWS = 5_000
"""What one transaction removes at most; the commits of workers wait no longer than for that."""

ROWS_ON_A_FULL_DISK = 500
"""The same on a full disk, where the log of a transaction has to fit into the reserve."""

_FEWEST_ROWS = 100
_FIRST_ROWS = 1_000
_QUICK = timedelta(milliseconds=20)
_SLOW = timedelta(milliseconds=80)

_SLICES_A_RUN = 400
_BATCHES_AT_ONCE = 100


@dataclass(slots=True, kw_only=True)
class _Done:
    """What one run has done."""

    batches: int = 0
    rows: int = 0
    events: int = 0
    requests: int = 0
    occurrences: int = 0
    preference_changes: int = 0
    groups: int = 0
    user_runs: int = 0


class Retention:
    """Deletes batches that were over long ago, and removes the rows of all that were deleted.

    Everything goes slice by slice, a transaction each, so that it is never lost and the workers'
    commits get their turn in between. Two of these do no harm.

    Args:
        batches_are_kept: After their end, and occurrences after they were decided on, and the last
            runs of users, but those for ``RUNS_ARE_KEPT`` at least; None means as long as the
            database.
        events_are_kept: After the end of their batch, and changes of preferences after they were
            made, but those for ``MOVES_COUNT_FOR`` at least; None means as long as the batch, and
            for ever.

    Attributes:
        wake: Set when there are rows to be removed.
    """

    INTERVAL: ClassVar = timedelta(minutes=1)

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        batches_are_kept: timedelta | None = None,
        events_are_kept: timedelta | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._batches_are_kept = batches_are_kept
        self._events_are_kept = events_are_kept
        self._events_forgotten_until: datetime | None = None
        self._next_user_run: tuple[str, str, str] | None = None
        self._slice_rows = _FIRST_ROWS
        self.wake = asyncio.Event()

    async def run_once(self) -> None:
        """Does all that is due, but at most so much; more than that asks for another run.

        Raises:
            StoreUnavailable: what was done by then stays done.
        """
        done = _Done()
        try:
            await self._run_with_reserve(done)
        finally:
            if (
                done.batches
                or done.rows
                or done.events
                or done.occurrences
                or done.preference_changes
                or done.groups
                or done.user_runs
            ):
                log.info(
                    "retention.deleted",
                    batches=done.batches,
                    rows=done.rows,
                    events=done.events,
                    requests=done.requests,
                    occurrences=done.occurrences,
                    preference_changes=done.preference_changes,
                    groups=done.groups,
                    user_runs=done.user_runs,
                )

    async def _run_with_reserve(self, done: _Done) -> None:
        """On a full disk even a delete needs space, and there is some in reserve for it."""
        try:
            await self._run(done, most_rows=MOST_ROWS)
        except StorageFull:
            self._slice_rows = min(self._slice_rows, ROWS_ON_A_FULL_DISK)
            async with self._store.ballast_dropped():
                await self._run(done, most_rows=ROWS_ON_A_FULL_DISK)

    async def _run(self, done: _Done, *, most_rows: int) -> None:
        now = self._clock.now()
        await self._delete_old_batches(done, now=now)
        await self._forget_user_runs(done, now=now)
        for _ in range(_SLICES_A_RUN):
            started = self._clock.monotonic()
            if not await self._remove_slice(done, now=now):
                return
            self._fit_slices(self._clock.monotonic() - started, most_rows=most_rows)
            reach("retention.committed")
            await asyncio.sleep(0)  # whoever waits for the database gets it first
        self.wake.set()

    async def _delete_old_batches(self, done: _Done, *, now: datetime) -> None:
        if self._batches_are_kept is None:
            return
        matching = PurgeFilter(tenant_id=None, ended_until=now - self._batches_are_kept)
        after = None
        while True:
            async with self._store.transaction() as tx:
                deleted = await self._store.retention.delete_some(
                    tx, matching, limit=_BATCHES_AT_ONCE, after=after
                )
            if not deleted:
                return
            done.batches += len(deleted)
            after = deleted[-1].place
            await asyncio.sleep(0)

    async def _remove_slice(self, done: _Done, *, now: datetime) -> bool:
        """Removes a slice of what is left of deleted batches, else of what else is old."""
        removed = await self._store.retention.remove_some(limit=self._slice_rows)
        done.rows += removed.row_count
        if removed.row_count or await self._forget_requests(done, now=now):
            return True
        if await self._forget_occurrences(done, now=now):
            return True
        if await self._forget_preference_changes(done, now=now):
            return True
        if await self._forget_groups(done, now=now):
            return True
        return await self._forget_events(done, now=now)

    async def _forget_requests(self, done: _Done, *, now: datetime) -> bool:
        forgotten = await self._store.requests.forget(
            before=now - REQUESTS_ARE_KEPT, limit=self._slice_rows
        )
        done.requests += forgotten
        return forgotten > 0

    async def _forget_occurrences(self, done: _Done, *, now: datetime) -> bool:
        if self._batches_are_kept is None:
            return False
        forgotten = await self._store.occurrences.forget(
            before=now - self._batches_are_kept, limit=self._slice_rows
        )
        if not forgotten:
            forgotten = await self._store.group_runs.forget(
                before=now - self._batches_are_kept, limit=self._slice_rows
            )
        done.occurrences += forgotten
        return forgotten > 0

    async def _forget_preference_changes(self, done: _Done, *, now: datetime) -> bool:
        if self._events_are_kept is None:
            return False
        # Whom a group serves once more after they left it is found in the changes.
        are_kept = max(self._events_are_kept, MOVES_COUNT_FOR)
        forgotten = await self._store.preference_changes.forget(
            before=now - are_kept, limit=self._slice_rows
        )
        done.preference_changes += forgotten
        return forgotten > 0

    async def _forget_user_runs(self, done: _Done, *, now: datetime) -> None:
        """Looks at the next last runs of users, and removes old ones whose batches are gone."""
        if self._batches_are_kept is None:
            return
        forgotten, self._next_user_run = await self._store.group_runs.forget_runs(
            before=now - max(self._batches_are_kept, RUNS_ARE_KEPT),
            limit=_RUNS_AT_ONCE,
            after=self._next_user_run,
        )
        done.user_runs += forgotten

    async def _forget_groups(self, done: _Done, *, now: datetime) -> bool:
        """Removes groups without members that nobody can be a guest of any more."""
        forgotten = await self._store.preference_groups.forget_empty(
            before=now - MOVES_COUNT_FOR, limit=self._slice_rows
        )
        done.groups += forgotten
        return forgotten > 0

    async def _forget_events(self, done: _Done, *, now: datetime) -> bool:
        if self._events_are_kept is None:
            return False
        until = now - self._events_are_kept
        if until == self._events_forgotten_until:
            return False
        forgotten = await self._store.retention.forget_events(
            ended_from=self._events_forgotten_until, ended_until=until, limit=self._slice_rows
        )
        done.events += forgotten.row_count
        self._events_forgotten_until = forgotten.reached
        return forgotten.reached < until

    def _fit_slices(self, seconds: float, *, most_rows: int) -> None:
        """Makes slices larger or smaller, so that nobody waits for long: rows differ in size."""
        if seconds > _SLOW.total_seconds():
            self._slice_rows = max(self._slice_rows // 2, _FEWEST_ROWS)
        elif seconds < _QUICK.total_seconds():
            self._slice_rows = min(self._slice_rows * 2, most_rows)
