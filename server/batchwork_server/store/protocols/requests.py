"""Requests that may come again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from batchwork_server.store.protocols.transaction import Transaction


class RequestStore(Protocol):
    """The first answer to each request id."""

    async def find(
        self, *, tenant_id: str, method: str, request_id: str, request_hash: str
    ) -> dict[str, Any] | None:
        """Returns the first answer, or none; for a look before costly work.

        Raises:
            RequestIdReused: the id was used with other content.
        """
        ...

    async def replay(
        self,
        tx: Transaction,
        *,
        tenant_id: str,
        method: str,
        request_id: str,
        request_hash: str,
        now: datetime,
    ) -> dict[str, Any] | None:
        """Returns the first answer, or none when this is the first request with this id.

        Of requests at the same time, one gets none; the others wait for its transaction.

        Raises:
            RequestIdReused: the id was used with other content.
        """
        ...

    async def remember(
        self,
        tx: Transaction,
        *,
        tenant_id: str,
        method: str,
        request_id: str,
        answer: Mapping[str, Any],
    ) -> None:
        """Keeps the answer to the request that ``replay`` let through."""
        ...

    async def forget(self, *, before: datetime, limit: int) -> int:
        """Removes up to ``limit`` answers that are older, the oldest first; returns how many."""
        ...
