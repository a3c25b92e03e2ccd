"""Batches that begin when their users are validated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from batchwork_server.domain.batch import Batch, UserValidation
from batchwork_server.store.protocols.transaction import Transaction


class DeferralStore(Protocol):
    """Batches that are PAUSED because their users could not be validated."""

    async def waiting(self, *, after: int, limit: int) -> Sequence[Batch]:
        """Returns batches whose key is larger than ``after``, by key."""
        ...

    async def unvalidated(
        self, batch: Batch, *, after: int, limit: int
    ) -> Sequence[tuple[int, str]]:
        """Returns the places of items behind ``after``, and their users, who are not validated."""
        ...

    async def begin(
        self,
        tx: Transaction,
        batch: Batch,
        *,
        found: UserValidation,
        skips: Mapping[int, str],
        now: datetime,
    ) -> Batch | None:
        """Skips the items of users who are not valid, and begins with the others, if any.

        Args:
            found: What is known of all users of the batch now.
            skips: The reason of each item that is to be skipped, by its place.

        Returns:
            The batch; none when it does not wait for this any more.
        """
        ...
