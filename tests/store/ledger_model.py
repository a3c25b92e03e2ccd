"""What must become of batches, in plain Python: the state machine beside which the store runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from batchwork_server.domain.batch import BatchOptions, BatchState, Counts, StateReason, final_state
from batchwork_server.domain.failure import FailureAction
from batchwork_server.domain.item import ItemState, Outcome
from batchwork_server.domain.transition import Effect, Verb, effect_of

_CHUNK_STATES = {
    BatchState.DRAFT: "HELD",
    BatchState.PAUSED: "HELD",
    BatchState.CANCELLING: "CLOSING",
    BatchState.PENDING: "OPEN",
    BatchState.RUNNING: "OPEN",
}


@dataclass(slots=True, eq=False)
class ModelItem:
    """An item.

    Attributes:
        state: PENDING, or final.
        due: When its retry may start.
    """

    state: ItemState = ItemState.PENDING
    attempts: int = 0
    is_stored: bool = False
    due: datetime | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class ModelClaim:
    """A claim, whether its worker still has the chunk or not.

    Attributes:
        left: Items that were taken and not accounted for.
        gave_back: Items of it were given back.
    """

    chunk: ModelChunk
    epoch: int
    owner: str
    lease_is_over: bool
    left: set[int]
    gave_back: bool = False

    @property
    def is_live(self) -> bool:
        return self.chunk.holder is self


@dataclass(slots=True, eq=False, kw_only=True)
class ModelChunk:
    """A chunk; who holds it, or that nothing is left of it."""

    key: int
    batch: ModelBatch
    first: int
    count: int
    due: datetime
    holder: ModelClaim | None = None
    is_done: bool = False
    crashes: int = 0
    suspect: int | None = None

    @property
    def state(self) -> str:
        if self.is_done:
            return "DONE"
        return "CLAIMED" if self.holder else _CHUNK_STATES[self.batch.state]

    @property
    def indexes(self) -> range:
        return range(self.first, self.first + self.count)

    @property
    def open_indexes(self) -> list[int]:
        items = self.batch.items
        return [n for n in self.indexes if items[n].state is ItemState.PENDING]

    @property
    def waits_until(self) -> datetime | None:
        """When the first of its retries is due."""
        due = (self.batch.items[n].due for n in self.open_indexes)
        return min((time for time in due if time is not None), default=None)


@dataclass(slots=True, eq=False, kw_only=True)
class ModelBatch:
    """A batch, and what each verb makes of it. A verb tells whether it applied."""

    key: int
    state: BatchState
    options: BatchOptions
    items: list[ModelItem]
    chunks: list[ModelChunk] = field(default_factory=list)
    closing: BatchState | None = None
    reason: str = ""
    stop_in_flight: bool = False
    resume_time: datetime | None = None
    expire_time: datetime | None = None
    has_started: bool = False
    failed_before: int = 0
    tried_before: int = 0

    @property
    def counts(self) -> Counts:
        states = [item.state for item in self.items]
        running = sum(len(chunk.holder.left) for chunk in self.chunks if chunk.holder)
        return Counts(
            total=len(states),
            pending=states.count(ItemState.PENDING) - running,
            running=running,
            succeeded=states.count(ItemState.SUCCEEDED),
            failed=states.count(ItemState.FAILED),
            skipped=states.count(ItemState.SKIPPED),
            cancelled=states.count(ItemState.CANCELLED),
            expired=states.count(ItemState.EXPIRED),
        )

    # What workers do

    def claim(self, claim: ModelClaim) -> None:
        claim.chunk.holder = claim
        self.has_started = True
        if self.state is BatchState.PENDING:
            self.state = BatchState.RUNNING

    def record(self, claim: ModelClaim, outcomes: Iterable[Outcome], *, returned: int) -> None:
        """Takes what a worker that holds the chunk has to say of items."""
        for outcome in outcomes:
            claim.left.discard(outcome.index)
            item = self.items[outcome.index]
            item.state, item.attempts = outcome.state, outcome.attempts
            item.due, item.is_stored = outcome.next_attempt_time, True
        for index in sorted(claim.left)[:returned]:
            claim.left.discard(index)
            claim.gave_back = True

    def let_go(self, chunk: ModelChunk, *, due: datetime | None) -> None:
        """Takes the chunk back: nothing is left of it, or the rest of it is due at ``due``."""
        chunk.holder, chunk.crashes, chunk.suspect = None, 0, None
        chunk.is_done = due is None
        chunk.due = due or chunk.due

    def crash(self, chunk: ModelChunk) -> None:
        """Takes the chunk back from a worker that said nothing."""
        chunk.holder = None
        chunk.crashes += 1

    def settle(self, *, closed_chunks: int, tried: int) -> None:
        """Ends the batch, or does what its failure policy says.

        Args:
            tried: Items that failed or succeeded with it.
        """
        if closed_chunks and all(chunk.is_done for chunk in self.chunks):
            self.end()
        elif tried and self.state is BatchState.RUNNING and self._breaks_failure_policy():
            self._stop_failing()

    def _breaks_failure_policy(self) -> bool:
        policy, counts = self.options.failure_policy, self.counts
        return policy is not None and policy.is_broken(
            failed=counts.failed - self.failed_before,
            tried=counts.failed + counts.succeeded - self.tried_before,
        )

    def _stop_failing(self) -> None:
        assert self.options.failure_policy is not None
        match self.options.failure_policy.action:
            case FailureAction.PAUSE:
                self.pause(StateReason.FAILURE_POLICY, resume_time=None)
            case FailureAction.FAIL:
                self.close(BatchState.FAILED, StateReason.FAILURE_POLICY)
            case FailureAction.CONTINUE:
                self.reason = self.reason or StateReason.FAILURE_POLICY

    def end(self, state: BatchState | None = None) -> None:
        state = state or final_state(self.counts, closing=self.closing)
        if state is not self.closing:
            policy, broken = self.options.failure_policy, self._breaks_failure_policy()
            told = broken and policy is not None and policy.action is not FailureAction.PAUSE
            self.reason = StateReason.FAILURE_POLICY if told else ""
            if told and policy is not None and policy.action is FailureAction.FAIL:
                state = BatchState.FAILED
        self.state, self.closing, self.has_started = state, None, True  # its end is its start, then
        self.resume_time = self.expire_time = None

    # What callers do

    def seal(self, *, now: datetime) -> bool:
        if not self._allows(Verb.SEAL):
            return False
        timeout = self.options.batch_timeout
        self.state = BatchState.PENDING
        self.expire_time = None if timeout is None else now + timeout
        for chunk in self.chunks:
            chunk.due = now
        if not self.chunks:
            self.end()
        return True

    def pause(self, reason: str, *, resume_time: datetime | None) -> bool:
        if not self._allows(Verb.PAUSE):
            return False
        self.state, self.reason, self.resume_time = BatchState.PAUSED, reason, resume_time
        return True

    def stay_paused(self, reason: str) -> bool:
        if self.state is not BatchState.PAUSED or self.resume_time is None:
            return False
        self.reason, self.resume_time = reason, None
        return True

    def resume(self) -> bool:
        if not self._allows(Verb.RESUME):
            return False
        if self.reason == StateReason.FAILURE_POLICY:
            self.forgive()
        self.state = BatchState.RUNNING if self.has_started else BatchState.PENDING
        self.reason, self.resume_time = "", None
        return True

    def forgive(self) -> None:
        """Counts failures anew from here."""
        counts = self.counts
        self.failed_before = counts.failed
        self.tried_before = counts.failed + counts.succeeded

    def close(self, closing: BatchState, reason: str, *, stop_in_flight: bool = False) -> bool:
        if not self._allows(Verb.EXPIRE if closing is BatchState.EXPIRED else Verb.CANCEL):
            return False
        self.state, self.closing, self.reason = BatchState.CANCELLING, closing, reason
        self.stop_in_flight = stop_in_flight
        self.resume_time = self.expire_time = None
        if all(chunk.is_done for chunk in self.chunks):
            self.end(closing)
        return True

    def stop_attempts(self) -> bool:
        if self.state is not BatchState.CANCELLING or self.stop_in_flight:
            return False
        self.stop_in_flight = True
        return True

    def close_chunk(self, chunk: ModelChunk) -> None:
        """Decides the open items of a chunk without an attempt."""
        expired = self.closing is BatchState.EXPIRED
        for index in chunk.open_indexes:
            item = self.items[index]
            item.state = ItemState.EXPIRED if expired else ItemState.CANCELLED
            item.due, item.is_stored = None, True
        chunk.is_done = True

    def reopen(self, indexes: Collection[int], *, now: datetime) -> bool:
        if not self._allows(Verb.RETRY) or not indexes:
            return False
        for index in indexes:
            self.items[index].state = ItemState.PENDING
        for chunk in self.chunks:
            if not set(indexes).isdisjoint(chunk.indexes):
                chunk.is_done, chunk.crashes, chunk.suspect = False, 0, None
                chunk.due = now
        self.forgive()
        timeout = self.options.batch_timeout
        self.state, self.reason, self.stop_in_flight = BatchState.PENDING, "", False
        self.expire_time = None if timeout is None else now + timeout
        return True

    def _allows(self, verb: Verb) -> bool:
        return effect_of(verb, self.state) is Effect.APPLIES


def lease_of(*, is_over: bool) -> timedelta:
    """Returns a lease that was over when it was given, or one that no test outlives."""
    return timedelta(seconds=-1) if is_over else timedelta(days=365)
