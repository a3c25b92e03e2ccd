"""Who is to be told of batches, and who was."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from batchwork_server.domain.batch import Batch
from batchwork_server.domain.filters import NotificationFilter
from batchwork_server.domain.notification import (
    Notification,
    NotificationState,
    NotificationTarget,
)
from batchwork_server.store.protocols.transaction import Transaction


class NotificationStore(Protocol):
    """What is to be sent, from the creation of a batch to the answer of a target."""

    async def add(
        self, tx: Transaction, batch: Batch, targets: Sequence[NotificationTarget], *, now: datetime
    ) -> None:
        """Stores who is to be told of a batch that the transaction has made."""
        ...

    async def reopen(
        self, tx: Transaction, ended: Batch, reopened: Batch, *, now: datetime
    ) -> None:
        """Stores who is to be told of the next attempt at a batch: who was to be told before.

        What was not looked at of the attempt before is told as ``ended`` says.
        """
        ...

    async def arm(self, batch_key: int, *, now: datetime) -> None:
        """Has sent what waited for the end of a batch; does nothing while that goes on."""
        ...

    async def arm_some(self, *, now: datetime, limit: int) -> int:
        """Does so for batches that are over, and returns for how many."""
        ...

    async def due_targets(self, *, now: datetime) -> Sequence[str]:
        """Returns to whom something is to be sent now."""
        ...

    async def take(
        self, target: str, *, now: datetime, lease: timedelta, limit: int
    ) -> list[Notification]:
        """Takes what is to be sent to a target now, as one attempt more.

        Nobody else gets it until ``lease`` is over; then the attempt counts as lost. What belongs
        to deleted batches is left out.
        """
        ...

    async def record(
        self,
        taken: Notification,
        *,
        state: NotificationState,
        now: datetime,
        error: str = "",
        next_attempt_time: datetime | None = None,
    ) -> bool:
        """Writes down what became of an attempt.

        Returns:
            False when somebody else has taken the notification meanwhile: nothing is changed.
        """
        ...

    async def record_page(self, taken: Notification, *, sent_after: str, now: datetime) -> bool:
        """Writes down that a page of deliveries was sent, and that another one follows."""
        ...

    async def list(
        self, matching: NotificationFilter, *, page_size: int, after: int | None
    ) -> tuple[Sequence[Notification], int | None]:
        """Returns a page, newest first, and where the next one starts."""
        ...
