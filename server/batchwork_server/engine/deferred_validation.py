"""Begins batches that were accepted while the source of their users was away."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import ClassVar

from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Batch, BatchRequest, UserValidation
from batchwork_server.domain.user import UserVerdict
from batchwork_server.errors import SourceUnavailable
from batchwork_server.logs import get_logger
from batchwork_server.ports import Meter, UserRepository
from batchwork_server.store.store import Store
from batchwork_server.wakeups import Wakeups

log = get_logger(__name__)

_BATCHES_AT_ONCE = 100
_USERS_AT_ONCE = 10_000

_MOST_FAILURES = 3
"""For so many batches a round asks in vain: one may only ask for too much at once, or the source is
away, and then each question takes its time."""

_SAMPLE_SIZE = 5
"""So many invalid ids are named in a line of log."""


@dataclass(slots=True)
class _Found:
    """What was found of those whom a batch names.

    Attributes:
        users: The verdict on the user of each item.
        asked: The verdict on everybody, once for each question.
        skips: Why which items are to be skipped, by their places.
        problems: Why nothing can be delivered to which recipients.
        sample: Some of the users of items who are not valid.
    """

    users: Counter[UserVerdict] = field(default_factory=Counter)
    asked: Counter[UserVerdict] = field(default_factory=Counter)
    skips: dict[int, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    sample: dict[str, None] = field(default_factory=dict)


class DeferredValidation:
    """Validates the users and the recipients of batches that wait for it, each batch as a whole.

    What is found is stored in one transaction, which does nothing to a batch that was resumed,
    cancelled or begun meanwhile; two of these do no harm.
    """

    INTERVAL: ClassVar = timedelta(seconds=5)

    def __init__(
        self,
        *,
        store: Store,
        users: UserRepository,
        clock: Clock,
        wakeups: Wakeups,
        meter: Meter | None = None,
    ) -> None:
        self._store = store
        self._users = users
        self._clock = clock
        self._wakeups = wakeups
        self._meter = meter
        self._after = 0

    async def run_once(self) -> None:
        """Begins every batch that waits, but gives up while the source is away.

        It begins behind the batch where it stopped, so that all of them have their turn.
        """
        failures = 0
        async for batch in self._waiting(self._after):
            self._after = batch.key
            try:
                await self._begin(batch)
            except SourceUnavailable:  # who asks it has told
                failures += 1
                if failures == _MOST_FAILURES:
                    return

    async def _waiting(self, start: int) -> AsyncIterator[Batch]:
        """Yields those behind ``start``, then those up to it."""
        for first, last in ((start, None), (0, start)):
            after = first
            while page := await self._store.deferrals.waiting(after=after, limit=_BATCHES_AT_ONCE):
                for batch in page:
                    if last is not None and batch.key > last:
                        return
                    yield batch
                after = page[-1].key

    async def _begin(self, batch: Batch) -> None:
        found = _Found()
        if batch.request.user_validation.unknown:
            await self._validate_users(batch, found)
        if batch.request.distribution.named:
            await self._validate_recipients(batch, found)
        now = self._clock.now()
        async with self._store.transaction() as tx:
            begun = await self._store.deferrals.begin(
                tx,
                batch,
                request=_known(batch.request, found),
                skips=found.skips,
                problems=found.problems,
                now=now,
            )
        if begun is None:
            return
        self._tell(begun, found)
        self._wakeups.batch_changed(begun)
        self._wakeups.work_arrived()

    async def _validate_users(self, batch: Batch, found: _Found) -> None:
        after = -1
        while page := await self._store.deferrals.unvalidated(
            batch, after=after, limit=_USERS_AT_ONCE
        ):
            users = [user_id for _, user_id in page]
            verdicts = await self._users.verdicts(users, tenant_id=batch.tenant_id)
            found.users.update(verdicts[user_id] for user_id in users)
            found.asked.update(verdicts[user_id] for user_id in set(users))
            for index, user_id in page:
                if not verdicts[user_id].is_served:
                    found.skips[index] = f"USER_{verdicts[user_id]}"
                    if len(found.sample) < _SAMPLE_SIZE:
                        found.sample[user_id] = None
            after = page[-1][0]

    async def _validate_recipients(self, batch: Batch, found: _Found) -> None:
        after = ""
        while users := await self._store.deferrals.recipients(
            batch, after=after, limit=_USERS_AT_ONCE
        ):
            verdicts = await self._users.verdicts(users, tenant_id=batch.tenant_id)
            found.asked.update(verdicts[user_id] for user_id in users)
            found.problems |= {
                user_id: f"USER_{verdicts[user_id]}"
                for user_id in users
                if not verdicts[user_id].is_served
            }
            after = users[-1]

    def _tell(self, begun: Batch, found: _Found) -> None:
        """Tells as of a batch whose users were validated when it was made."""
        if self._meter is not None:
            self._meter.users_validated(found.asked)
        references = begun.request.reference_validation
        tell = log.warning if found.skips else log.info
        tell(
            "batch.validated",
            batch_id=begun.batch_id,
            tenant_id=begun.tenant_id,
            invalid_users=begun.request.user_validation.invalid,
            invalid_references=references.user_references.invalid,
            invalid_categories=references.categories.invalid,
            sample=list(found.sample),
        )


def _known(request: BatchRequest, found: _Found) -> BatchRequest:
    """Returns a request with what is known now; what was known when it was made stays."""
    users = UserValidation.of(found.users.elements())
    known, references = request.user_validation, request.reference_validation
    to, things = request.distribution, references.things
    if things.total:
        things = replace(
            things,
            valid=things.valid + users.valid,
            invalid=things.invalid + users.invalid,
            unknown=things.unknown - users.total,
        )
    return replace(
        request,
        user_validation=replace(
            known,
            valid=known.valid + users.valid,
            invalid=known.invalid + users.invalid,
            unknown=known.unknown - users.total,
        ),
        reference_validation=replace(references, things=things),
        distribution=replace(to, invalid=to.invalid + len(found.problems)),
    )
