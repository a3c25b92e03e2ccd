"""Takes chunks and runs their items bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Batch
from batchwork_server.domain.item import ItemState, Outcome, PendingItem
from batchwork_server.engine.cancellation import forget_cancellation
from batchwork_server.engine.classification import Pause
from batchwork_server.engine.committer import Committer
from batchwork_server.engine.executor import (
    Executor,
    NotDone,
    RunningBatch,
    poisoned,
    timed_out,
)
from batchwork_server.engine.feed import ChunkRun, Feed
from batchwork_server.engine.hands import Hand, Hands
from batchwork_server.engine.item_durations import ItemDurations
from batchwork_server.engine.leases import Leases
from batchwork_server.engine.providers import Away, Providers
from batchwork_server.engine.runs import Runs
from batchwork_server.errors import Unavailable
from batchwork_server.failpoints import reach
from batchwork_server.logs import get_logger
from batchwork_server.ports import Room
from batchwork_server.store.store import Store
from batchwork_server.wakeups import Wakeups

log = get_logger(__name__)

_AHEAD = 0.1  # seconds of work that are claimed before the workers need them
_MOST_AHEAD = 4000
_RATE_WINDOW = 0.02  # seconds
_SLICE = 0.002  # seconds that the workers go on together without letting others run


class BatchProcessor:
    """Processes chunks with a fixed set of workers. Called BatchProcessor in the documents, too.

    Items go from the feed through the executor into their chunk's outcomes; the committer writes
    those.

    Args:
        alone: Whether no other process can work on this database.
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
        alone: bool = True,
    ) -> None:
        self._store = store
        self._executor = executor
        self._clock = clock
        self._wakeups = wakeups
        self._owner = owner
        self._slots = slots
        self._lease = lease
        self._feed = Feed()
        self._runs = Runs(self._feed)
        self._hands = Hands()
        self._rate = _Rate(clock)
        self._turns = _Turns(clock)
        self._providers = Providers(clock)
        self._low_water = slots
        self._draining = False
        self._claiming = asyncio.Lock()
        self._claim_is_unsure = False
        self._looked_after_losses = 0
        self.committer = Committer(
            store=store, clock=clock, wakeups=wakeups, runs=self._runs, feed=self._feed
        )
        self.leases = Leases(
            store=store,
            clock=clock,
            wakeups=wakeups,
            runs=self._runs,
            feed=self._feed,
            committer=self.committer,
            owner=owner,
            lease=lease,
            alone=alone,
        )
        self.durations = ItemDurations(store=store, clock=clock, runs=self._runs)
        wakeups.subscribe(self._on_batch)

    # Taking chunks

    def room(self) -> Room:
        """Returns what to claim: enough for all workers and a moment ahead.

        Slow items are not claimed long before their turn, so that what is urgent can overtake
        them; fast ones come in numbers that make a claim cheap. Only what workers could begin
        counts as claimed: what waits for its own batch keeps nobody else from the workers.
        """
        if self._draining:
            return Room(items=0)
        ahead = min(_MOST_AHEAD, int(self._rate.per_second() * _AHEAD))
        wanted = max(self._slots, ahead)
        startable = sum(running.startable for running in self._runs.batches)
        self._low_water = max(self._slots, wanted // 2) + self._feed.queued - startable
        return Room(
            items=wanted - startable,
            by_batch={
                running.batch.key: _room_of(running, most=wanted) for running in self._runs.batches
            },
            of_another=self._slots,
        )

    async def take(self, chunk_keys: Sequence[int]) -> list[asyncio.Event]:
        """Claims the chunks that are still open, and feeds them to the workers.

        Raises:
            StoreUnavailable: nothing was claimed, as far as is known.
        """
        async with self._claiming:
            was_unsure, self._claim_is_unsure = self._claim_is_unsure, True
            lease_end = self.leases.end()
            claimed = await self._store.chunks.claim(
                chunk_keys, owner=self._owner, now=self._clock.now(), lease=self._lease
            )
            reach("claim.committed")
            for former in self._runs.of(chunk.chunk_key for chunk in claimed.chunks):
                if former.is_recording and former.is_done:
                    self._runs.forget(former)  # the record that opened it is not answered yet
                else:  # this server was frozen for so long that somebody else opened it
                    self.committer.lose(former)
            runs = [
                self._runs.add(chunk, claimed.batches[chunk.batch_key]) for chunk in claimed.chunks
            ]
            self._claim_is_unsure = was_unsure
        for run in runs:
            run.lease_end = lease_end
            self._fail_poison(run)
            if run.is_done:
                self.committer.finish(run)
            else:
                self._feed.put(run)
            if not run.running.wanted:
                self._stop(run.running)
            elif away := self._providers.find(run.running.batch):
                self._pause(run.running, away)
        for batch in claimed.batches.values():
            self._wakeups.batch_changed(batch)
        return [run.finished for run in runs]

    def _fail_poison(self, run: ChunkRun) -> None:
        """Fails the item that was alone in hand when the process died, again.

        Where items have processes of their own, the death of one of those tells which it was, and
        the death of the server says nothing about the item that was in hand.
        """
        suspect = run.chunk.suspect_index
        if not run.isolated or suspect is None or self._executor.isolates:
            return
        for item in [item for item in run.queue if item.index == suspect]:
            log.error("item.poison", batch_id=run.running.batch.batch_id, item_id=item.item_id)
            run.queue.remove(item)
            outcome = poisoned(item, now=self._clock.micros())
            run.outcomes.append(outcome)
            run.running.attempts += 1
            run.running.tally.add(outcome)

    def _on_batch(self, batch: Batch) -> None:
        stopped = self._runs.hear(batch)
        for run in stopped:
            if run.is_done:
                self.committer.finish(run)
        if stopped:
            self._wakeups.room.set()  # for the work of others

    # Processing items

    async def work(self) -> None:
        """Processes items until the feed is closed; as many of these run as there are slots."""
        hand = self._hands.open()
        try:
            await self._work(hand)
        finally:
            self._hands.close(hand)

    async def _work(self, hand: Hand) -> None:
        while not (self._feed.closed or hand.given_up):
            if self._turns.is_over():
                await self._turns.next()
                continue
            taken = self._feed.take()
            if taken is None:
                self._wakeups.room.set()
                await self._feed.wait()
                continue
            if self._feed.queued < self._low_water:
                self._wakeups.room.set()  # the next claim is to be back before this one is done
            running = taken[0].running
            if running.queued < running.low_water:
                running.low_water = 0
                self._wakeups.work_arrived()  # its chunks were left out, and are not any more
            hand.held, hand.since = taken, self._clock.monotonic()
            await self._process(hand, *taken)
            hand.held = None
            if hand.worker is not None and hand.worker.cancelling():
                # By its processor; that the server stops is seen by the feed, too.
                await forget_cancellation(hand.worker)

    async def _process(self, hand: Hand, run: ChunkRun, item: PendingItem) -> None:
        """Makes one attempt, whose outcome counts unless the worker was given up meanwhile."""
        try:
            is_to_be_marked = run.isolated and not self._executor.isolates
            if is_to_be_marked and not await self._mark(run, item):
                outcome: Outcome | NotDone = NotDone()
            else:
                outcome = await self._executor.attempt(run.running, item, isolated=run.isolated)
        except BaseException:
            if not hand.given_up:
                self._feed.interrupt(run, item)
            raise
        if not hand.given_up:
            self._settle(run, outcome)

    async def _mark(self, run: ChunkRun, item: PendingItem) -> bool:
        """Says durably that the item is in hand, alone; false when that could not be said."""
        try:
            marked = await self._store.chunks.mark_suspect(
                run.chunk.chunk_key, epoch=run.chunk.epoch, item_index=item.index
            )
        except Unavailable:
            return False
        if not marked and not run.lost:
            self.committer.lose(run)
        return marked

    def _settle(self, run: ChunkRun, outcome: Outcome | NotDone) -> None:
        self._feed.give_back(run)
        self._rate.count()
        if run.lost:
            return
        if isinstance(outcome, NotDone):
            run.give_back(1)
            if outcome.pause is not None:
                self._provider_is_away(run.running, outcome.pause)
        else:
            running = run.running
            run.outcomes.append(outcome)
            running.progressed = True
            running.attempts += 1
            running.busy_micros += (outcome.end_micros or 0) - (outcome.start_micros or 0)
            if outcome.state is not ItemState.SUCCEEDED:
                self._tally(running, outcome)
            if running.probing and running.wanted:
                self._provider_is_back(running)
        if run.is_done:
            self.committer.finish(run)

    def _tally(self, running: RunningBatch, outcome: Outcome) -> None:
        """Starts nothing more when too many items failed; the next commit decides about that.

        Until then more would fail than what is in flight.
        """
        running.tally.add(outcome)
        if outcome.state is ItemState.FAILED and running.wanted and running.breaks_failure_policy:
            self._stop(running)

    def _provider_is_away(self, running: RunningBatch, pause: Pause) -> None:
        """Pauses the batch and all others that call the same provider."""
        if not running.wanted:
            return  # it was stopped before; what was in flight then says nothing new
        away = self._providers.report(running, pause)
        for sibling in list(running.siblings):
            if sibling.wanted:
                self._pause(sibling, away)

    def _pause(self, running: RunningBatch, away: Away) -> None:
        away.told.add(running.batch.key)
        self.committer.pause(running, away)
        self._stop(running)

    def _provider_is_back(self, running: RunningBatch) -> None:
        """Has the batches go on that waited for what one item would find."""
        self._providers.is_back(running.batch)
        for sibling in running.siblings:
            sibling.probing = False
        self._feed.wake(self._slots)
        self._wakeups.work_arrived()  # more of the batches can be claimed

    def _stop(self, running: RunningBatch) -> None:
        for stopped in self._runs.stop(running):
            if stopped.is_done:
                self.committer.finish(stopped)

    def give_up_overdue(self) -> list[asyncio.Task[None]]:
        """Decides about the attempts that did not end when they were cancelled.

        One that took too long has failed; one of a batch that was stopped does not count. Their
        workers are lost to whatever they wait for.

        Returns:
            The workers that are to be replaced.
        """
        given_up = self._hands.give_up_overdue()
        for hand in given_up:
            assert hand.held is not None  # noqa: S101  else it would not be overdue
            run, item = hand.held
            elapsed = timedelta(seconds=self._clock.monotonic() - hand.since)
            log.error(
                "item.given_up",
                batch_id=run.running.batch.batch_id,
                item_id=item.item_id,
                seconds=round(elapsed.total_seconds(), 3),
            )
            running = run.running
            is_stopped = running.batch.stop_in_flight or hand.cancelled in running.stopped
            self._settle(
                run,
                NotDone()
                if is_stopped
                else timed_out(item, now=self._clock.micros(), elapsed=elapsed),
            )
        return [hand.worker for hand in given_up if hand.worker is not None]

    def give_up_all(self) -> int:
        """Gives the items back of workers that did not end at a stop, and counts those."""
        given_up = self._hands.give_up_all()
        for hand in given_up:
            assert hand.held is not None  # noqa: S101  else there was nothing to give up
            self._feed.interrupt(*hand.held)
        return len(given_up)

    # Keeping and giving back

    async def extend_leases(self) -> None:
        """Extends the lease of every chunk in hand, and stops those that are lost or stopped."""
        await self._give_up_unknown()
        await self.leases.extend()

    async def _give_up_unknown(self) -> None:
        """Opens chunks that are ours and not in hand; nobody would work on them.

        The answer to their claim was lost, or that to a record.
        """
        losses = self.committer.losses
        is_sure = not self._claim_is_unsure and losses == self._looked_after_losses
        if is_sure or self._claiming.locked():
            return
        async with self._claiming:
            reopened = await self._store.chunks.reopen_unknown(
                self._runs.chunk_keys, owner=self._owner, now=self._clock.now()
            )
            self._claim_is_unsure, self._looked_after_losses = False, losses
        if reopened.chunk_count:
            log.warning("claim.unknown", chunks=reopened.chunk_count)
            self._wakeups.work_arrived()

    def stop_taking(self) -> None:
        """Claims nothing more and starts no further item; those in flight go on."""
        self._draining = True
        self._executor.stop()
        self._feed.close()
        self._wakeups.room.set()
        self._wakeups.work_arrived()  # so that the dispatcher looks, and sees that it is to stop

    async def release(self) -> None:
        """Records what is done and gives the rest back, with its attempts, for somebody else.

        Called when no worker runs any more.
        """
        await self.committer.release()
        await self.durations.run_once()


def _room_of(running: RunningBatch, *, most: int) -> int:
    """Returns how many more items of a batch to claim, at most as many as of all batches.

    One with a bound of its own is done with what it has in hand only in its own time; more of it
    would lie here while another server could have it.
    """
    bound = running.bound
    if not bound:
        running.low_water = 0
        return most
    enough = max(bound, min(most, int(bound * running.pace * _AHEAD)))
    room = enough - running.queued
    running.low_water = max(bound, enough // 2) if room <= 0 else 0
    return room


class _Turns:
    """Bounds how long all workers together keep the event loop to themselves.

    With a turn for each of them, a claim or a call would wait for as many turns as there are
    workers before it is looked at.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._end = 0.0
        self._is_asked_for = False

    def is_over(self) -> bool:
        return self._clock.monotonic() >= self._end

    async def next(self) -> None:
        """Lets everybody else run once; the first worker to ask has the next turn begun."""
        if not self._is_asked_for:
            self._is_asked_for = True
            asyncio.get_running_loop().call_soon(self._begin)
        await asyncio.sleep(0)

    def _begin(self) -> None:
        self._is_asked_for = False
        self._end = self._clock.monotonic() + _SLICE


class _Rate:
    """How many items a second are done, looked at over the last hundredths of a second.

    The time is short, so that a batch of fast items has to claim little by little only at its
    very beginning.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = clock.monotonic()
        self._count = 0
        self._last = 0.0

    def count(self) -> None:
        self._count += 1

    def per_second(self) -> float:
        elapsed = self._clock.monotonic() - self._since
        if elapsed >= _RATE_WINDOW:
            self._last = self._count / elapsed
            self._since, self._count = self._clock.monotonic(), 0
        return self._last
