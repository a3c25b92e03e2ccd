"""Batches in numbers."""

from __future__ import annotations

from typing import Protocol

from batchwork_server.domain.filters import BatchFilter
from batchwork_server.domain.statistics import BatchesAlike, StatisticsGroup


class StatisticsStore(Protocol):
    """Batches in numbers."""

    async def count(
        self, matching: BatchFilter, *, group_by: StatisticsGroup | None
    ) -> list[BatchesAlike]:
        """Counts the batches that match and their items, by group, state and operation.

        With a user in the filter only that user's items are counted, those that are not done as
        pending.

        Args:
            group_by: None puts them all into one group without a name.
        """
        ...
