"""What contexts of batches list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from batchwork_server.domain.batch import Batch
from batchwork_server.domain.context import ContextEntry, ContextItems
from batchwork_server.domain.item import ItemUser
from batchwork_server.store.protocols.transaction import Transaction


class ContextStore(Protocol):
    """Who and what is in batches."""

    async def add_users(
        self,
        tx: Transaction,
        batch: Batch,
        users: Sequence[ItemUser],
        *,
        first_index: int = 0,
        first_place: int = 0,
    ) -> None:
        """Stores the users of items that are for several together.

        Args:
            first_index: The place in the batch of the item with index 0.
            first_place: How many such users the batch has already.
        """
        ...

    async def entries(
        self, batch: Batch, *, after: int, limit: int
    ) -> tuple[Sequence[ContextEntry], int | None]:
        """Returns a page in the order of the batch, and where the next one starts.

        What a page costs does not depend on the size of the batch.

        Args:
            after: -1 for the first page.
        """
        ...

    async def listed_in(self, batches: Sequence[Batch], items: ContextItems) -> ContextItems:
        """Returns what of the lists some batches list as well."""
        ...
