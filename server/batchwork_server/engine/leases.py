"""Keeps what this worker has in hand, as long as it is this worker's."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from batchwork_server.clock import Clock
from batchwork_server.engine.committer import Committer
from batchwork_server.engine.executor import RunningBatch
from batchwork_server.engine.feed import Feed
from batchwork_server.engine.runs import Runs
from batchwork_server.logs import get_logger
from batchwork_server.store.store import Store
from batchwork_server.wakeups import Wakeups

log = get_logger(__name__)


class Leases:
    """Extends leases, lets go of what may be somebody else's, and looks what others have stopped.

    Args:
        alone: Whether no other process can work on this database. Then nobody takes a chunk whose
            lease is over, and nobody else stops a batch; what is in hand simply goes on.
    """

    LOOK_INTERVAL: ClassVar = timedelta(seconds=1)

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        wakeups: Wakeups,
        runs: Runs,
        feed: Feed,
        committer: Committer,
        owner: str,
        lease: timedelta,
        alone: bool,
    ) -> None:
        self._store = store
        self._clock = clock
        self._wakeups = wakeups
        self._runs = runs
        self._feed = feed
        self._committer = committer
        self._owner = owner
        self._lease = lease
        self._alone = alone

    def end(self) -> float:
        """Returns until when at least a lease goes that is taken from now on."""
        return self._clock.monotonic() + self._lease.total_seconds()

    async def extend(self) -> None:
        """Extends the lease of every chunk in hand, and stops those that are lost or stopped."""
        asked, end = list(self._runs), self.end()
        extended = await self._store.chunks.extend(
            [run.chunk.chunk_key for run in asked],
            owner=self._owner,
            now=self._clock.now(),
            lease=self._lease,
        )
        for run in asked:
            if run.chunk.chunk_key in extended.held:
                run.lease_end = end
            # Of one that is being recorded, or was let go of meanwhile, the record tells.
            elif run in self._runs and not run.is_recording:
                self._committer.lose(run)
        for batch in extended.batches.values():
            self._wakeups.batch_changed(batch)

    async def let_go(self) -> None:
        """Stops the work on chunks whose lease is over for all that is known here.

        Somebody else may be working on them. What is done of them is kept: when the database is
        back and nobody has taken them, it is recorded, and the rest is given back.
        """
        now = self._clock.monotonic()
        lapsed = [run for run in self._runs if run.lease_end < now and not run.lapsed]
        if self._alone or not lapsed:
            return
        # Leases are extended together; a chunk that was claimed since is not worth its own way.
        batches = {run.running.batch.key: run.running for run in lapsed}
        for running in batches.values():
            self._let_go_of(running)

    def _let_go_of(self, running: RunningBatch) -> None:
        runs = [run for run in self._runs if run.running is running]
        log.warning("lease.lapsed", batch_id=running.batch.batch_id, chunks=len(runs))
        running.stop_attempts()
        for run in runs:
            run.lapsed = True
            run.give_back(self._feed.drop(run))
            if run.is_done:
                self._committer.finish(run)

    async def look(self) -> None:
        """Hears of batches in hand that were stopped at another server, within the interval."""
        known = {running.batch.key: running.batch.sequence for running in self._runs.batches}
        if self._alone or not known:
            return
        for key, batch in (await self._store.chunks.stopped(known)).items():
            if batch.sequence > known[key]:
                self._wakeups.batch_changed(batch)
