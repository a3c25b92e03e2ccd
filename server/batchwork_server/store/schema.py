"""Which schema a database has, and how it gets the one of this code."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from pathlib import Path

import sqlalchemy as sa

from batchwork_server.errors import ConfigurationError

VERSION_TABLE = "batchwork_schema"
"""Holds the revision of the schema; by this table we know a database of ours."""

_MIGRATIONS = Path(__file__).parent / "migrations"


@cache
def _revisions() -> list[str]:
    """Returns the revisions that this code knows, oldest first; files are named after them."""
    return sorted(path.name.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("0*.py"))


def newest_revision() -> str:
    """Returns the revision that this code works with."""
    return _revisions()[-1]


def tables_and_revision(connection: sa.Connection) -> tuple[list[str], str | None]:
    """Returns the tables of a database, and the revision of its schema if it is ours."""
    tables = sa.inspect(connection).get_table_names()
    if VERSION_TABLE not in tables:
        return tables, None
    version_num = sa.table(VERSION_TABLE, sa.column("version_num"))
    return tables, connection.execute(sa.select(version_num)).scalar_one_or_none()


def needs_upgrade(connection: sa.Connection, name: str) -> bool:
    """Tells whether the schema is older than this code.

    Raises:
        ConfigurationError: the database is not ours, or newer.
    """
    tables, revision = tables_and_revision(connection)
    refuse_strangers(tables, revision, name=name)
    return revision != newest_revision()


def refuse_strangers(tables: Collection[str], revision: str | None, *, name: str) -> None:
    """Raises when the tables, or their revision, are not of this code or of an older one."""
    strangers = sorted(set(tables) - {VERSION_TABLE})
    if revision is None and strangers:
        raise ConfigurationError(
            f"{name} holds tables that are not Batchwork's ({', '.join(strangers[:3])}); it was "
            "left as it is. Name another database with BATCHWORK_DATABASE_URL."
        )
    if revision is not None and revision not in _revisions():
        raise ConfigurationError(
            f"{name} is newer than this server: its schema is {revision!r}. It was left as it is; "
            "start the version that wrote it, or a newer one."
        )


def upgrade(connection: sa.Connection) -> None:
    """Brings the schema up to date, in the transaction that is open."""
    # Only here: a server whose schema is up to date does not need the memory.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["version_table"] = VERSION_TABLE
    command.upgrade(config, "head")
