"""A look at a database from outside, such as that of a server which runs."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Collection
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa

from batchwork_server.errors import ConfigurationError
from batchwork_server.store.database import (
    SILENT_AFTER,
    StoreErrors,
    connected,
    is_refusal,
    postgresql_engine,
    unusable,
)
from batchwork_server.store.location import database_file, look_into, parse_url, shown
from batchwork_server.store.schema import newest_revision, refuse_strangers, tables_and_revision

Look = tuple[Collection[str], str | None]
"""The tables of a database, and the revision of its schema."""

_HOW_TO_MIGRATE = "`batchwork-server migrate` or the start of a server brings it up to date."


async def inspect_database(url: str, *, connect_timeout: timedelta = timedelta(seconds=30)) -> str:
    """Looks whether a database answers and has the schema of this code; changes nothing.

    It waits for no lock of a server and takes none that a server would wait for.

    Returns:
        The revision of the schema.

    Raises:
        ConfigurationError: it is not there, not ours, or its schema is older or newer.
        StoreUnavailable: it does not answer.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        path = database_file(parsed)
        name = str(path)
        look = await asyncio.to_thread(_look_into_file, path)
    else:
        name = shown(parsed)
        look = await _look_into_server(parsed, connect_timeout=connect_timeout)
    tables, revision = look
    refuse_strangers(tables, revision, name=name)
    if revision is None:
        raise ConfigurationError(f"{name} is empty; {_HOW_TO_MIGRATE}")
    if revision != newest_revision():
        raise ConfigurationError(
            f"{name} has the schema {revision!r}, and this release wants "
            f"{newest_revision()!r}; {_HOW_TO_MIGRATE}"
        )
    return revision


def _look_into_file(path: Path) -> Look:
    if not path.exists():
        raise ConfigurationError(
            f"There is no database file {path}; `batchwork-server migrate` or the start of a "
            "server makes it."
        )
    try:
        with StoreErrors(None):
            return look_into(path)
    except sqlite3.DatabaseError as error:
        raise unusable(str(path), error) from error


async def _look_into_server(url: sa.URL, *, connect_timeout: timedelta) -> Look:
    engine = postgresql_engine(
        url,
        silent_after=SILENT_AFTER,
        connect_timeout=connect_timeout,
        pool_size=1,
        max_overflow=0,
    )
    try:
        async with connected(engine) as connection:
            return await connection.run_sync(tables_and_revision)
    except BaseException as error:
        if is_refusal(error):
            raise unusable(shown(url), error) from error
        raise
    finally:
        await engine.dispose()
