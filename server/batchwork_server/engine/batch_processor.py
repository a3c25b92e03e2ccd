"""Takes chunks, runs their items bounded, and commits what came of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Batch, BatchState, dispatch_time
from batchwork_server.domain.item import ItemState, Outcome
from batchwork_server.engine.executor import Executor, RunningBatch
from batchwork_server.engine.feed import ChunkRun, Feed
from batchwork_server.errors import Unavailable
from batchwork_server.logs import get_logger
from batchwork_server.store.store import ChunkRecord, ClaimedChunk, Store
from batchwork_server.wakeups import Wakeups

log = get_logger(__name__)

FLUSH_INTERVAL = timedelta(milliseconds=250)
"""How old an outcome of a chunk that still runs can get before it is recorded."""

_AHEAD = 0.1  # seconds of work that are claimed before the workers need them
_MOST_AHEAD = 4000
_MOST_OUTCOMES = 4000  # in one transaction
_MOST_RESULT_BYTES = 8 * 1024 * 1024  # in one transaction
_SLICE = 0.002  # seconds that a worker goes on without letting others run
_PAUSE = timedelta(milliseconds=500)


class BatchProcessor:
    """Processes chunks with a fixed set of workers. Called BatchProcessor in the documents, too.

    Items go from the feed through the executor into their chunk's outcomes. One committer writes
    the outcomes of all chunks that are done, however many there are by then, in one transaction:
    the slower the disk, the larger the commit.
    """

    def __init__(
        self,
        *,
        store: Store,
        executor: Executor,
        clock: Clock,
        wakeups: Wakeups,
        owner: str,
        slots: int,
        lease: timedelta,
    ) -> None:
        self._store = store
        self._executor = executor
        self._clock = clock
        self._wakeups = wakeups
        self._owner = owner
        self._slots = slots
        self._lease = lease
        self._feed = Feed()
        self._runs: dict[int, ChunkRun] = {}
        self._batches: dict[int, RunningBatch] = {}
        self._done: dict[int, ChunkRun] = {}
        self._something_done = asyncio.Event()
        self._recording = asyncio.Lock()
        self._flushed = clock.monotonic()
        self._rate = _Rate(clock)
        self._draining = False
        self._wakeups.subscribe(self._on_batch)

    # Taking chunks

    def room(self) -> int:
        """Returns how many more items to claim: enough for all workers and a moment ahead.

        Slow items are not claimed long before their turn, so that what is urgent can overtake
        them; fast ones come in numbers that make a claim cheap.
        """
        if self._draining:
            return 0
        ahead = min(_MOST_AHEAD, int(self._rate.per_second() * _AHEAD))
        return max(self._slots, ahead) - self._feed.queued

    async def take(self, chunk_keys: Sequence[int]) -> list[asyncio.Event]:
        """Claims the chunks that are still open, and feeds them to the workers.

        Raises:
            StoreUnavailable: nothing was claimed.
        """
        now = self._clock.now()
        claimed = await self._store.chunks.claim(
            chunk_keys, owner=self._owner, now=now, lease_time=now + self._lease
        )
        runs = [self._run_of(chunk, claimed.batches[chunk.batch_key]) for chunk in claimed.chunks]
        for run in runs:
            self._runs[run.chunk.chunk_key] = run
            if run.is_done:
                self._finish(run)
            else:
                self._feed.put(run)
        for batch in claimed.batches.values():
            self._wakeups.batch_changed(batch)
        return [run.finished for run in runs]

    def _run_of(self, chunk: ClaimedChunk, batch: Batch) -> ChunkRun:
        running = self._batches.setdefault(batch.key, RunningBatch(batch=batch))
        running.chunks += 1
        if batch.state is BatchState.CANCELLING:
            running.wanted = False
        return ChunkRun(chunk=chunk, running=running, queue=deque(chunk.items))

    def _on_batch(self, batch: Batch) -> None:
        running = self._batches.get(batch.key)
        if running is not None and batch.state is BatchState.CANCELLING:
            running.wanted = False
            self._feed.wake(self._slots)

    # Processing items

    async def work(self) -> None:
        """Processes items until the feed is closed; as many of these run as there are slots."""
        turn = self._clock.monotonic()
        while not self._feed.closed:
            taken = self._feed.take()
            if taken is None:
                self._wakeups.room.set()
                await self._feed.wait()
                turn = self._clock.monotonic()
                continue
            run, item = taken
            if self._feed.queued < self._slots:
                self._wakeups.room.set()
            try:
                outcome = await self._executor.attempt(run.running, item)
            except BaseException:
                self._feed.interrupt(run, item)
                raise
            self._feed.give_back(run)
            self._rate.count()
            if not run.lost:
                run.outcomes.append(outcome)
                if run.is_done:
                    self._finish(run)
            if self._clock.monotonic() - turn > _SLICE:
                await asyncio.sleep(0)
                turn = self._clock.monotonic()

    def _finish(self, run: ChunkRun) -> None:
        self._done[run.chunk.chunk_key] = run
        self._something_done.set()

    # Committing outcomes

    async def commit(self, stop: asyncio.Event) -> None:
        """Records what is done until ``stop`` is set.

        While the database is away nothing is lost: what could not be written is kept and tried
        again.
        """
        while not stop.is_set():
            await self._clock.wait(self._something_done, FLUSH_INTERVAL)
            try:
                await self.commit_once()
            except Unavailable as error:
                log.warning("commit.waiting", reason=error.reason, error=error.message)
                await self._clock.wait(stop, _PAUSE)

    async def commit_once(self) -> None:
        """Records the chunks that are done, and outcomes of others that have waited long enough.

        Raises:
            StoreUnavailable: nothing of the last transaction was written, and all of it is kept.
        """
        self._something_done.clear()
        while runs := self._next_runs():
            try:
                await asyncio.shield(self._record(runs))
            except BaseException:
                for run in runs:
                    if run.is_done:
                        self._finish(run)
                raise

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
            runs += [run for key, run in self._runs.items() if run.outcomes and key not in chosen]
        return runs

    async def _record(self, runs: Sequence[ChunkRun]) -> None:
        async with self._recording:
            # While this waited for its turn, the chunk may have been recorded to its end, or lost.
            runs = [run for run in runs if not run.finished.is_set()]
            now = self._clock.now()
            taken = [run.take_outcomes() for run in runs]
            records = [
                _record_of(run, outcomes, now=now)
                for run, outcomes in zip(runs, taken, strict=True)
            ]
            try:
                await self._write(runs, records, now=now)
            except BaseException:
                for run, outcomes in zip(runs, taken, strict=True):
                    run.outcomes = outcomes + run.outcomes
                raise

    async def _write(
        self, runs: Sequence[ChunkRun], records: Sequence[ChunkRecord], *, now: datetime
    ) -> None:
        recorded = await self._store.chunks.record(records, now=now)
        for run, record in zip(runs, records, strict=True):
            if run.chunk.chunk_key in recorded.lost:
                self._lose(run)
            elif record.done or record.release:
                self._forget(run)
        self._tell(recorded.batches.values())
        if any(record.release for record in records):
            self._wakeups.work_arrived()  # a retry may be due before anybody looks

    def _tell(self, batches: Iterable[Batch]) -> None:
        for batch in batches:
            if batch.state.is_final:
                counts = batch.counts
                log.info(
                    "batch.finished",
                    batch_id=batch.batch_id,
                    tenant_id=batch.tenant_id,
                    state=batch.state,
                    total=counts.total,
                    succeeded=counts.succeeded,
                    failed=counts.failed,
                    skipped=counts.skipped,
                    seconds=round((batch.update_time - batch.create_time).total_seconds(), 3),
                )
            self._wakeups.batch_changed(batch)

    def _lose(self, run: ChunkRun) -> None:
        """Stops the work on a chunk that somebody else has by now."""
        log.warning("chunk.lost", chunk=run.chunk.chunk_key, batch_id=run.running.batch.batch_id)
        run.lost = True
        self._feed.drop(run)
        self._forget(run)

    def _forget(self, run: ChunkRun) -> None:
        self._runs.pop(run.chunk.chunk_key, None)
        self._done.pop(run.chunk.chunk_key, None)
        run.finished.set()
        run.running.chunks -= 1
        if not run.running.chunks:
            self._batches.pop(run.chunk.batch_key, None)

    # Keeping and giving back

    async def extend_leases(self) -> None:
        """Extends the lease of every chunk in hand, and stops those that are lost."""
        held = await self._store.chunks.extend(
            list(self._runs), owner=self._owner, lease_time=self._clock.now() + self._lease
        )
        for key, run in list(self._runs.items()):
            if key not in held and not run.lost and key in self._runs:
                self._lose(run)

    def stop_taking(self) -> None:
        """Claims nothing more and starts no further item; those in flight go on."""
        self._draining = True
        self._feed.close()
        self._wakeups.room.set()
        self._wakeups.work_arrived()  # so that the dispatcher looks, and sees that it is to stop

    async def release(self) -> None:
        """Records what is done and gives the rest back, with its attempts, for somebody else.

        Called when no worker runs any more.
        """
        async with self._recording:  # a commit that is under way comes first
            now = self._clock.now()
            runs = [run for run in self._runs.values() if not run.lost]
            if runs:
                records = [self._release_of(run, now=now) for run in runs]
                await self._write(runs, records, now=now)

    def _release_of(self, run: ChunkRun, *, now: datetime) -> ChunkRecord:
        returned = self._feed.drop(run)
        record = _record_of(run, run.take_outcomes(), now=now)
        if returned:
            record.done, record.release, record.returned = False, True, returned
            record.due_time, record.dispatch_time = now, _order(run, now)
        return record


class _Rate:
    """How many items a second are done, looked at over the last tenths of a second."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = clock.monotonic()
        self._count = 0
        self._last = 0.0

    def count(self) -> None:
        self._count += 1

    def per_second(self) -> float:
        elapsed = self._clock.monotonic() - self._since
        if elapsed >= _AHEAD:
            self._last = self._count / elapsed
            self._since, self._count = self._clock.monotonic(), 0
        return self._last


def _record_of(run: ChunkRun, outcomes: list[Outcome], *, now: datetime) -> ChunkRecord:
    """Says what is to be written of a chunk: it is done, open again for its retries, or goes on."""
    for outcome in outcomes:
        if outcome.state is ItemState.PENDING:
            _schedule_retry(outcome, run, now=now)
    record = ChunkRecord(
        chunk_key=run.chunk.chunk_key,
        epoch=run.chunk.epoch,
        batch_key=run.chunk.batch_key,
        outcomes=outcomes,
    )
    if run.is_done:
        due = _next_due(run)
        record.done = due is None
        record.release = due is not None
        record.due_time = due
        record.dispatch_time = _order(run, due) if due else None
    return record


def _schedule_retry(outcome: Outcome, run: ChunkRun, *, now: datetime) -> None:
    policy = run.running.batch.request.options.retry
    backoff = now + policy.backoff(attempts=outcome.attempts, draw=run.draw)
    asked = outcome.next_attempt_time
    outcome.next_attempt_time = backoff if asked is None else max(asked, backoff)
    run.retry_time = min(run.retry_time or outcome.next_attempt_time, outcome.next_attempt_time)


def _next_due(run: ChunkRun) -> datetime | None:
    known = [time for time in (run.retry_time, run.chunk.waiting_time) if time is not None]
    return min(known) if known else None


def _order(run: ChunkRun, due: datetime) -> datetime:
    priority = run.running.batch.request.options.priority
    return dispatch_time(due=due, priority=priority, place=0)
