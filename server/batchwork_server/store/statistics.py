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
from batchwork_server.store.own_items import of_tenant
from batchwork_server.store.tables import batches, item_users, items, outcomes

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
            of_user = [
                row
                for table in (items, item_users)
                for row in await connection.execute(items_of_user(matching, alike, table))
            ]
        return _with_items_of_user(rows, of_user)


def _sum(column: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    return sa.func.coalesce(sa.func.sum(column), 0)


def items_of_user(
    matching: BatchFilter, alike: Sequence[sa.ColumnElement[Any]], table: sa.Table
) -> sa.Select[Any]:
    """Returns a query of how many items a user has, by what became of them.

    Args:
        table: Of the items for one user, or of the users of those for several.
    """
    own = table.c
    outcome = sa.and_(
        outcomes.c.batch_key == own.batch_key, outcomes.c.item_index == own.item_index
    )
    done = sa.func.coalesce(outcomes.c.state, "PENDING")
    # Who is in none of the items was skipped.
    item_state = sa.case((own.item_index.is_(None), "SKIPPED"), else_=done)
    retries = sa.case((outcomes.c.attempt_count > 1, outcomes.c.attempt_count - 1), else_=0)
    of_user = own.user_id == matching.user_id
    if table is item_users:
        of_user &= of_tenant(own.tenant_id, matching.tenant_id)
    return (
        sa.select(
            *alike,
            item_state.label("item_state"),
            sa.func.count().label("item_count"),
            _sum(retries).label("retries"),
        )
        .select_from(
            batches.join(table, own.batch_key == batches.c.batch_key).outerjoin(outcomes, outcome)
        )
        .where(of_user, *batch_conditions(replace(matching, user_id="")))
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
