"""Who is not to be served after all, although a run has an item for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from batchwork_server.domain.batch import Batch
from batchwork_server.domain.group_schedules import MemberSkip
from batchwork_server.store.database import Database
from batchwork_server.store.statements import Column, update_rows

# Of one who is not active, whether they have set anything or not.
_OF_USER = f"""
SELECT CASE WHEN NOT COALESCE((SELECT enabled FROM preferences
      WHERE tenant_id = ? AND feature_type = ? AND user_id = ?), true)
    THEN '{MemberSkip.PREFERENCE_DISABLED}'
  WHEN EXISTS (SELECT 1 FROM inactive_users WHERE tenant_id = ? AND user_id = ?)
    THEN '{MemberSkip.TENANT_INACTIVE}' END
"""
_SHARING_COLUMNS = (
    *(Column("tenant", "text"), Column("member", "text"), Column("batch")),
    Column("feature", "text"),
)
# Who is in no item was taken out before. The range keeps SQLite from reading all users of the
# batch for each of them, for these are stored in the order of the batch.
OPTED_OUT = f"""
SELECT u.user_id, u.place, u.item_index, CASE WHEN u.item_index IS NULL THEN u.skip_reason
  WHEN NOT p.enabled THEN '{MemberSkip.PREFERENCE_DISABLED}'
  ELSE '{MemberSkip.TENANT_INACTIVE}' END
FROM {{rows}} CROSS JOIN item_users u
LEFT JOIN preferences p
  ON p.tenant_id = v.tenant AND p.feature_type = v.feature AND p.user_id = v.member
LEFT JOIN inactive_users n ON n.tenant_id = v.tenant AND n.user_id = v.member
WHERE u.tenant_id = v.tenant AND u.user_id = v.member AND u.batch_key BETWEEN v.batch AND v.batch
  AND (u.item_index IS NULL OR NOT p.enabled OR n.user_id IS NOT NULL)
"""
_TAKEN_COLUMNS = (Column("batch"), Column("number"), Column("reason", "text"))
_TAKE_OUT = """
UPDATE item_users SET item_index = NULL, skip_reason = v.reason FROM {rows}
WHERE batch_key = v.batch AND place = v.number
"""


class SqlOptOuts:
    """Implements ``OptOutStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reason_of(self, user_id: str, *, feature_type: str, tenant_id: str) -> str | None:
        row = await self._database.fetch_row(
            _OF_USER, (tenant_id, feature_type, user_id, tenant_id, user_id)
        )
        return None if row is None else row[0]

    async def take_out(self, batch: Batch, user_ids: Sequence[str]) -> dict[str, str]:
        rows: list[tuple[Any, ...]] = [
            (batch.tenant_id, user_id, batch.key, batch.request.feature_type)
            for user_id in user_ids
        ]
        async with self._database.reading() as connection:
            out = await update_rows(connection, OPTED_OUT, _SHARING_COLUMNS, rows)
        newly = [
            (batch.key, place, reason)
            for _, place, item_index, reason in out
            if item_index is not None
        ]
        if newly:
            async with self._database.transaction() as tx:
                await update_rows(tx.connection, _TAKE_OUT, _TAKEN_COLUMNS, newly)
        return {user_id: reason for user_id, _, _, reason in out}
