"""Changes of the state of batches."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from batchwork_server.domain.batch import Batch, BatchState, StateReason
from batchwork_server.domain.filters import RetryFilter
from batchwork_server.store.protocols.transaction import Transaction


class ChangeStore(Protocol):
    """Changes of the state of batches. Each is one conditional statement.

    Those that return a batch return none when its state did not allow the change.
    """

    async def lock(self, tx: Transaction, batch_id: str, *, tenant_id: str) -> Batch | None:
        """Returns a batch, whose state nobody else changes until the transaction ends."""
        ...

    async def open_runs(self, tx: Transaction, job_id: str, *, tenant_id: str) -> Sequence[Batch]:
        """Returns the runs of a job that go on, the oldest first."""
        ...

    async def pause(
        self,
        tx: Transaction,
        batch_key: int,
        *,
        reason: StateReason,
        message: str,
        resume_time: datetime | None,
        now: datetime,
    ) -> Batch | None:
        """Keeps the batch's chunks from being claimed, until ``resume_time`` or a resume."""
        ...

    async def stay_paused(
        self,
        tx: Transaction,
        batch_key: int,
        *,
        reason: StateReason,
        message: str,
        now: datetime,
    ) -> Batch | None:
        """Keeps a batch paused that would have resumed by itself."""
        ...

    async def resume(
        self, tx: Transaction, batch_key: int, *, now: datetime, only_if_due: bool = False
    ) -> Batch | None:
        """Goes on with a paused batch.

        Args:
            only_if_due: Only when its ``resume_time`` has come.
        """
        ...

    async def close(
        self,
        tx: Transaction,
        batch_key: int,
        *,
        closing: BatchState,
        reason: StateReason,
        message: str,
        stop_in_flight: bool,
        now: datetime,
        only_if_due: bool = False,
    ) -> Batch | None:
        """Puts a batch into CANCELLING, on its way to ``closing``.

        One that has nothing open is over at once.

        Args:
            only_if_due: Only when its ``expire_time`` has come: it may have got another one since
                somebody looked.
        """
        ...

    async def stop_in_flight(
        self, tx: Transaction, batch_key: int, *, now: datetime
    ) -> Batch | None:
        """Has the items in flight stopped of a batch that is being cancelled already."""
        ...

    async def seal(self, tx: Transaction, batch: Batch, *, now: datetime) -> Batch | None:
        """Starts a draft; one that has nothing to do is over at once."""
        ...

    async def reopen(
        self, tx: Transaction, batch: Batch, matching: RetryFilter, *, now: datetime
    ) -> tuple[Batch | None, int]:
        """Opens items of a batch that is over as a new attempt at it, and counts them."""
        ...

    async def close_some(self, *, now: datetime) -> Batch | None:
        """Closes some thousands of the items of one batch that is being cancelled.

        Returns:
            The batch after it; none when nothing is left that nobody else is closing.
        """
        ...

    async def due(self, *, now: datetime, limit: int) -> Sequence[Batch]:
        """Returns batches whose ``resume_time`` or ``expire_time`` has come."""
        ...

    async def next_due_time(self) -> datetime | None:
        """Returns the next ``resume_time`` or ``expire_time``."""
        ...
