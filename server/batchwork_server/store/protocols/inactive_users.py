"""Users for whom nothing is to be done."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from batchwork_server.store.protocols.transaction import Transaction


class InactiveUserStore(Protocol):
    """The users of whom whoever keeps them says that nothing is to be done for them.

    It counts for every feature, whether they have set anything for it or not. A change touches one
    row, whatever the user has set.
    """

    async def among(
        self, user_ids: Collection[str], *, tenant_id: str, tx: Transaction | None = None
    ) -> frozenset[str]:
        """Returns which of the users are not active.

        Args:
            tx: Read within it; else what is committed.
        """
        ...

    async def put(self, tx: Transaction, active: Mapping[str, bool], *, tenant_id: str) -> None:
        """Says of users whether they are active; the caller holds the lock of the preferences."""
        ...
