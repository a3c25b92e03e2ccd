"""Locks that end with their transaction."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection


async def lock_until_commit(connection: AsyncConnection, *names: str) -> None:
    """Waits until no other transaction holds the same names, and holds them.

    It guards rows that may not exist yet, which no row lock can. On SQLite a write transaction
    is alone anyway.
    """
    if connection.dialect.name == "postgresql":
        number = sa.func.hashtextextended("\x1f".join(names), 0)
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(number)))
