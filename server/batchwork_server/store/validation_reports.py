"""What the validation of users found in batches, name by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from batchwork_server.domain.batch import Batch
from batchwork_server.domain.reference_validation import OWN, InvalidReference
from batchwork_server.domain.user import UserVerdict
from batchwork_server.store.database import Database
from batchwork_server.store.statements import Column, insert_rows, run
from batchwork_server.store.store import Transaction

_COLUMNS = (
    Column("batch_key"),
    Column("number"),
    Column("category", "text"),
    Column("item_id", "text"),
    Column("field", "text"),
    Column("user_id", "text"),
    Column("verdict", "text"),
)
_ROWS_AT_ONCE = 2048

_REFERENCES = """
SELECT number, category, item_id, field, user_id, verdict FROM invalid_references
WHERE batch_key = ? AND number > ? ORDER BY number LIMIT ?
"""
_SKIP = "USER_"
_SKIPS = ", ".join(
    f"'{_SKIP}{verdict}'" for verdict in UserVerdict if verdict is not UserVerdict.VALID
)
# The first condition is that of the partial index.
_USERS = f"""
SELECT o.item_index, i.item_id, i.user_id, o.skip_reason FROM outcomes o
JOIN items i ON i.batch_key = o.batch_key AND i.item_index = o.item_index
WHERE o.state <> 'SUCCEEDED' AND o.batch_key = ? AND o.state = 'SKIPPED'
  AND o.item_index > ? AND o.skip_reason IN ({_SKIPS}) AND i.user_id IS NOT NULL
ORDER BY o.item_index LIMIT ?
"""


class SqlValidationReports:
    """Implements ``ValidationReportStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self,
        tx: Transaction,
        batch: Batch,
        invalid: Sequence[InvalidReference],
        *,
        first: int = 0,
    ) -> None:
        for start in range(0, len(invalid), _ROWS_AT_ONCE):
            part = enumerate(invalid[start : start + _ROWS_AT_ONCE], first + start)
            rows = [
                (batch.key, n, each.category, each.item_id, each.field, each.user_id, each.verdict)
                for n, each in part
            ]
            await insert_rows(tx.connection, "invalid_references", _COLUMNS, rows)

    async def invalid_references(
        self, batch: Batch, *, page_size: int, after: int | None
    ) -> tuple[Sequence[InvalidReference], int | None]:
        rows = await self._page(_REFERENCES, batch, page_size=page_size, after=after)
        page = [
            InvalidReference(
                category=category,
                item_id=item_id,
                field=field,
                user_id=user_id,
                verdict=UserVerdict(verdict),
            )
            for _, category, item_id, field, user_id, verdict in rows[:page_size]
        ]
        return page, rows[page_size - 1][0] if len(rows) > page_size else None

    async def invalid_users(
        self, batch: Batch, *, page_size: int, after: int | None
    ) -> tuple[Sequence[InvalidReference], int | None]:
        rows = await self._page(_USERS, batch, page_size=page_size, after=after)
        page = [
            InvalidReference(
                category="",
                item_id=item_id,
                field=OWN,
                user_id=user_id,
                verdict=UserVerdict(skip_reason.removeprefix(_SKIP)),
            )
            for _, item_id, user_id, skip_reason in rows[:page_size]
        ]
        return page, rows[page_size - 1][0] if len(rows) > page_size else None

    async def _page(
        self, statement: str, batch: Batch, *, page_size: int, after: int | None
    ) -> list[tuple[Any, ...]]:
        parameters = (batch.key, -1 if after is None else after, page_size + 1)
        async with self._database.reading() as connection:
            return await run(connection, statement, parameters)
