"""Batches that begin when their users are validated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from batchwork_server.domain.batch import Batch, BatchRequest
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

    async def recipients(self, batch: Batch, *, after: str, limit: int) -> Sequence[str]:
        """Returns users behind ``after`` who are given a reference and are not known as invalid."""
        ...

    async def begin(
        self,
        tx: Transaction,
        batch: Batch,
        *,
        request: BatchRequest,
        skips: Mapping[int, str],
        problems: Mapping[str, str],
        now: datetime,
    ) -> Batch | None:
        """Skips the items of users who are not valid, and begins with the others, if any.

        Args:
            request: The batch's, with what is known of its users and recipients now.
            skips: The reason of each item that is to be skipped, by its place.
            problems: Why nothing can be delivered to recipients, by their ids.

        Returns:
            The batch; none when it does not wait for this any more.
        """
        ...
