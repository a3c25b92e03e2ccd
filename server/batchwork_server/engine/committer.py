"""Commits what came of items: the outcomes of all chunks that are done, in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

from batchwork_server.clock import Clock
from batchwork_server.domain.batch import dispatch_time
from batchwork_server.domain.item import ItemError, ItemState, Outcome
from batchwork_server.engine.executor import RunningBatch
from batchwork_server.engine.feed import ChunkRun, Feed
from batchwork_server.engine.loop import RESTART_PAUSE
from batchwork_server.engine.providers import Away
from batchwork_server.engine.runs import Runs
from batchwork_server.errors import Unavailable
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
    written is kept and tried again. What cannot be written at all holds up nothing else: the
    chunks of a transaction that failed are written one by one, and an outcome that no transaction
    takes becomes a failure of its item.

    Attributes:
        losses: How many chunks were lost, so far.
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
        self._pauses: dict[int, tuple[RunningBatch, Away]] = {}
        self._something_done = asyncio.Event()
        self._recording = asyncio.Lock()
        self._flushed = clock.monotonic()
        self._waiting = WaitingLog(log, "commit", monotonic=clock.monotonic)
        self.losses = 0

    def finish(self, run: ChunkRun) -> None:
        """Takes a chunk of which no item is left in the feed or in flight."""
        if not run.lost and run in self._runs:
            self._done[run.chunk.chunk_key] = run
            self._something_done.set()

    def pause(self, running: RunningBatch, away: Away) -> None:
        """Has a batch paused whose provider is away, before anything of it is given back."""
        running.pausing = True
        self._pauses.setdefault(running.batch.key, (running, away))
        self._something_done.set()

    async def commit(self, stop: asyncio.Event) -> None:
        """Records what is done until ``stop`` is set."""
        while not stop.is_set():
            await self._clock.wait(self._something_done, FLUSH_INTERVAL)
            try:
                is_complete = await self.commit_once()
            except Unavailable as error:
                self._waiting.waits(error.reason, error.message)
                await self._clock.wait(stop, _PAUSE)
            else:
                self._waiting.goes_on()
                if not is_complete:
                    await self._clock.wait(stop, RESTART_PAUSE)

    async def commit_once(self) -> bool:
        """Records the chunks that are done, and outcomes of others that have waited long enough.

        Returns:
            Whether all of it was recorded. What was not, for a reason that nobody foresaw, is
            logged and kept.

        Raises:
            StoreUnavailable: nothing of the last transaction was written, and all of it is kept.
        """
        self._something_done.clear()
        is_complete = True
        kept: list[ChunkRun] = []
        try:
            while True:
                # Pauses come first, also those that were asked for meanwhile: what a paused batch
                # gave back could be claimed again by somebody who knows nothing of it.
                is_complete = await self._record_pauses() and is_complete
                runs = self._next_runs()
                if not runs:
                    break
                kept += runs
                if await asyncio.shield(self._record(runs)):
                    del kept[-len(runs) :]
        finally:
            for run in kept:
                if run.is_done:
                    self.finish(run)
        return is_complete and not kept

    async def _record_pauses(self) -> bool:
        """Records what batches wait for; one that cannot be recorded holds up only its batch."""
        is_complete = True
        for key, (running, away) in list(self._pauses.items()):
            try:
                await self._record_pause(running, away)
            except Unavailable:
                raise
            except Exception:
                log.exception("pause.failed", batch_id=running.batch.batch_id)
                is_complete = False
            else:
                del self._pauses[key]
                running.pausing = running.progressed = False
        return is_complete

    async def _record_pause(self, running: RunningBatch, away: Away) -> None:
        now = self._clock.now()
        async with self._store.transaction() as tx:
            paused = await self._store.changes.pause(
                tx,
                running.batch.key,
                reason=away.pause.reason,
                message=away.pause.message,
                resume_time=away.until,
                now=now,
            )
        reach("pause.committed")
        if paused is not None:
            log.warning(
                "batch.paused",
                batch_id=paused.batch_id,
                tenant_id=paused.tenant_id,
                reason=paused.state_reason,
                seconds=(away.until - now).total_seconds(),
            )
            self._wakeups.batch_changed(paused)

    def _flush_is_due(self) -> bool:
        return self._clock.monotonic() - self._flushed >= FLUSH_INTERVAL.total_seconds()

    def _next_runs(self) -> list[ChunkRun]:
        """Returns what one transaction is to write.

        Of a batch that is to be paused nothing is given back before it is known to wait.
        """
        runs: list[ChunkRun] = []
        room, bytes_left = _MOST_OUTCOMES, _MOST_RESULT_BYTES
        for key, run in list(self._done.items()):
            if room <= 0 or bytes_left <= 0:
                break
            if run.running.pausing:
                continue
            del self._done[key]
            runs.append(run)
            room -= len(run.outcomes)
            bytes_left -= sum(len(outcome.result_json or "") for outcome in run.outcomes)
        if self._flush_is_due():
            self._flushed = self._clock.monotonic()
            chosen = {run.chunk.chunk_key for run in runs} | self._done.keys()
            runs += [
                run
                for run in self._runs
                if run.outcomes
                and not (run.isolated or run.running.pausing)
                and run.chunk.chunk_key not in chosen
            ]
        return runs

    async def _record(self, runs: Sequence[ChunkRun]) -> bool:
        """Records chunks, and tells whether all of it could be written."""
        async with self._recording:
            # While this waited for its turn, the chunk may have been recorded to its end, or lost.
            runs = [run for run in runs if not run.finished.is_set()]
            return not runs or await self._write(runs)

    async def _write(self, runs: Sequence[ChunkRun]) -> bool:
        """Writes chunks together, or what of them can be written; the rest is theirs again."""
        try:
            await self._write_together(runs)
        except Unavailable:
            raise
        except Exception:
            log.exception("record.failed", chunks=len(runs))
            return all([await self._write_alone(run) for run in runs])
        return True

    async def _write_alone(self, run: ChunkRun) -> bool:
        """Writes a chunk that may be the one which another transaction failed for."""
        try:
            await self._write_outcomes(run, len(run.outcomes))
            if not run.lost:
                await self._write_together([run])
        except Unavailable:
            raise
        except Exception:
            log.exception("chunk.unrecorded", batch_id=run.running.batch.batch_id)
            return False
        return True

    async def _write_outcomes(self, run: ChunkRun, count: int) -> None:
        """Writes the first outcomes of a chunk; one that cannot be written fails its item."""
        if not count or run.lost:
            return
        try:
            await self._write_together([run], most=count)
        except Unavailable:
            raise
        except Exception:  # noqa: BLE001  the parts are tried; the last of them tells
            if count == 1:
                await self._write_failure(run)
                return
            for part in (count // 2, count - count // 2):
                await self._write_outcomes(run, part)

    async def _write_failure(self, run: ChunkRun) -> None:
        """Writes of the first outcome of a chunk that it cannot be written."""
        outcome = run.outcomes[0]
        run.outcomes[0] = failure = _unrecordable(outcome)
        run.running.tally.exchange(outcome, failure)
        try:
            await self._write_together([run], most=1)
        except BaseException:
            run.outcomes[0] = outcome  # nothing can be written; that is not the fault of this one
            run.running.tally.exchange(failure, outcome)
            raise
        log.error(
            "outcome.unrecordable", batch_id=run.running.batch.batch_id, item_index=outcome.index
        )

    async def _write_together(self, runs: Sequence[ChunkRun], *, most: int | None = None) -> None:
        """Writes what there is of the chunks; what could not be written is theirs again.

        Args:
            most: So many outcomes of each, after which the chunks go on.
        """
        now = self._clock.now()
        goes_on = most is not None
        taken = [(run.take_outcomes(most), 0 if goes_on else run.take_returned()) for run in runs]
        for run in runs:
            run.is_recording = True
        try:
            records = [
                _record_of(run, outcomes, returned, now=now, goes_on=goes_on)
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
            run.recorded += len(record.outcomes) + record.returned
            run.running.tally.take_off(record.outcomes)
            if run.chunk.chunk_key in recorded.lost:
                self.lose(run)
            elif record.done or record.release:
                self._forget(run)
        for batch in recorded.batches.values():
            self._wakeups.batch_changed(batch)
        if any(record.release for record in records):
            self._wakeups.work_arrived()  # a retry may be due before anybody looks

    def lose(self, run: ChunkRun) -> None:
        """Stops the work on a chunk that somebody else has by now, or nobody knows who has."""
        self.losses += 1
        log.warning("chunk.lost", chunk=run.chunk.chunk_key, batch_id=run.running.batch.batch_id)
        run.lost = True
        run.running.tally.take_off(run.take_outcomes())
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
    run: ChunkRun, outcomes: list[Outcome], returned: int, *, now: datetime, goes_on: bool
) -> ChunkRecord:
    """Says what is to be written of a chunk: it is done, open again for the rest, or goes on."""
    for outcome in outcomes:
        if outcome.state is ItemState.PENDING:
            _schedule_retry(outcome, run, now=now)
    record = ChunkRecord(
        chunk_key=run.chunk.chunk_key,
        epoch=run.chunk.epoch,
        batch_key=run.chunk.batch_key,
        taken=len(run.chunk.items) - run.recorded,
        outcomes=outcomes,
        returned=returned,
    )
    if run.is_done and not goes_on:
        due = now if run.gave_back else _next_due(run)
        record.done = due is None
        record.release = due is not None
        record.due_time = due
        record.dispatch_time = _order(run, due) if due else None
    return record


def _unrecordable(outcome: Outcome) -> Outcome:
    """Returns what is recorded in the place of an outcome that the database does not take."""
    return Outcome(
        outcome.index,
        ItemState.FAILED,
        outcome.attempts,
        error=ItemError(
            reason="NOT_RECORDABLE",
            message="What came of the attempt could not be recorded; the server's log says why.",
            retryable=False,
        ),
        start_micros=outcome.start_micros,
        end_micros=outcome.end_micros,
        is_new=outcome.is_new,
    )


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
