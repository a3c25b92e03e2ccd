"""Users in a table of another database, which is only read."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from batchwork_server.domain.user import UserVerdict
from batchwork_server.errors import ConfigurationError, SourceUnavailable

NAME = "users database"
URL_SETTING = "BATCHWORK_USERS_DATABASE_URL"

IDS_PER_STATEMENT = 10_000

CONNECT_TIMEOUT = timedelta(seconds=10)
STATEMENT_TIMEOUT = timedelta(seconds=30)
_CONNECTIONS = 3
"""So many at once; who finds none that is free waits until one is, however long that takes: it says
nothing about the database, and each question takes its time at most."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_WHOLE = re.compile("0|-?[1-9][0-9]{0,18}")
_PARAMETERS = {"host", "port", "ssl"}
_WORDS_FOR_ACTIVE = ("active", "true", "t", "yes", "y", "1")

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class UsersTable:
    """Where users stand. Names are quoted, never pasted.

    Attributes:
        name: Perhaps with its schema before a dot.
        tenant_column: Empty when there are no tenants: every user belongs to each.
        active_column: Empty when every user is active.
    """

    name: str = "system_users"
    id_column: str = "user_id"
    tenant_column: str = ""
    active_column: str = ""

    @property
    def columns(self) -> Mapping[str, str]:
        """The columns that must be there, with the settings that name them."""
        named = {
            "BATCHWORK_USERS_ID_COLUMN": self.id_column,
            "BATCHWORK_USERS_TENANT_COLUMN": self.tenant_column,
            "BATCHWORK_USERS_ACTIVE_COLUMN": self.active_column,
        }
        return {column: setting for setting, column in named.items() if column}


class UsersDatabase:
    """Implements ``OutsideUsers`` with a table of PostgreSQL or SQLite.

    Ids are compared as text, whatever the type of their column is. Nothing is asked before it is
    needed, so that a database that is away keeps no server from starting.

    Args:
        url: Of the database, with the driver that it is read with.
        table: Where the users stand.
    """

    def __init__(self, url: sa.URL, table: UsersTable) -> None:
        self._table = table
        shown = url.set(query={}).render_as_string(hide_password=True)  # or a parameter shows it
        self._where = f"{shown}, table {table.name}"
        self._engine = _engine(url)
        self._free = asyncio.Semaphore(_CONNECTIONS)
        self._lookup: _Lookup | None = None

    async def ping(self) -> None:
        """Looks whether the database answers, and has the table and its columns.

        Raises:
            SourceUnavailable: it does not answer.
            ConfigurationError: the table or a column is not there.
        """
        self._lookup = None
        await self._ask(self._known_lookup)

    async def verdicts(
        self, user_ids: Sequence[str], *, tenant_id: str
    ) -> Mapping[str, UserVerdict]:
        distinct = list(dict.fromkeys(user_ids))
        verdicts = dict.fromkeys(distinct, UserVerdict.VALID)
        for start in range(0, len(distinct), IDS_PER_STATEMENT):
            some = distinct[start : start + IDS_PER_STATEMENT]
            verdicts |= await self._exceptions(some, tenant_id=tenant_id)
        return verdicts

    async def close(self) -> None:
        """Ends the connections."""
        if isinstance(self._engine, AsyncEngine):
            await self._engine.dispose()
        else:
            await asyncio.to_thread(self._engine.dispose)

    async def _exceptions(self, user_ids: list[str], *, tenant_id: str) -> dict[str, UserVerdict]:
        def ask(connection: sa.Connection) -> dict[str, UserVerdict]:
            return self._known_lookup(connection).exceptions(
                connection, user_ids, tenant_id=tenant_id
            )

        try:
            return await self._ask(ask)
        except ConfigurationError as error:  # it was there, or the database was away at the start
            raise SourceUnavailable(f"Error reading {NAME}: {error.message}") from error

    def _known_lookup(self, connection: sa.Connection) -> _Lookup:
        if self._lookup is None:
            self._lookup = _Lookup(
                connection.dialect, self._table, _types(connection, self._table, self._where)
            )
        return self._lookup

    async def _ask(self, ask: Callable[[sa.Connection], _Answer]) -> _Answer:
        try:
            async with self._free:
                if isinstance(self._engine, AsyncEngine):
                    async with self._engine.connect() as connection:
                        return await connection.run_sync(ask)
                return await asyncio.to_thread(self._ask_here, self._engine, ask)
        except (sa.exc.SQLAlchemyError, OSError, TimeoutError) as error:
            # A table that was altered meanwhile is looked at anew.
            self._lookup = None
            raise SourceUnavailable(
                f"Error connecting to {NAME} ({self._where}): {_first_line(error)}. Check that it "
                f"runs, that this machine reaches it, and {URL_SETTING}."
            ) from error

    @staticmethod
    def _ask_here(engine: sa.Engine, ask: Callable[[sa.Connection], _Answer]) -> _Answer:
        with engine.connect() as connection:
            return ask(connection)


def _engine(url: sa.URL) -> AsyncEngine | sa.Engine:
    """Returns connections that cannot change anything.

    Raises:
        ConfigurationError: the URL has parameters that nothing would read, or the driver is not
            installed.
    """
    if unknown := sorted(url.query.keys() - _PARAMETERS):
        raise ConfigurationError(
            f"{URL_SETTING} has parameters that are not known: {', '.join(unknown)}. Leave them "
            f"out; there is {', '.join(sorted(_PARAMETERS))}."
        )
    pool: dict[str, Any] = {
        "pool_size": _CONNECTIONS,
        # They are counted before: the pool must have nobody wait, as it would call that a failure.
        "max_overflow": -1,
        "pool_pre_ping": True,
        "hide_parameters": True,
    }
    if url.get_backend_name() == "sqlite":
        # In threads of its own, whose statements run to their end whatever becomes of the caller.
        read_only = sa.URL.create(
            "sqlite",
            database=f"file:{quote(url.database or '')}",
            query={"mode": "ro", "uri": "true"},
        )
        seconds = STATEMENT_TIMEOUT.total_seconds()
        return sa.create_engine(read_only, connect_args={"timeout": seconds}, **pool)
    try:
        return create_async_engine(
            url,
            isolation_level="AUTOCOMMIT",
            connect_args={
                "timeout": CONNECT_TIMEOUT.total_seconds(),
                "command_timeout": STATEMENT_TIMEOUT.total_seconds(),
                "server_settings": {
                    "application_name": "batchwork-users",
                    "default_transaction_read_only": "on",
                    "statement_timeout": str(STATEMENT_TIMEOUT // timedelta(milliseconds=1)),
                },
            },
            **pool,
        )
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{URL_SETTING} needs a driver that is not installed; install "
            "batchwork[server,postgres]."
        ) from error


def _types(
    connection: sa.Connection, table: UsersTable, where: str
) -> Mapping[str, sa.types.TypeEngine[Any]]:
    """Returns the types of the columns of the table.

    Raises:
        ConfigurationError: the table or a column is not there; it says which there are.
    """
    schema, _, name = table.name.rpartition(".")
    try:
        found = sa.inspect(connection).get_columns(name, schema=schema or None)
    except sa.exc.NoSuchTableError:
        found = []
    if not found:
        raise ConfigurationError(
            f"BATCHWORK_USERS_TABLE: there is no table {table.name!r} in {where}, or this user of "
            "the database may not see it."
        )
    types = {column["name"]: column["type"] for column in found}
    missing = [
        f"{setting}: {where} has no column {column!r}; there is {', '.join(sorted(types))}."
        for column, setting in table.columns.items()
        if column not in types
    ]
    if missing:
        raise ConfigurationError("\n".join(missing))
    return types


class _Lookup:
    """The statement that finds who is not valid, in one table as it is."""

    def __init__(
        self, dialect: sa.Dialect, table: UsersTable, types: Mapping[str, sa.types.TypeEngine[Any]]
    ) -> None:
        self._is_sqlite = dialect.name == "sqlite"
        self._id_type = types[table.id_column]
        quoted = dialect.identifier_preparer.quote_identifier
        is_active = "TRUE"
        if table.active_column:
            is_active = _is_active(quoted(table.active_column), types[table.active_column])
        is_own = "TRUE"
        if table.tenant_column:
            is_own = f"CAST({quoted(table.tenant_column)} AS TEXT) = :tenant_id"
        template = _SQLITE if self._is_sqlite else _POSTGRESQL
        self._statement = sa.text(
            template.format(
                table=".".join(quoted(part) for part in table.name.split(".")),
                id=quoted(table.id_column),
                is_asked=_is_asked(quoted(table.id_column), self._id_type),
                rank=_RANK.format(is_own=is_own, is_active=is_active),
            )
        )

    def exceptions(
        self, connection: sa.Connection, user_ids: Sequence[str], *, tenant_id: str
    ) -> dict[str, UserVerdict]:
        """Returns the verdict on each id that is not valid."""
        possible = self._possible(user_ids)
        told = dict.fromkeys(set(user_ids).difference(possible), UserVerdict.NOT_FOUND)
        if possible:
            asked = {"user_ids": self._asked(possible)}
            if ":tenant_id" in self._statement.text:
                asked["tenant_id"] = tenant_id
            for user_id, rank in connection.execute(self._statement, asked):
                told[user_id] = _VERDICTS[rank]
        return told

    def _possible(self, user_ids: Sequence[str]) -> list[str]:
        """Returns the ids that the column can hold, as it would write them."""
        possible = [user_id for user_id in user_ids if not _UNSTORABLE.search(user_id)]
        if self._is_sqlite:
            return sorted(possible)  # the order of the index, whose pages then come once
        if isinstance(self._id_type, sa.Integer):
            return [user_id for user_id in possible if _is_whole(user_id)]
        if isinstance(self._id_type, sa.Uuid):
            return [user_id for user_id in possible if _is_uuid(user_id)]
        return possible

    def _asked(self, user_ids: list[str]) -> Any:
        return json.dumps(user_ids) if self._is_sqlite else user_ids


# What the users with one id come to: the best of them counts.
_RANK = "max(CASE WHEN {is_own} THEN CASE WHEN {is_active} THEN 3 ELSE 2 END ELSE 1 END)"

_VERDICTS = {
    1: UserVerdict.WRONG_TENANT,
    2: UserVerdict.INACTIVE,
    None: UserVerdict.NOT_FOUND,
}

_SQLITE = """
    WITH asked AS (SELECT value AS user_id FROM json_each(:user_ids)),
    found AS MATERIALIZED (
        SELECT CAST({id} AS TEXT) AS user_id, {rank} AS rank FROM {table}
        WHERE {id} IN (SELECT user_id FROM asked)
        GROUP BY 1
    )
    SELECT asked.user_id, found.rank
    FROM asked LEFT JOIN found ON found.user_id = asked.user_id
    WHERE found.rank IS NULL OR found.rank < 3
"""

# The users are found first, by the index: joined with all users at once, thousands of ids look to
# PostgreSQL like enough to read the whole table.
_POSTGRESQL = """
    WITH found AS MATERIALIZED (
        SELECT CAST({id} AS text) AS user_id, {rank} AS rank FROM {table}
        WHERE {is_asked}
        GROUP BY 1
    )
    SELECT asked.user_id, found.rank
    FROM unnest(CAST(:user_ids AS text[])) AS asked (user_id)
    LEFT JOIN found ON found.user_id = asked.user_id
    WHERE found.rank IS NULL OR found.rank < 3
"""


def _is_asked(column: str, kind: sa.types.TypeEngine[Any]) -> str:
    """Returns the condition of PostgreSQL for which an index on the column is of use."""
    ids = "CAST(:user_ids AS text[])"
    if isinstance(kind, sa.Integer):
        return f"{column} = ANY(CAST({ids} AS bigint[]))"
    if isinstance(kind, sa.Uuid):
        return f"{column} = ANY(CAST({ids} AS uuid[]))"
    if isinstance(kind, sa.String) and not isinstance(kind, sa.Enum):
        return f"{column} = ANY({ids})"
    return f"CAST({column} AS text) = ANY({ids})"


def _is_active(column: str, kind: sa.types.TypeEngine[Any]) -> str:
    if isinstance(kind, sa.Boolean):
        return f"{column} IS TRUE"
    if isinstance(kind, sa.Integer | sa.Numeric):
        return f"{column} <> 0"
    words = ", ".join(f"'{word}'" for word in _WORDS_FOR_ACTIVE)
    return f"lower(CAST({column} AS TEXT)) IN ({words})"


def _is_whole(user_id: str) -> bool:
    return bool(_WHOLE.fullmatch(user_id)) and -(2**63) <= int(user_id) < 2**63


def _is_uuid(user_id: str) -> bool:
    try:
        return str(UUID(user_id)) == user_id
    except ValueError:
        return False


def _first_line(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    return (str(cause).splitlines() or [type(cause).__name__])[0][:300] or type(cause).__name__
