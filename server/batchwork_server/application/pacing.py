"""How far apart the chunks of a batch stand in the order of dispatch."""

from __future__ import annotations

from dataclasses import replace

from batchwork_server.domain.batch import BatchOptions, expected_chunk_duration
from batchwork_server.store.store import ItemDurationStore


class Pacing:
    """Knows from what was measured how long the chunks of a batch will take.

    Args:
        slots: Items in flight at once on this server.
    """

    def __init__(self, durations: ItemDurationStore, *, slots: int) -> None:
        self._durations = durations
        self._slots = slots

    async def paced(
        self, options: BatchOptions, template_id: str, *, tenant_id: str
    ) -> BatchOptions:
        """Returns the options of a batch with the duration of its chunks.

        Raises:
            StoreUnavailable: the database is away.
        """
        expected = expected_chunk_duration(
            chunk_size=options.chunk_size,
            max_concurrent_items=options.max_concurrent_items,
            item_duration=await self._durations.mean(template_id, tenant_id=tenant_id),
            slots=self._slots,
        )
        return replace(options, chunk_duration=expected)
