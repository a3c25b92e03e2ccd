"""The groups of preferences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from batchwork_server.domain.preference_groups import PreferenceGroup
from batchwork_server.domain.schedule import Schedule
from batchwork_server.store.protocols.transaction import Transaction

GroupPlace = tuple[str, str, int]
"""The tenant, the feature and the key of a group after which a page starts."""


class PreferenceGroupStore(Protocol):
    """The users of a feature who wish the same schedule."""

    async def get(self, group_key: int, *, tenant_id: str) -> PreferenceGroup | None: ...

    async def lock(
        self, tx: Transaction, group_key: int, *, tenant_id: str
    ) -> PreferenceGroup | None:
        """Returns a group, whose members stay as many as they are until the transaction ends."""
        ...

    async def forget_empty(self, *, before: datetime, limit: int) -> int:
        """Removes groups that have had no member since a time, with their schedules.

        Not those whom anybody left for another one since then, and not those of the users who
        name no schedule.

        Returns:
            How many of them are gone.
        """
        ...

    async def key_of(
        self, feature_type: str, schedule: Schedule | None, *, tenant_id: str
    ) -> int | None:
        """Returns the key of the group of those who wish a schedule; none for no such group."""
        ...

    async def list(
        self,
        *,
        tenant_id: str | None,
        feature_type: str,
        with_empty: bool,
        page_size: int,
        after: GroupPlace | None,
    ) -> tuple[list[PreferenceGroup], GroupPlace | None]:
        """Returns a page by tenant, feature and key, and where the next one starts.

        Args:
            tenant_id: None means all tenants, for operators.
            feature_type: Empty means every feature.
            with_empty: Also those that have no members any more.
        """
        ...

    async def feature_types(self, *, tenant_id: str) -> Sequence[str]:
        """Returns the features for which anybody has an enabled preference, in order."""
        ...

    async def resting_counts(self, *, tenant_id: str, feature_type: str) -> Mapping[int, int]:
        """Counts, for each group that has any, the members who are not active.

        It reads all preferences of the tenant, or of the feature.

        Args:
            feature_type: Empty means every feature.
        """
        ...

    async def silent_count(self, feature_type: str, *, tenant_id: str) -> int:
        """Counts the active users of the embedded table without a preference for a feature."""
        ...
