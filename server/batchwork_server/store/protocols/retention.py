"""The end of batches and of events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from batchwork_server.domain.filters import PurgeFilter
from batchwork_server.store.protocols.transaction import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class OverBatches:
    """Batches that are over and that a purge would delete, counted.

    Attributes:
        batch_ids: Of the oldest of them.
    """

    batch_count: int
    item_count: int
    batch_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedBatch:
    """A batch that was deleted just now.

    Attributes:
        place: Where it stood among the batches that are over, oldest first.
    """

    batch_id: str
    item_count: int
    place: tuple[datetime, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedRows:
    """What one call of ``remove_some`` removed.

    Attributes:
        batch_count: Batches of which nothing is left.
    """

    row_count: int
    batch_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgottenEvents:
    """What one call of ``forget_events`` removed.

    Attributes:
        reached: Nothing is left to be forgotten of batches that ended before it.
    """

    row_count: int
    reached: datetime


class RetentionStore(Protocol):
    """The end of what is kept.

    A batch that is deleted is marked so in one statement; from then on no other method of the
    store returns it, and its id is free. Its rows are removed little by little after that, so a
    crash in between costs nothing: whoever comes next goes on.

    Events are forgotten batch by batch, never by their positions, and only of batches that are
    over: of one batch the oldest first, and the newest one stays as long as the batch. So each
    batch has its last ``STATE_CHANGED``, and whoever asks for what is missing before it sees that
    from the gap in the sequence. Of a batch that was deleted nothing is left, not even that.
    """

    async def delete(self, tx: Transaction, batch_key: int) -> bool:
        """Deletes a batch that is over; false when it is not, or is deleted already."""
        ...

    async def lock_purges(self, tx: Transaction, *, tenant_id: str) -> None:
        """Keeps everybody else from purging for the tenant until the transaction ends."""
        ...

    async def delete_some(
        self,
        tx: Transaction,
        matching: PurgeFilter,
        *,
        limit: int,
        after: tuple[datetime, int] | None = None,
    ) -> Sequence[DeletedBatch]:
        """Deletes the oldest of the batches that match, behind a place; none when none is left."""
        ...

    async def count_over(self, matching: PurgeFilter, *, sample_size: int) -> OverBatches:
        """Counts the batches that match, and deletes nothing."""
        ...

    async def remove_some(self, *, limit: int) -> RemovedRows:
        """Removes about ``limit`` rows of deleted batches in one transaction.

        Two at a time take different batches.

        Returns:
            Zeros when nothing is left.
        """
        ...

    async def forget_events(
        self, *, ended_from: datetime | None, ended_until: datetime, limit: int
    ) -> ForgottenEvents:
        """Removes about ``limit`` events of batches that ended in between, in one transaction.

        The newest event of each batch stays.

        Args:
            ended_from: What a call before has ``reached``.

        Returns:
            With ``ended_until`` reached when nothing is left.
        """
        ...
