"""Batches in numbers: by state, operation, job, tenant, feature and user, in a window of time."""

from __future__ import annotations

from dataclasses import dataclass

from batchwork_server.domain.filters import BatchFilter
from batchwork_server.domain.statistics import (
    MAX_GROUPS,
    BatchStatistics,
    StatisticsGroup,
    grouped,
    summed,
)
from batchwork_server.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedBatches:
    """What was counted.

    Attributes:
        groups: The largest first, at most a thousand.
        group_count: How many groups there are.
    """

    total: BatchStatistics
    groups: tuple[BatchStatistics, ...]
    group_count: int


class Statistics:
    """Counts batches, whatever has become of them."""

    def __init__(self, *, store: Store) -> None:
        self._store = store

    async def get_batch_statistics(
        self, matching: BatchFilter, *, group_by: StatisticsGroup | None
    ) -> CountedBatches:
        """Counts the batches that match and their items; with a user only that user's items."""
        alike = await self._store.statistics.count(matching, group_by=group_by)
        groups = grouped(alike) if group_by is not None else []
        return CountedBatches(
            total=summed(alike), groups=tuple(groups[:MAX_GROUPS]), group_count=len(groups)
        )
