"""The users of whom whoever keeps them says that nothing is to be done for them.

That is said of a user and not of one of their preferences: it counts also for features for which
they have set nothing yet, and for those that they set later.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from batchwork_server.store.database import Database
from batchwork_server.store.statements import Column, update_rows
from batchwork_server.store.store import Transaction

IS_ACTIVE = """
NOT EXISTS (SELECT 1 FROM inactive_users i
  WHERE i.tenant_id = preferences.tenant_id AND i.user_id = preferences.user_id)
"""
"""Of a row of ``preferences``: whether its user is active."""

_COLUMNS = (Column("tenant", "text"), Column("member", "text"))
# The condition keeps SQLite from taking the conflict for a join.
_ADD = """
INSERT INTO inactive_users (tenant_id, user_id) SELECT tenant, member FROM {rows} WHERE true
ON CONFLICT DO NOTHING
"""
_REMOVE = """
DELETE FROM inactive_users WHERE (tenant_id, user_id) IN (SELECT v.tenant, v.member FROM {rows})
"""
# A cross join is read from left to right by SQLite: it must not go through all users.
_AMONG = """
SELECT user_id FROM {rows} CROSS JOIN inactive_users
WHERE tenant_id = v.tenant AND user_id = v.member
"""


class SqlInactiveUsers:
    """Implements ``InactiveUserStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def among(
        self, user_ids: Collection[str], *, tenant_id: str, tx: Transaction | None = None
    ) -> frozenset[str]:
        rows = [(tenant_id, user_id) for user_id in sorted(set(user_ids))]
        if tx is not None:
            found = await update_rows(tx.connection, _AMONG, _COLUMNS, rows)
        else:
            async with self._database.reading() as connection:
                found = await update_rows(connection, _AMONG, _COLUMNS, rows)
        return frozenset(user_id for (user_id,) in found)

    async def put(self, tx: Transaction, active: Mapping[str, bool], *, tenant_id: str) -> None:
        rows = {
            is_active: [(tenant_id, user) for user, value in active.items() if value is is_active]
            for is_active in (True, False)
        }
        await update_rows(tx.connection, _REMOVE, _COLUMNS, rows[True])
        await update_rows(tx.connection, _ADD, _COLUMNS, rows[False])
