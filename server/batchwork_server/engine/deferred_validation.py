"""Begins batches that were accepted while the source of their users was away."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import ClassVar

from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Batch, UserValidation
from batchwork_server.domain.user import UserVerdict
from batchwork_server.errors import SourceUnavailable
from batchwork_server.logs import get_logger
from batchwork_server.ports import UserRepository
from batchwork_server.store.store import Store
from batchwork_server.wakeups import Wakeups

log = get_logger(__name__)

_BATCHES_AT_ONCE = 100
_USERS_AT_ONCE = 10_000


class DeferredValidation:
    """Validates the users of batches that wait for it, each batch as a whole.

    What is found is stored in one transaction, which does nothing to a batch that was resumed,
    cancelled or begun meanwhile; two of these do no harm.
    """

    INTERVAL: ClassVar = timedelta(seconds=5)

    def __init__(
        self, *, store: Store, users: UserRepository, clock: Clock, wakeups: Wakeups
    ) -> None:
        self._store = store
        self._users = users
        self._clock = clock
        self._wakeups = wakeups

    async def run_once(self) -> None:
        """Begins every batch that waits; none while the source is away."""
        after = 0
        while batches := await self._store.deferrals.waiting(after=after, limit=_BATCHES_AT_ONCE):
            for batch in batches:
                try:
                    await self._begin(batch)
                except SourceUnavailable:  # who asks it has told
                    return
            after = batches[-1].key

    async def _begin(self, batch: Batch) -> None:
        found, skips = await self._validated(batch)
        now = self._clock.now()
        async with self._store.transaction() as tx:
            begun = await self._store.deferrals.begin(
                tx, batch, found=_known_of(batch) + found, skips=skips, now=now
            )
        if begun is None:
            return
        log.info(
            "batch.validated",
            batch_id=begun.batch_id,
            tenant_id=begun.tenant_id,
            valid=found.valid,
            invalid=found.invalid,
        )
        self._wakeups.batch_changed(begun)
        self._wakeups.work_arrived()

    async def _validated(self, batch: Batch) -> tuple[UserValidation, dict[int, str]]:
        """Returns what is known of the users, and why which items are to be skipped."""
        counts: Counter[UserVerdict] = Counter()
        skips: dict[int, str] = {}
        after = -1
        while page := await self._store.deferrals.unvalidated(
            batch, after=after, limit=_USERS_AT_ONCE
        ):
            users = [user_id for _, user_id in page]
            verdicts = await self._users.verdicts(users, tenant_id=batch.tenant_id)
            counts.update(verdicts[user_id] for user_id in users)
            skips |= {
                index: f"USER_{verdicts[user_id]}"
                for index, user_id in page
                if not verdicts[user_id].is_served
            }
            after = page[-1][0]
        return UserValidation.of(counts.elements()), skips


def _known_of(batch: Batch) -> UserValidation:
    """Returns what was known of the users when the batch was made."""
    known = batch.request.user_validation
    return replace(known, total=known.total - known.unknown, unknown=0)
