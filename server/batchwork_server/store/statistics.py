"""Counts batches and their items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from batchwork_server.domain.batch import BatchState, Counts
from batchwork_server.domain.filters import BatchFilter
from batchwork_server.domain.item import ItemState
from batchwork_server.domain.statistics import BatchesAlike, StatisticsGroup
from batchwork_server.store.batches import batch_conditions
from batchwork_server.store.database import Database
from batchwork_server.store.tables import batches, items, outcomes

_COUNTS = (
    *("total", "pending", "running", "succeeded", "failed"),
    *("skipped", "cancelled", "expired", "retries"),
)


class SqlStatistics:
    """Implements ``StatisticsStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(
        self, matching: BatchFilter, *, group_by: StatisticsGroup | None
    ) -> list[BatchesAlike]:
        group = sa.literal("") if group_by is None else batches.c[group_by.value]
        alike = (group.label("group_name"), batches.c.state, batches.c.operation)
        query = (
            sa.select(
                *alike,
                sa.func.count().label("batch_count"),
                *(_sum(batches.c[name]).label(name) for name in _COUNTS),
            )
            .where(*batch_conditions(matching))
            .group_by(*alike)
        )
        async with self._database.reading() as connection:
            rows = (await connection.execute(query)).all()
            if not matching.user_id:
                return [_alike(row, _counts_of(row)) for row in rows]
            of_user = (await connection.execute(_items_of_user(matching, alike))).all()
        return _with_items_of_user(rows, of_user)


def _sum(column: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    return sa.func.coalesce(sa.func.sum(column), 0)


def _items_of_user(matching: BatchFilter, alike: Sequence[sa.ColumnElement[Any]]) -> sa.Select[Any]:
    """Returns a query of how many items a user has, by what became of them."""
    user_id = matching.user_id
    outcome = sa.and_(
        outcomes.c.batch_key == items.c.batch_key, outcomes.c.item_index == items.c.item_index
    )
    item_state = sa.func.coalesce(outcomes.c.state, "PENDING")
    retries = sa.case((outcomes.c.attempt_count > 1, outcomes.c.attempt_count - 1), else_=0)
    return (
        sa.select(
            *alike,
            item_state.label("item_state"),
            sa.func.count().label("item_count"),
            _sum(retries).label("retries"),
        )
        .select_from(
            batches.join(items, items.c.batch_key == batches.c.batch_key).outerjoin(
                outcomes, outcome
            )
        )
        .where(items.c.user_id == user_id, *batch_conditions(replace(matching, user_id="")))
        .group_by(*alike, item_state)
    )


def _with_items_of_user(rows: Sequence[Any], of_user: Sequence[Any]) -> list[BatchesAlike]:
    counted: dict[tuple[str, str, str], Counter[str]] = {}
    for row in of_user:
        counts = counted.setdefault((row.group_name, row.state, row.operation), Counter())
        counts[ItemState(row.item_state).lower()] += row.item_count
        counts["total"] += row.item_count
        counts["retries"] += int(row.retries)
    return [
        _alike(row, counted.get((row.group_name, row.state, row.operation), Counter()))
        for row in rows
    ]


def _counts_of(row: Any) -> dict[str, int]:
    return {name: int(getattr(row, name)) for name in _COUNTS}


def _alike(row: Any, counts: dict[str, int]) -> BatchesAlike:
    return BatchesAlike(
        group=row.group_name,
        state=BatchState(row.state),
        operation=row.operation,
        batch_count=row.batch_count,
        item_counts=Counts(**counts),
    )
