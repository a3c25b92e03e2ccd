"""References to the results of batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from batchwork_server.domain.batch import Batch
from batchwork_server.domain.filters import ReferenceFilter
from batchwork_server.domain.reference import Recipient, Reference
from batchwork_server.store.protocols.transaction import Transaction


class ReferenceStore(Protocol):
    """Who is given a reference to the results of a batch."""

    async def add(self, tx: Transaction, batch: Batch, recipients: Sequence[Recipient]) -> None:
        """Stores who is to have the results of a batch that the transaction has made.

        The users of a preference-based run are not among them: their items say it.
        """
        ...

    async def list(
        self, matching: ReferenceFilter, *, page_size: int, after: tuple[str, int] | None
    ) -> tuple[list[Reference], tuple[str, int] | None]:
        """Returns a page, newest batch first, and where the next one starts.

        In a batch the users whom the job names come first, by their ids, and then the users of a
        preference-based run in its order, each with their own item. What a page costs does not
        depend on the size of the batches.

        Args:
            after: The place in a batch, as ``PlaceInBatch`` writes it, and the batch's key.
        """
        ...
