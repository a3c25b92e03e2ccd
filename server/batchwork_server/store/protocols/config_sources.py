"""How far Config Databases have been read."""

from __future__ import annotations

from typing import Protocol

from batchwork_server.domain.config_source import SourcePlace
from batchwork_server.store.protocols.transaction import Transaction


class ConfigSourceStore(Protocol):
    """Up to where Config Databases have been read. A source is named by where and what it is."""

    async def get(self, source: str, *, tenant_id: str) -> SourcePlace | None:
        """Returns the place, or none when the source has never been read to the end."""
        ...

    async def lock(self, tx: Transaction, source: str, *, tenant_id: str) -> SourcePlace | None:
        """Returns the place like ``get``; nobody else locks it until the transaction ends."""
        ...

    async def put(
        self, tx: Transaction, place: SourcePlace, source: str, *, tenant_id: str
    ) -> None:
        """Stores a place, in place of the one before. The caller holds its ``lock``."""
        ...
