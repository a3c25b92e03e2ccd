"""Batches that are over, deleted because somebody asks for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from batchwork_server.application.first_answers import FirstAnswers, Request
from batchwork_server.clock import Clock
from batchwork_server.domain.batch import BatchState
from batchwork_server.domain.caller import Caller
from batchwork_server.domain.filters import PurgeFilter
from batchwork_server.domain.submission import Idempotency
from batchwork_server.domain.transition import Effect, Verb, effect_of
from batchwork_server.errors import NotFound, StorageFull, WrongState
from batchwork_server.logs import get_logger
from batchwork_server.store.store import OverBatches, Store, Transaction

log = get_logger(__name__)

SAMPLE_SIZE = 10
"""How many of the ids of purged batches an answer lists."""

_BATCHES_AT_ONCE = 100

_NONE = OverBatches(batch_count=0, item_count=0, batch_ids=())

_Done = TypeVar("_Done")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Purge:
    """One call that deletes many."""

    older_than: timedelta
    states: tuple[BatchState, ...]
    request: Request


@dataclass(frozen=True, slots=True, kw_only=True)
class _Progress:
    """How far a purge has come.

    It is remembered with the request id in each of its transactions: a purge that broke off goes
    on when the same request comes again, and counts what it had deleted before.

    Attributes:
        ended_until: Of the first call; later ones purge the same batches.
        after: Only this call's business; it spares a look at what is not the tenant's.
    """

    ended_until: datetime
    deleted: OverBatches = _NONE
    is_done: bool = False
    after: tuple[datetime, int] | None = None


class Deletion:
    """The use cases that delete batches.

    What is deleted is gone when they return. Its rows are left for the working half.

    Args:
        rows_left: Called when there are rows to be removed.
    """

    def __init__(self, *, store: Store, clock: Clock, rows_left: Callable[[], None]) -> None:
        self._store = store
        self._answers = FirstAnswers(store.requests)
        self._clock = clock
        self._rows_left = rows_left

    async def delete_batch(
        self, batch_id: str, *, caller: Caller, idempotency: Idempotency
    ) -> None:
        """Deletes a batch that is over; the same request again changes nothing.

        Raises:
            NotFound: there is no such batch.
            WrongState: it is not over.
        """
        tenant_id = caller.tenant_id
        request = Request(method="DeleteBatch", tenant_id=tenant_id, idempotency=idempotency)
        if await self._in_reserve_if_full(partial(self._delete, batch_id, request)):
            log.info("batch.deleted", batch_id=batch_id, tenant_id=tenant_id)
            self._rows_left()

    async def purge_batches(
        self,
        *,
        older_than: timedelta,
        states: tuple[BatchState, ...],
        force: bool,
        caller: Caller,
        idempotency: Idempotency,
    ) -> OverBatches:
        """Deletes the caller's batches that were over so long ago, and returns what they were.

        It takes a hundred in a transaction. What it had deleted stays deleted when it breaks off;
        the same request again goes on, and answers as if it had not. Without ``force`` nothing is
        changed or remembered.
        """
        purge = _Purge(
            older_than=older_than,
            states=states,
            request=Request(
                method="PurgeBatches", tenant_id=caller.tenant_id, idempotency=idempotency
            ),
        )
        progress = _Progress(ended_until=self._clock.now() - older_than)
        if not force:
            return await self._store.retention.count_over(
                _matching(purge, progress), sample_size=SAMPLE_SIZE
            )
        while not progress.is_done:
            progress = await self._in_reserve_if_full(partial(self._purge_page, purge, progress))
            self._rows_left()
        log.info(
            "batches.purged",
            tenant_id=caller.tenant_id,
            batches=progress.deleted.batch_count,
            items=progress.deleted.item_count,
        )
        return progress.deleted

    async def _in_reserve_if_full(self, work: Callable[[], Awaitable[_Done]]) -> _Done:
        """Does one transaction; on a full disk in the space that is kept for this."""
        try:
            return await work()
        except StorageFull:
            async with self._store.ballast_dropped():
                return await work()

    async def _delete(self, batch_id: str, request: Request) -> bool:
        """Returns false when the same request has deleted it before."""
        async with self._store.transaction() as tx:
            # Nothing is to be remembered: that there is an answer says all.
            if await self._answers.replay(tx, request, now=self._clock.now()) is not None:
                return False
            batch = await self._store.changes.lock(tx, batch_id, tenant_id=request.tenant_id)
            if batch is None:
                raise NotFound("batch", batch_id)
            if effect_of(Verb.DELETE, batch.state) is Effect.REFUSED:
                raise WrongState("batch", batch_id, state=batch.state, verb=Verb.DELETE)
            return await self._store.retention.delete(tx, batch.key)

    async def _purge_page(self, purge: _Purge, progress: _Progress) -> _Progress:
        async with self._store.transaction() as tx:
            await self._store.retention.lock_purges(tx, tenant_id=purge.request.tenant_id)
            known = await self._answers.replay(tx, purge.request, now=self._clock.now())
            if known is not None:
                progress = _progress_from(known, after=progress.after)
            if progress.is_done:
                return progress
            progress = await self._deleted_more(tx, purge, progress)
            await self._answers.remember(tx, purge.request, _progress_to(progress))
        return progress

    async def _deleted_more(self, tx: Transaction, purge: _Purge, progress: _Progress) -> _Progress:
        page = await self._store.retention.delete_some(
            tx, _matching(purge, progress), limit=_BATCHES_AT_ONCE, after=progress.after
        )
        if not page:
            return replace(progress, is_done=True)
        before = progress.deleted
        batch_ids = (*before.batch_ids, *(batch.batch_id for batch in page))
        deleted = OverBatches(
            batch_count=before.batch_count + len(page),
            item_count=before.item_count + sum(batch.item_count for batch in page),
            batch_ids=batch_ids[:SAMPLE_SIZE],
        )
        return replace(progress, deleted=deleted, after=page[-1].place)


def _matching(purge: _Purge, progress: _Progress) -> PurgeFilter:
    return PurgeFilter(
        tenant_id=purge.request.tenant_id, ended_until=progress.ended_until, states=purge.states
    )


def _progress_to(progress: _Progress) -> Mapping[str, Any]:
    return {
        "ended_until": progress.ended_until.isoformat(),
        "batch_count": progress.deleted.batch_count,
        "item_count": progress.deleted.item_count,
        "batch_ids": progress.deleted.batch_ids,
        "is_done": progress.is_done,
    }


def _progress_from(answer: Mapping[str, Any], *, after: tuple[datetime, int] | None) -> _Progress:
    return _Progress(
        ended_until=datetime.fromisoformat(answer["ended_until"]),
        deleted=OverBatches(
            batch_count=answer["batch_count"],
            item_count=answer["item_count"],
            batch_ids=tuple(answer["batch_ids"]),
        ),
        is_done=answer["is_done"],
        after=after,
    )
