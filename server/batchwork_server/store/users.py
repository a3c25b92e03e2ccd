"""The embedded source of users."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
import sqlalchemy as sa

from batchwork_server.domain.user import UserVerdict
from batchwork_server.store.database import Database
from batchwork_server.store.store import Transaction
from batchwork_server.store.times import to_micros

IDS_PER_STATEMENT = 10_000

# A database cannot even be asked for these.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class SqlUsers:
    """Users in the tables of this database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        is_sqlite = database.dialect == "sqlite"
        self._exceptions = sa.text(_EXCEPTIONS_SQLITE if is_sqlite else _EXCEPTIONS_POSTGRESQL)

    async def verdicts(
        self, user_ids: Sequence[str], *, tenant_id: str
    ) -> Mapping[str, UserVerdict]:
        """Returns a verdict for each distinct id.

        Raises:
            StoreUnavailable: no verdict could be reached.
        """
        verdicts = dict.fromkeys(user_ids, UserVerdict.VALID)
        async with self._database.reading() as connection:
            for chunk in _chunks(list(verdicts)):
                storable = _storable(chunk)
                asked = self._asked(storable) | {"tenant_id": tenant_id}
                for user_id, verdict in await connection.execute(self._exceptions, asked):
                    verdicts[user_id] = UserVerdict(verdict)
                if len(storable) < len(chunk):
                    known = set(storable)
                    verdicts |= {
                        user_id: UserVerdict.NOT_FOUND for user_id in chunk if user_id not in known
                    }
        return verdicts

    async def load(
        self,
        tx: Transaction,
        *,
        tenant_id: str,
        users: Sequence[tuple[str, bool]],
        now: datetime,
    ) -> None:
        """Puts users, each with whether it is active, into a tenant.

        One that is there already gets the new activity. Of several with one id the last one
        counts.
        """
        rows = list(dict(users).items())
        if not rows:
            return
        create_time = to_micros(now)
        if self._database.dialect == "sqlite":
            values = [(tenant_id, user_id, active, create_time) for user_id, active in rows]
            await tx.connection.exec_driver_sql(_LOAD_SQLITE, values)
            return
        ids, actives = zip(*rows, strict=True)
        await tx.connection.exec_driver_sql(
            _LOAD_POSTGRESQL, (tenant_id, list(ids), list(actives), create_time)
        )

    def _asked(self, user_ids: list[str]) -> dict[str, Any]:
        if self._database.dialect == "sqlite":
            # In the order of the index, its pages are looked at one after the other.
            return {"user_ids": orjson.dumps(sorted(user_ids)).decode()}
        return {"user_ids": user_ids}


def _storable(user_ids: list[str]) -> list[str]:
    if not _UNSTORABLE.search("".join(user_ids)):
        return user_ids
    return [user_id for user_id in user_ids if not _UNSTORABLE.search(user_id)]


def _chunks(user_ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(user_ids), IDS_PER_STATEMENT):
        yield user_ids[start : start + IDS_PER_STATEMENT]


# Most users are valid, and a row that does not come back costs nothing. Other tenants are looked
# at only for those that are not in this one.
_PROBLEM = """
    CASE
        WHEN own.user_id IS NOT NULL THEN 'INACTIVE'
        WHEN EXISTS (SELECT 1 FROM system_users AS other WHERE other.user_id = asked.user_id)
            THEN 'WRONG_TENANT'
        ELSE 'NOT_FOUND'
    END
"""

_EXCEPTIONS_SQLITE = f"""
    SELECT asked.user_id, {_PROBLEM}
    FROM (SELECT value AS user_id FROM json_each(:user_ids)) AS asked
    LEFT JOIN system_users AS own
        ON own.tenant_id = :tenant_id AND own.user_id = asked.user_id
    WHERE own.active IS NOT TRUE
"""

# The users are found first, by the index: joined with all users at once, thousands of ids look to
# PostgreSQL like enough to read the whole table.
_EXCEPTIONS_POSTGRESQL = f"""
    WITH own AS MATERIALIZED (
        SELECT user_id, active FROM system_users
        WHERE tenant_id = :tenant_id AND user_id = ANY(CAST(:user_ids AS text[]))
    )
    SELECT asked.user_id, {_PROBLEM}
    FROM unnest(CAST(:user_ids AS text[])) AS asked (user_id)
    LEFT JOIN own ON own.user_id = asked.user_id
    WHERE own.active IS NOT TRUE
"""

_LOAD_SQLITE = """
    INSERT INTO system_users (tenant_id, user_id, active, create_time) VALUES (?, ?, ?, ?)
    ON CONFLICT (tenant_id, user_id) DO UPDATE SET active = excluded.active
"""

_LOAD_POSTGRESQL = """
    INSERT INTO system_users (tenant_id, user_id, active, create_time)
    SELECT $1, loaded.user_id, loaded.active, $4
    FROM unnest($2::text[], $3::boolean[]) AS loaded (user_id, active)
    ORDER BY loaded.user_id
    ON CONFLICT (tenant_id, user_id) DO UPDATE SET active = excluded.active
"""
