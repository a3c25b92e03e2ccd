"""The changes of preferences."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from batchwork_server.domain.preference_groups import PreferenceChange


class PreferenceChangeStore(Protocol):
    """The changes of the preferences of a tenant, without a gap that a reader could pass over."""

    async def newest(self, *, tenant_id: str) -> int:
        """Returns the number of the newest change; 0 when there was none."""
        ...

    async def after(
        self, sequence: int, *, tenant_id: str, limit: int
    ) -> Sequence[PreferenceChange]:
        """Returns the changes after a number, in order.

        When the first of them does not have the next number, the ones between are forgotten.
        """
        ...

    async def after_tenant(self, tenant_id: str, *, limit: int) -> Sequence[PreferenceChange]:
        """Returns the changes of the tenants whose names come after one, by tenant and in order.

        Args:
            tenant_id: Empty means all tenants, for operators.
        """
        ...

    async def of_user(
        self, user_id: str, *, feature_type: str, tenant_id: str, since: datetime, limit: int
    ) -> Sequence[PreferenceChange]:
        """Returns the newest changes of one preference since a time, in order.

        It reads what the tenant has changed since then; there is no index by user.
        """
        ...

    async def forget(self, *, before: datetime, limit: int) -> int:
        """Removes the oldest changes that were made before; tells how many."""
        ...
