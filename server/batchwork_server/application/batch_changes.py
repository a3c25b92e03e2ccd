"""Changes of the state of batches: paused, resumed, cancelled, tried again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from batchwork_server.application.first_answers import FirstAnswers, Request
from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Batch, BatchState, StateReason
from batchwork_server.domain.caller import Caller
from batchwork_server.domain.filters import RetryFilter
from batchwork_server.domain.submission import Idempotency
from batchwork_server.domain.transition import Effect, Verb, effect_of
from batchwork_server.errors import NotFound, NothingMatches, WrongState
from batchwork_server.failpoints import reach
from batchwork_server.logs import get_logger
from batchwork_server.ports import Dispatcher
from batchwork_server.store.store import Store, Transaction
from batchwork_server.wakeups import Wakeups

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request(Request):
    """One call: which verb, for which batch."""

    verb: Verb
    batch_id: str


class _Replayed(Exception):
    """The same request was answered before.

    Carries the batch as it is now, and what was remembered of the answer.
    """

    def __init__(self, batch: Batch, answer: Mapping[str, Any]) -> None:
        super().__init__()
        self.batch = batch
        self.answer = answer


_Apply = Callable[[Transaction, Batch, datetime], Awaitable[Batch | None]]


class BatchChanges:
    """The use cases that change where a batch stands, one transaction each.

    All are idempotent: what is asked for and is so already changes nothing, and a request id that
    comes again changes nothing either, whatever happened to the batch meanwhile.
    """

    def __init__(
        self, *, store: Store, dispatcher: Dispatcher, clock: Clock, wakeups: Wakeups
    ) -> None:
        self._store = store
        self._answers = FirstAnswers(store.requests)
        self._dispatcher = dispatcher
        self._clock = clock
        self._wakeups = wakeups

    async def pause_batch(
        self, batch_id: str, *, caller: Caller, idempotency: Idempotency, message: str = ""
    ) -> Batch:
        """Pauses a batch: when this returns, no further item of it starts in this process.

        Raises:
            NotFound: there is no such batch.
            WrongState: it is over, being cancelled, or a draft.
        """
        reason = StateReason.PAUSED_BY_CALLER

        async def apply(tx: Transaction, batch: Batch, now: datetime) -> Batch | None:
            changes = self._store.changes
            if batch.state is BatchState.PAUSED:
                return await changes.stay_paused(
                    tx, batch.key, reason=reason, message=message, now=now
                )
            return await changes.pause(
                tx, batch.key, reason=reason, message=message, resume_time=None, now=now
            )

        request = _Request(
            method="PauseBatch",
            verb=Verb.PAUSE,
            batch_id=batch_id,
            tenant_id=caller.tenant_id,
            idempotency=idempotency,
        )
        batch = await self._change(request, apply)
        reach("pause.committed")
        return batch

    async def resume_batch(
        self, batch_id: str, *, caller: Caller, idempotency: Idempotency
    ) -> Batch:
        """Goes on with a paused batch.

        Raises:
            NotFound: there is no such batch.
            WrongState: it is over, being cancelled, or a draft.
        """

        async def apply(tx: Transaction, batch: Batch, now: datetime) -> Batch | None:
            return await self._store.changes.resume(tx, batch.key, now=now)

        request = _Request(
            method="ResumeBatch",
            verb=Verb.RESUME,
            batch_id=batch_id,
            tenant_id=caller.tenant_id,
            idempotency=idempotency,
        )
        batch = await self._change(request, apply)
        reach("resume.committed")
        return batch

    async def cancel_batch(
        self,
        batch_id: str,
        *,
        caller: Caller,
        idempotency: Idempotency,
        stop_in_flight: bool = False,
        message: str = "",
    ) -> Batch:
        """Cancels a batch: when this returns, no further item of it starts in this process.

        Args:
            stop_in_flight: Ends the attempts that are going on; else they finish and count.

        Raises:
            NotFound: there is no such batch.
            WrongState: it is over, and not by a cancellation.
        """

        async def apply(tx: Transaction, batch: Batch, now: datetime) -> Batch | None:
            changes = self._store.changes
            if batch.state is BatchState.CANCELLING and stop_in_flight:
                return await changes.stop_in_flight(tx, batch.key, now=now)
            return await changes.close(
                tx,
                batch.key,
                closing=BatchState.CANCELLED,
                reason=StateReason.CANCELLED_BY_CALLER,
                message=message,
                stop_in_flight=stop_in_flight,
                now=now,
            )

        request = _Request(
            method="CancelBatch",
            verb=Verb.CANCEL,
            batch_id=batch_id,
            tenant_id=caller.tenant_id,
            idempotency=idempotency,
        )
        batch = await self._change(request, apply)
        reach("cancel.committed")
        return batch

    async def retry_batch(
        self, batch_id: str, matching: RetryFilter, *, caller: Caller, idempotency: Idempotency
    ) -> tuple[Batch, int]:
        """Runs items of a batch that is over once more, as a new attempt at the same batch.

        Returns:
            The batch, and how many items are tried again.

        Raises:
            NotFound: there is no such batch.
            WrongState: it is not over, or all of it succeeded.
            NothingMatches: no item matches.
        """
        count = 0

        async def apply(tx: Transaction, batch: Batch, now: datetime) -> Batch | None:
            nonlocal count
            reopened, count = await self._store.changes.reopen(tx, batch, matching, now=now)
            if reopened is not None and not count:
                raise NothingMatches("batch", batch_id)
            if reopened is not None and batch.request.options.notification_targets:
                await self._store.notifications.reopen(tx, batch, reopened, now=now)
            return reopened

        request = _Request(
            method="RetryBatch",
            verb=Verb.RETRY,
            batch_id=batch_id,
            tenant_id=caller.tenant_id,
            idempotency=idempotency,
        )
        try:
            batch = await self._apply(request, apply, facts=lambda: {"retried_count": count})
        except _Replayed as replayed:
            return replayed.batch, int(replayed.answer["retried_count"])
        reach("retry.committed")
        return batch, count

    async def _change(self, request: _Request, apply: _Apply) -> Batch:
        try:
            return await self._apply(request, apply)
        except _Replayed as replayed:
            return replayed.batch

    async def _apply(
        self,
        request: _Request,
        apply: _Apply,
        *,
        facts: Callable[[], Mapping[str, Any]] | None = None,
    ) -> Batch:
        """Does what the verb says in one transaction, and tells those who wait for it.

        Args:
            facts: What is to be remembered of the answer besides the batch.
        """
        now = self._clock.now()
        async with self._store.transaction() as tx:
            answer = await self._answers.replay(tx, request, now=now)
            batch = await self._locked(tx, request)
            if answer is not None:
                raise _Replayed(batch, answer)
            if effect_of(request.verb, batch.state) is Effect.REFUSED:
                raise WrongState("batch", batch.batch_id, state=batch.state, verb=request.verb)
            changed = await apply(tx, batch, now)
            remembered = {"batch_id": request.batch_id, **(facts() if facts else {})}
            await self._answers.remember(tx, request, remembered)
            if changed is not None:
                tx.after_commit.append(partial(self._tell, request.verb, changed))
        return changed or batch

    def _tell(self, verb: Verb, changed: Batch) -> None:
        self._wakeups.batch_changed(changed)
        self._dispatcher.enqueued()
        log.info(
            f"batch.{verb}",
            batch_id=changed.batch_id,
            tenant_id=changed.tenant_id,
            state=changed.state,
        )

    async def _locked(self, tx: Transaction, request: _Request) -> Batch:
        batch = await self._store.changes.lock(tx, request.batch_id, tenant_id=request.tenant_id)
        if batch is None:
            raise NotFound("batch", request.batch_id)
        return batch
