"""The results of batches."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from batchwork_server.domain.batch import Batch
from batchwork_server.domain.item import Item, ItemState
from batchwork_server.store.protocols.events import Event


class ResultStore(Protocol):
    """Finished items by their places. Nothing here returns more than it was asked for."""

    async def first_sequence(self, batch_key: int) -> int | None:
        """Returns the number of the oldest event that is kept."""
        ...

    async def retries(self, batch_key: int) -> Sequence[Event]:
        """Returns the events that are kept and opened items again, in order."""
        ...

    async def weights(
        self,
        batch: Batch,
        indexes: Sequence[int],
        *,
        states: Collection[ItemState],
        user_id: str,
        with_data: bool,
    ) -> dict[int, int]:
        """Returns how many bytes of text each of the items has, by its place.

        Left out are items that are not final, or in none of the ``states`` when there are any, or
        not for the user when one is named.
        """
        ...

    async def items(
        self, batch: Batch, indexes: Sequence[int], *, with_data: bool
    ) -> Sequence[Item]:
        """Returns those of the items that are final, in the order of the batch."""
        ...

    async def final_indexes(
        self, batch_key: int, *, after: int, states: Collection[ItemState], limit: int
    ) -> Sequence[int]:
        """Returns the places of final items after a place, in the order of the batch."""
        ...
