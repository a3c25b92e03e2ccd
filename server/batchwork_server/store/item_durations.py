"""How long items of a template take: a mean in which what is long ago counts less and less."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from batchwork_server.domain.item_durations import MeasuredAttempts
from batchwork_server.store.database import Database
from batchwork_server.store.statements import Column, insert_rows, run
from batchwork_server.store.times import to_micros

LONGEST_MEMORY = 1000
"""What is known weighs as much as so many attempts, however many there were."""

_COLUMNS = (
    *(Column("tenant_id", "text"), Column("template_id", "text")),
    *(Column("mean"), Column("weight"), Column("update_time")),
)
_KNOWN = (
    f"(CASE WHEN item_durations.weight < {LONGEST_MEMORY}"
    f" THEN item_durations.weight ELSE {LONGEST_MEMORY} END)"
)
_ADD = f"""
ON CONFLICT (tenant_id, template_id) DO UPDATE SET
  mean = (item_durations.mean * {_KNOWN} + excluded.mean * excluded.weight)
    / ({_KNOWN} + excluded.weight),
  weight = {_KNOWN} + excluded.weight, update_time = excluded.update_time
"""


class SqlItemDurations:
    """Implements ``ItemDurationStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def mean(self, template_id: str, *, tenant_id: str) -> timedelta | None:
        async with self._database.reading() as connection:
            rows = await run(
                connection,
                "SELECT mean FROM item_durations WHERE tenant_id = ? AND template_id = ?",
                (tenant_id, template_id),
            )
        return timedelta(microseconds=rows[0][0]) if rows else None

    async def learn(self, measured: Iterable[MeasuredAttempts], *, now: datetime) -> None:
        rows = [
            (each.tenant_id, each.template_id, each.micros // each.count, each.count, moment)
            for moment in (to_micros(now),)
            for each in measured
        ]
        async with self._database.transaction() as tx:
            # Sorted, so that two servers never wait for each other in a ring.
            await insert_rows(
                tx.connection, "item_durations", _COLUMNS, sorted(rows), on_conflict=_ADD
            )
