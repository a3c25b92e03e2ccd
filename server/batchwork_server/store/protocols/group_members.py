"""Whom runs of groups are for."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from batchwork_server.domain.preference import Preference


class GroupMemberStore(Protocol):
    """Whom a run of a group is for, besides its members."""

    async def moved_from(
        self,
        group_key: int,
        *,
        tenant_id: str,
        feature_type: str,
        since: datetime,
        page_size: int,
        after: str,
    ) -> tuple[list[Preference], str | None]:
        """Returns a page, by user, of those who left a group for another one since a time."""
        ...

    async def without_preference(
        self, feature_type: str, *, tenant_id: str, page_size: int, after: str
    ) -> tuple[list[str], str | None]:
        """Returns a page of the users of the embedded table who have set nothing.

        Only of those who are active, there and for whoever keeps their preferences.
        """
        ...
