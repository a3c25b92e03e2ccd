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
        """Stores who is to have the results of a batch that the transaction has made."""
        ...

    async def list(
        self, matching: ReferenceFilter, *, page_size: int, after: tuple[str, int] | None
    ) -> tuple[list[Reference], tuple[str, int] | None]:
        """Returns a page by newest batch and user, and where the next one starts."""
        ...
