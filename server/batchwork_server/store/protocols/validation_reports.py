"""What the validation of users found in batches, name by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from batchwork_server.domain.batch import Batch
from batchwork_server.domain.reference_validation import InvalidReference
from batchwork_server.store.protocols.transaction import Transaction


class ValidationReportStore(Protocol):
    """The invalid users of a batch, and the references that were taken out of its items.

    The counts stand in the batch itself: ``request.user_validation`` and
    ``request.reference_validation``.
    """

    async def add(
        self,
        tx: Transaction,
        batch: Batch,
        invalid: Sequence[InvalidReference],
        *,
        first: int = 0,
    ) -> None:
        """Stores what was taken out, in the transaction that stores the items.

        Args:
            first: How many references of the batch are stored already.
        """
        ...

    async def invalid_references(
        self, batch: Batch, *, page_size: int, after: int | None
    ) -> tuple[Sequence[InvalidReference], int | None]:
        """Returns a page in the order of the items, and where the next one starts.

        One with the field ``user_id`` is the user of a thing that was left out of the one item.
        """
        ...

    async def invalid_users(
        self, batch: Batch, *, page_size: int, after: int | None
    ) -> tuple[Sequence[InvalidReference], int | None]:
        """Returns a page of the items that were skipped for their user, and where the next starts.

        The field of each is ``user_id``.
        """
        ...
