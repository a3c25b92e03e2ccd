"""SQLite databases with our schema for tests: copies of one, which are quicker than migrating."""

from __future__ import annotations

import asyncio
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from batchwork_server.store.database import open_database


def create_database(path: Path) -> str:
    """Creates an empty database with our schema, and returns its URL."""
    path.write_bytes(_empty_database())
    return _url(path)


@cache
def _empty_database() -> bytes:
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as threads:
        path = Path(folder) / "empty.db"
        # In a thread, which has no loop yet: whoever is the first to ask may have one.
        threads.submit(asyncio.run, _migrate(path)).result()
        return path.read_bytes()


async def _migrate(path: Path) -> None:
    database = await open_database(_url(path))
    await database.close()


def _url(path: Path) -> str:
    return f"sqlite:///{path}"
