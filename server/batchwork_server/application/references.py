"""References: what users were given of the results of batches."""

from __future__ import annotations

from collections.abc import Sequence

from batchwork_server.domain.filters import ReferenceFilter
from batchwork_server.domain.reference import Reference
from batchwork_server.store.store import Store


class References:
    """Shows who was given what."""

    def __init__(self, *, store: Store) -> None:
        self._store = store

    async def list_references(
        self, matching: ReferenceFilter, *, page_size: int, after: tuple[str, int] | None
    ) -> tuple[Sequence[Reference], tuple[str, int] | None]:
        """Returns a page, newest batch first, and where the next one starts."""
        return await self._store.references.list(matching, page_size=page_size, after=after)
