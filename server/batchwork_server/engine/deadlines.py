"""Batches that resume by themselves, and batches whose time is over."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import ClassVar

from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Batch, BatchState, StateReason
from batchwork_server.logs import get_logger
from batchwork_server.store.store import Store, Transaction
from batchwork_server.wakeups import Wakeups

log = get_logger(__name__)

_MOST_AT_ONCE = 100


class Deadlines:
    """Does what is due for batches at an instant of their own. Two of these do no harm."""

    INTERVAL: ClassVar = timedelta(seconds=1)

    def __init__(self, *, store: Store, clock: Clock, wakeups: Wakeups) -> None:
        self._store = store
        self._clock = clock
        self._wakeups = wakeups

    async def run_once(self) -> None:
        now = self._clock.now()
        due = await self._store.changes.due(now=now, limit=_MOST_AT_ONCE)
        for batch in due:
            async with self._store.transaction() as tx:
                changed = await self._change(tx, batch, now=now)
            if changed is not None:
                goes_on = changed.state in (BatchState.PENDING, BatchState.RUNNING)
                log.info(
                    "batch.resumed" if goes_on else "batch.expiring",
                    batch_id=batch.batch_id,
                    tenant_id=batch.tenant_id,
                )
                self._wakeups.batch_changed(changed)
        if due:
            self._wakeups.work_arrived()

    async def _change(self, tx: Transaction, batch: Batch, *, now: datetime) -> Batch | None:
        if batch.expire_time is None or batch.expire_time > now:
            return await self._store.changes.resume(tx, batch.key, now=now, only_if_due=True)
        is_draft = batch.state is BatchState.DRAFT
        return await self._store.changes.close(
            tx,
            batch.key,
            closing=BatchState.EXPIRED,
            reason=StateReason.DRAFT_TIMEOUT if is_draft else StateReason.BATCH_TIMEOUT,
            message="",
            stop_in_flight=False,
            now=now,
            only_if_due=True,
        )
