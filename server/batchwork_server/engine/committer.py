"""Commits what came of items: the outcomes of all chunks that are done, in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

from batchwork_server.clock import Clock
from batchwork_server.domain.batch import StateReason, dispatch_time
from batchwork_server.domain.item import ItemState, Outcome
from batchwork_server.domain.retry import provider_pause
from batchwork_server.engine.executor import RunningBatch
from batchwork_server.engine.feed import ChunkRun, Feed
from batchwork_server.engine.runs import Runs
from batchwork_server.errors import ProviderUnavailable, RateLimited, Unavailable
from batchwork_server.failpoints import reach
from batchwork_server.logs import WaitingLog, get_logger
from batchwork_server.store.store import ChunkRecord, Store
from batchwork_server.wakeups import Wakeups

log = get_logger(__name__)

FLUSH_INTERVAL = timedelta(milliseconds=250)
"""How old an outcome of a chunk that still runs can get before it is recorded."""

_MOST_OUTCOMES = 4000  # in one transaction
_MOST_RESULT_BYTES = 8 * 1024 * 1024  # in one transaction
_PAUSE = timedelta(milliseconds=500)


class Committer:
    """Writes the outcomes of all chunks that are done, however many there are by then.

    One transaction takes them all: the slower the disk, the larger the commit. What could not be
    written is kept and tried again.
    """

    def __init__(
        self, *, store: Store, clock: Clock, wakeups: Wakeups, runs: Runs, feed: Feed
    ) -> None:
        self._store = store
        self._clock = clock
        self._wakeups = wakeups
        self._runs = runs
        self._feed = feed
        self._done: dict[int, ChunkRun] = {}
        self._pauses: dict[int, tuple[RunningBatch, ProviderUnavailable]] = {}
        self._something_done = asyncio.Event()
        self._recording = asyncio.Lock()
        self._flushed = clock.monotonic()
        self._waiting = WaitingLog(log, "commit", monotonic=clock.monotonic)

    def finish(self, run: ChunkRun) -> None:
        """Takes a chunk of which no item is left in the feed or in flight."""
        if not run.lost and run in self._runs:
            self._done[run.chunk.chunk_key] = run
            self._something_done.set()

    def pause(self, running: RunningBatch, away: ProviderUnavailable) -> None:
        """Has a batch paused whose provider is away, before anything of it is given back."""
        running.pausing = True
        self._pauses.setdefault(running.batch.key, (running, away))
        self._something_done.set()

    async def commit(self, stop: asyncio.Event) -> None:
        """Records what is done until ``stop`` is set."""
        while not stop.is_set():
            await self._clock.wait(self._something_done, FLUSH_INTERVAL)
            try:
                await self.commit_once()
            except Unavailable as error:
                self._waiting.waits(error.reason, error.message)
                await self._clock.wait(stop, _PAUSE)
            else:
                self._waiting.goes_on()

    async def commit_once(self) -> None:
        """Records the chunks that are done, and outcomes of others that have waited long enough.

        Raises:
            StoreUnavailable: nothing of the last transaction was written, and all of it is kept.
        """
        self._something_done.clear()
        await self._record_pauses()
        while runs := self._next_runs():
            try:
                await asyncio.shield(self._record(runs))
            except BaseException:
                for run in runs:
                    if run.is_done:
                        self.finish(run)
                raise

    async def _record_pauses(self) -> None:
        for key, (running, away) in list(self._pauses.items()):
            now = self._clock.now()
            limited = isinstance(away, RateLimited)
            # What was done in the meantime may not be recorded yet.
            pauses = 0 if running.progressed else running.batch.provider_pauses
            delay = away.retry_after or provider_pause(pauses)
            async with self._store.transaction() as tx:
                paused = await self._store.changes.pause(
                    tx,
                    key,
                    reason=StateReason.PROVIDER_RATE_LIMITED
                    if limited
                    else StateReason.PROVIDER_DOWN,
                    message=f"{away.reason}: {away.message}"[:500],
                    resume_time=now + delay,
                    now=now,
                )
            reach("pause.committed")
            del self._pauses[key]
            running.pausing = running.progressed = False
            if paused is not None:
                log.warning(
                    "batch.paused",
                    batch_id=paused.batch_id,
                    tenant_id=paused.tenant_id,
                    reason=paused.state_reason,
                    seconds=delay.total_seconds(),
                )
                self._wakeups.batch_changed(paused)

    def _flush_is_due(self) -> bool:
        return self._clock.monotonic() - self._flushed >= FLUSH_INTERVAL.total_seconds()

    def _next_runs(self) -> list[ChunkRun]:
        runs: list[ChunkRun] = []
        room, bytes_left = _MOST_OUTCOMES, _MOST_RESULT_BYTES
        while self._done and room > 0 and bytes_left > 0:
            run = self._done.pop(next(iter(self._done)))
            runs.append(run)
            room -= len(run.outcomes)
            bytes_left -= sum(len(outcome.result_json or "") for outcome in run.outcomes)
        if self._flush_is_due():
            self._flushed = self._clock.monotonic()
            chosen = {run.chunk.chunk_key for run in runs} | self._done.keys()
            runs += [
                run
                for run in self._runs
                if run.outcomes and not run.isolated and run.chunk.chunk_key not in chosen
            ]
        return runs

    async def _record(self, runs: Sequence[ChunkRun]) -> None:
        async with self._recording:
            # While this waited for its turn, the chunk may have been recorded to its end, or lost.
            runs = [run for run in runs if not run.finished.is_set()]
            if runs:
                await self._write(runs)

    async def _write(self, runs: Sequence[ChunkRun]) -> None:
        """Writes what there is of the chunks; what could not be written is theirs again."""
        now = self._clock.now()
        taken = [(run.take_outcomes(), run.take_returned()) for run in runs]
        for run in runs:
            run.is_recording = True
        try:
            records = [
                _record_of(run, outcomes, returned, now=now)
                for run, (outcomes, returned) in zip(runs, taken, strict=True)
            ]
            reach("record.begun")
            recorded = await self._store.chunks.record(records, now=now)
        except BaseException:
            for run, (outcomes, returned) in zip(runs, taken, strict=True):
                run.outcomes = outcomes + run.outcomes
                run.returned += returned
            raise
        finally:
            for run in runs:
                run.is_recording = False
        reach("record.committed")
        for run, record in zip(runs, records, strict=True):
            if run.chunk.chunk_key in recorded.lost:
                self.lose(run)
            elif record.done or record.release:
                self._forget(run)
        for batch in recorded.batches.values():
            self._wakeups.batch_changed(batch)
        if any(record.release for record in records):
            self._wakeups.work_arrived()  # a retry may be due before anybody looks

    def lose(self, run: ChunkRun) -> None:
        """Stops the work on a chunk that somebody else has by now."""
        log.warning("chunk.lost", chunk=run.chunk.chunk_key, batch_id=run.running.batch.batch_id)
        run.lost = True
        self._feed.drop(run)
        self._forget(run)

    def _forget(self, run: ChunkRun) -> None:
        self._done.pop(run.chunk.chunk_key, None)
        self._runs.forget(run)

    async def release(self) -> None:
        """Records what is done and gives the rest back, with its attempts, for somebody else.

        Called when no worker runs any more.
        """
        async with self._recording:  # a commit that is under way comes first
            runs = [run for run in self._runs if not run.lost]
            for run in runs:
                run.give_back(self._feed.drop(run))
            if runs:
                await self._write(runs)


def _record_of(
    run: ChunkRun, outcomes: list[Outcome], returned: int, *, now: datetime
) -> ChunkRecord:
    """Says what is to be written of a chunk: it is done, open again for the rest, or goes on."""
    for outcome in outcomes:
        if outcome.state is ItemState.PENDING:
            _schedule_retry(outcome, run, now=now)
    record = ChunkRecord(
        chunk_key=run.chunk.chunk_key,
        epoch=run.chunk.epoch,
        batch_key=run.chunk.batch_key,
        outcomes=outcomes,
        returned=returned,
    )
    if run.is_done:
        due = now if run.gave_back else _next_due(run)
        record.done = due is None
        record.release = due is not None
        record.due_time = due
        record.dispatch_time = _order(run, due) if due else None
    return record


def _schedule_retry(outcome: Outcome, run: ChunkRun, *, now: datetime) -> None:
    policy = run.running.batch.request.options.retry
    backoff = now + policy.backoff(retry=outcome.retry_number, draw=run.draw)
    asked = outcome.next_attempt_time
    outcome.next_attempt_time = backoff if asked is None else max(asked, backoff)
    run.retry_time = min(run.retry_time or outcome.next_attempt_time, outcome.next_attempt_time)


def _next_due(run: ChunkRun) -> datetime | None:
    known = [time for time in (run.retry_time, run.chunk.waiting_time) if time is not None]
    return min(known) if known else None


def _order(run: ChunkRun, due: datetime) -> datetime:
    return dispatch_time(due=due, handicap=run.running.batch.request.options.handicap, place=0)
