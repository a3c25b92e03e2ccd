"""Up to where Config Databases have been read."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from batchwork_server.domain.config_source import SourcePlace
from batchwork_server.store.database import Database
from batchwork_server.store.locks import lock_until_commit
from batchwork_server.store.statements import Column, insert_rows
from batchwork_server.store.store import Transaction
from batchwork_server.store.tables import config_sources
from batchwork_server.store.times import from_micros, to_micros

_COLUMNS = (
    *(Column("tenant_id", "text"), Column("source", "text"), Column("change_id", "text")),
    *(Column("read_time"), Column("revision")),
)
_REPLACE = """
ON CONFLICT (tenant_id, source) DO UPDATE SET
  change_id = excluded.change_id, read_time = excluded.read_time, revision = excluded.revision
"""


class SqlConfigSources:
    """Implements ``ConfigSourceStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, source: str, *, tenant_id: str) -> SourcePlace | None:
        async with self._database.reading() as connection:
            return await _fetch(connection, source, tenant_id)

    async def lock(self, tx: Transaction, source: str, *, tenant_id: str) -> SourcePlace | None:
        await lock_until_commit(tx.connection, "config_sources", tenant_id, source)
        return await _fetch(tx.connection, source, tenant_id)

    async def put(
        self, tx: Transaction, place: SourcePlace, source: str, *, tenant_id: str
    ) -> None:
        row = (
            *(tenant_id, source, place.change_id),
            *(to_micros(place.read_time), place.revision),
        )
        await insert_rows(tx.connection, "config_sources", _COLUMNS, [row], on_conflict=_REPLACE)


async def _fetch(connection: AsyncConnection, source: str, tenant_id: str) -> SourcePlace | None:
    query = sa.select(config_sources).where(
        config_sources.c.tenant_id == tenant_id, config_sources.c.source == source
    )
    row = (await connection.execute(query)).first()
    if row is None:
        return None
    return SourcePlace(
        change_id=row.change_id, read_time=from_micros(row.read_time), revision=row.revision
    )
