"""Batches in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum

from batchwork_server.domain.batch import BatchState, Counts

MAX_GROUPS = 1000
"""The most groups that are told."""

COMPLETED = (BatchState.SUCCEEDED, BatchState.PARTIALLY_SUCCEEDED)
"""What the requirement documents call completed."""


class StatisticsGroup(StrEnum):
    """What batches are counted by."""

    OPERATION = "operation"
    JOB = "job_id"
    TENANT = "tenant_id"
    FEATURE = "feature_type"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchesAlike:
    """Some batches of one group, state and operation, counted by the store."""

    group: str
    state: BatchState
    operation: str
    batch_count: int
    item_counts: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStatistics:
    """Some batches in numbers.

    Attributes:
        name: What they have in common; empty for all together.
    """

    name: str
    batch_count: int
    by_state: Mapping[BatchState, int]
    by_operation: Mapping[str, int]
    item_counts: Counts

    @property
    def completion_ratio(self) -> float:
        """The part of the batches that is completed, 0 to 1; 0 of none."""
        completed = sum(self.by_state.get(state, 0) for state in COMPLETED)
        return completed / self.batch_count if self.batch_count else 0.0


def summed(alike: Iterable[BatchesAlike], *, name: str = "") -> BatchStatistics:
    """Returns the sum of what was counted apart."""
    by_state: Counter[BatchState] = Counter()
    by_operation: Counter[str] = Counter()
    items: Counter[str] = Counter()
    for some in alike:
        by_state[some.state] += some.batch_count
        by_operation[some.operation] += some.batch_count
        for each in fields(Counts):
            items[each.name] += getattr(some.item_counts, each.name)
    return BatchStatistics(
        name=name,
        batch_count=by_state.total(),
        by_state=by_state,
        by_operation=by_operation,
        item_counts=Counts(**items),
    )


def grouped(alike: Iterable[BatchesAlike]) -> list[BatchStatistics]:
    """Returns the sum of each group, the largest first, and by name where that is the same."""
    groups: dict[str, list[BatchesAlike]] = {}
    for some in alike:
        groups.setdefault(some.group, []).append(some)
    found = [summed(members, name=name) for name, members in groups.items()]
    return sorted(found, key=lambda group: (-group.batch_count, group.name))
