"""Who is given a reference to the results of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from batchwork_server.domain.batch import Batch
from batchwork_server.domain.filters import ReferenceFilter
from batchwork_server.domain.reference import Recipient, Reference
from batchwork_server.store.database import Database
from batchwork_server.store.rows import BATCH_COLUMNS, batch_from
from batchwork_server.store.statements import Column, insert_rows
from batchwork_server.store.store import Transaction
from batchwork_server.store.tables import batch_references, batches

_COLUMNS = (
    Column("batch_key"),
    Column("user_id", "text"),
    Column("tenant_id", "text"),
    Column("problem", "text"),
)


class SqlReferences:
    """Implements ``ReferenceStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, tx: Transaction, batch: Batch, recipients: Sequence[Recipient]) -> None:
        rows = [(batch.key, each.user_id, batch.tenant_id, each.problem) for each in recipients]
        await insert_rows(tx.connection, "batch_references", _COLUMNS, rows)

    async def list(
        self, matching: ReferenceFilter, *, page_size: int, after: tuple[str, int] | None
    ) -> tuple[list[Reference], tuple[str, int] | None]:
        given = batch_references.c
        # The columns of a batch come by their bare names.
        query = (
            sa.select(
                given.batch_key.label("reference_key"),
                given.user_id.label("recipient"),
                given.problem.label("problem"),
            )
            .join(batches, batches.c.batch_key == given.batch_key)
            .where(batches.c.state != "DELETED")
        )
        if matching.tenant_id is not None:
            query = query.where(
                given.tenant_id == matching.tenant_id, batches.c.tenant_id == matching.tenant_id
            )
        if matching.user_id:
            query = query.where(given.user_id == matching.user_id)
        if matching.batch_id:
            query = query.where(batches.c.batch_id == matching.batch_id)
        if after is not None:
            user_id, batch_key = after
            query = query.where(
                sa.or_(
                    given.batch_key < batch_key,
                    sa.and_(given.batch_key == batch_key, given.user_id > user_id),
                )
            )
        page = query.order_by(given.batch_key.desc(), given.user_id).limit(page_size + 1).subquery()
        with_batches = (
            sa.select(
                page.c.reference_key, page.c.recipient, page.c.problem, sa.text(BATCH_COLUMNS)
            )
            .select_from(page.join(batches, batches.c.batch_key == page.c.reference_key))
            .order_by(page.c.reference_key.desc(), page.c.recipient)
        )
        async with self._database.reading() as connection:
            rows = (await connection.execute(with_batches)).fetchall()
        found = [
            Reference(
                recipient=Recipient(user_id=row[1], problem=row[2]), batch=batch_from(row[3:])
            )
            for row in rows[:page_size]
        ]
        if len(rows) <= page_size:
            return found, None
        return found, (found[-1].recipient.user_id, found[-1].batch.key)
