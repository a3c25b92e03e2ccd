"""The database of a process, opened as the settings say, whatever the process does with it."""

from __future__ import annotations

from batchwork_server.config import Settings
from batchwork_server.store.database import Database, PostgresLimits, open_database
from batchwork_server.store.disk import BALLAST_BYTES, DiskLimits


async def open_database_of(settings: Settings) -> Database:
    """Returns the database with its schema up to date.

    Raises:
        ConfigurationError: it is not ours, it is newer, or another server has its file.
        StoreUnavailable: it does not answer.
    """
    return await open_database(
        settings.database.reveal(),
        synchronous=settings.sqlite_synchronous,
        disk_limits=DiskLimits(min_free_bytes=settings.min_free_bytes, ballast_bytes=BALLAST_BYTES),
        silent_after=settings.lease,
        postgres_limits=PostgresLimits(
            connect_timeout=settings.connect_timeout,
            max_open=settings.max_open_connections,
            max_idle=settings.max_idle_connections,
        ),
    )
