"""What was done for one user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from batchwork_server.domain.batch import Batch, Counts, UserValidation
from batchwork_server.domain.user_context import UserEntry


class UserItemStore(Protocol):
    """The items for one user, and the references to whole batches, of one batch or of all."""

    async def entries(
        self,
        user_id: str,
        *,
        tenant_id: str,
        batch: Batch | None,
        after: tuple[int, int] | None,
        limit: int,
    ) -> tuple[Sequence[UserEntry], tuple[int, int] | None]:
        """Returns a page, the newest batch first, and where the next one starts.

        Args:
            batch: None means all.
            after: The key of a batch and the place in it.
        """
        ...

    async def counts(
        self, user_id: str, *, tenant_id: str, batch: Batch | None
    ) -> tuple[Counts, UserValidation]:
        """Counts the items for a user by state, one that a worker has as pending."""
        ...
