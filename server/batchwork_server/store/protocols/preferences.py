"""Preferences and the defaults of tenants."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

from batchwork_server.domain.filters import PreferenceFilter
from batchwork_server.domain.preference import DefaultPreference, Preference
from batchwork_server.domain.preference_groups import PreferenceChange
from batchwork_server.store.protocols.transaction import Transaction

PreferenceKey = tuple[str, str]
"""The feature and the user of a preference."""

PreferencePlace = tuple[str, str, str]
"""The tenant, the feature and the user of a preference after which a page starts."""


class PreferenceStore(Protocol):
    """What the users of tenants wish for features, and the tenants for those who say nothing.

    A write costs the same however many preferences there are, and moves users between groups.
    """

    async def lock(
        self, tx: Transaction, keys: Collection[PreferenceKey], *, tenant_id: str
    ) -> dict[PreferenceKey, Preference]:
        """Returns those of the preferences that exist.

        Nobody else changes a preference or default of the tenant until the transaction ends.
        """
        ...

    async def of_users(
        self, user_ids: Collection[str], *, tenant_id: str
    ) -> dict[PreferenceKey, Preference]:
        """Returns all preferences of the users."""
        ...

    async def lock_users(
        self, tx: Transaction, user_ids: Collection[str], *, tenant_id: str
    ) -> dict[PreferenceKey, Preference]:
        """Returns all preferences of the users like ``of_users``, and locks like ``lock``."""
        ...

    async def put(
        self, tx: Transaction, stored: Sequence[Preference], *, tenant_id: str, now: datetime
    ) -> list[PreferenceChange]:
        """Stores preferences, in place of those before; no two of them have the same key.

        The caller holds the ``lock``. Thousands of them take few statements. Whether their users
        are active is not said with it; ``InactiveUserStore`` has that.

        Returns:
            What became of each, in the same order.
        """
        ...

    async def delete(
        self, tx: Transaction, stored: Sequence[Preference], *, tenant_id: str, now: datetime
    ) -> list[PreferenceChange]:
        """Removes preferences that ``lock`` returned; their users leave their groups."""
        ...

    async def get(
        self, *, user_id: str, feature_type: str, tenant_id: str
    ) -> Preference | None: ...

    async def list_members(
        self, group_key: int, *, tenant_id: str, page_size: int, after: str | None
    ) -> tuple[list[Preference], str | None]:
        """Returns a page of the members of a group by user, and after whom the next one starts.

        A page ends early when it holds about 3 MiB.
        """
        ...

    async def get_default(self, feature_type: str, *, tenant_id: str) -> DefaultPreference | None:
        """Returns the tenant's default for a feature."""
        ...

    async def lock_default(
        self, tx: Transaction, feature_type: str, *, tenant_id: str
    ) -> DefaultPreference | None:
        """Returns the tenant's default for a feature, and locks like ``lock``."""
        ...

    async def put_default(
        self, tx: Transaction, default: DefaultPreference, *, tenant_id: str, now: datetime
    ) -> PreferenceChange:
        """Stores a default, in place of the one before. The caller holds its lock."""
        ...

    async def list(
        self, wanted: PreferenceFilter, *, page_size: int, after: PreferencePlace | None
    ) -> tuple[list[Preference], PreferencePlace | None]:
        """Returns a page by tenant, feature and user, and where the next one starts.

        A page ends early when it holds about 3 MiB.
        """
        ...
