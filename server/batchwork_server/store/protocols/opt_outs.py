"""Who is not to be served after all, although a run has an item for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from batchwork_server.domain.batch import Batch


class OptOutStore(Protocol):
    """Users who opted out, or were said to rest, since a run was made for them."""

    async def reason_of(self, user_id: str, *, feature_type: str, tenant_id: str) -> str | None:
        """Returns why nothing is to be done for a user; None for one who has set nothing."""
        ...

    async def take_out(self, batch: Batch, user_ids: Sequence[str]) -> dict[str, str]:
        """Takes users out of the item that they share, who are not to be served.

        It is for good, so that every attempt at the item, and all that is told of it, agree.

        Args:
            user_ids: For whom the item was made.

        Returns:
            Those who are out of it, now or since an earlier attempt, and why.
        """
        ...
