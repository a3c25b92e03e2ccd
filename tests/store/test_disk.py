"""What happens to a SQLite database on a disk that is full, or nearly so."""

from __future__ import annotations

import os
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from batchwork_server.errors import StorageFull
from batchwork_server.store.database import Database, open_database
from batchwork_server.store.disk import DiskLimits
from batchwork_server.store.tables import system_users

COUNT_USERS = "SELECT count(*) FROM system_users WHERE tenant_id = ?"
BALLAST_BYTES = 1024 * 1024
LIMITS = DiskLimits(ballast_bytes=BALLAST_BYTES)


@pytest.fixture
def ballast(tmp_path: Path) -> Path:
    return tmp_path / "batchwork.db.ballast"


async def add_users(database: Database, tenant_id: str, count: int) -> None:
    async with database.transaction() as tx:
        await tx.connection.execute(
            sa.insert(system_users),
            [
                {"tenant_id": tenant_id, "user_id": f"{n:0500}", "active": True, "create_time": 0}
                for n in range(count)
            ],
        )


async def count_users(database: Database, tenant_id: str) -> int:
    row = await database.fetch_row(COUNT_USERS, (tenant_id,))
    assert row is not None
    return int(row[0])


async def fill(database: Database) -> None:
    """Lets the file grow no more, as on a disk that is full."""
    async with database.transaction() as tx:
        await tx.connection.execute(sa.text("PRAGMA max_page_count = 1"))


@contextmanager
def file_size_limit(most_bytes: int) -> Iterator[None]:
    """Makes every write of this process fail that goes beyond such a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_write_on_a_full_disk_says_so_and_the_next_one_works_when_there_is_space(sqlite_url):
    database = await open_database(sqlite_url)
    await fill(database)

    with pytest.raises(StorageFull, match="full"):
        await add_users(database, "t", 1000)
    assert await count_users(database, "t") == 0

    async with database.transaction() as tx:
        await tx.connection.execute(sa.text("PRAGMA max_page_count = 1000000"))
    await add_users(database, "t", 1000)
    assert await count_users(database, "t") == 1000
    await database.close()


async def test_file_that_may_not_grow_is_as_full_as_a_disk(sqlite_url, tmp_path):
    # SQLite only says "disk I/O error" of a quota or a limit that is reached.
    database = await open_database(sqlite_url)
    await add_users(database, "t", 1000)

    with file_size_limit(64 * 1024), pytest.raises(StorageFull, match="disk I/O error"):
        await add_users(database, "u", 2000)

    assert await count_users(database, "u") == 0
    await add_users(database, "u", 10)
    assert await count_users(database, "u") == 10
    assert not list(tmp_path.glob("*.probe"))
    await database.close()


async def test_work_is_refused_while_little_is_free_and_outcomes_are_not(sqlite_url):
    database = await open_database(sqlite_url, disk_limits=DiskLimits(min_free_bytes=2**62))

    with pytest.raises(StorageFull, match=str(2**62)):
        database.refuse_when_full()

    await add_users(database, "t", 1)
    assert await count_users(database, "t") == 1
    await database.close()


@pytest.mark.parametrize("min_free_bytes", [pytest.param(0, id="off"), pytest.param(1, id="low")])
async def test_work_is_accepted_while_enough_is_free(sqlite_url, min_free_bytes):
    limits = DiskLimits(min_free_bytes=min_free_bytes)
    database = await open_database(sqlite_url, disk_limits=limits)

    database.refuse_when_full()

    await database.close()


async def test_ballast_has_its_blocks_and_outlives_the_server(sqlite_url, ballast):
    database = await open_database(sqlite_url, disk_limits=LIMITS)
    await database.close()

    found = ballast.stat()
    assert found.st_size == BALLAST_BYTES
    assert found.st_blocks * 512 >= BALLAST_BYTES


async def test_ballast_with_holes_is_made_anew(sqlite_url, ballast):
    with ballast.open("wb") as file:
        file.truncate(BALLAST_BYTES)

    database = await open_database(sqlite_url, disk_limits=LIMITS)

    assert ballast.stat().st_blocks * 512 >= BALLAST_BYTES
    await database.close()


async def test_ballast_is_dropped_for_a_block_and_put_back_when_it_fails(sqlite_url, ballast):
    database = await open_database(sqlite_url, disk_limits=LIMITS)

    async def purge() -> None:
        async with database.ballast_dropped():
            assert not ballast.exists()
            raise StorageFull("full")

    with pytest.raises(StorageFull):
        await purge()

    assert ballast.stat().st_size == BALLAST_BYTES
    await database.close()


async def test_log_gives_its_space_back_before_the_ballast_takes_it(sqlite_url, tmp_path):
    database = await open_database(sqlite_url, disk_limits=LIMITS)

    async with database.ballast_dropped():
        await add_users(database, "t", 1000)
        assert (tmp_path / "batchwork.db-wal").stat().st_size > 0

    assert (tmp_path / "batchwork.db-wal").stat().st_size == 0
    assert await count_users(database, "t") == 1000
    await add_users(database, "u", 1)
    await database.close()


async def test_space_that_a_purge_won_is_for_the_work_before_it_is_for_the_ballast(
    sqlite_url, ballast, monkeypatch
):
    # On a disk that stayed full the ballast took its space back, and a database with room in its
    # file could record nothing, because its log had none.
    database = await open_database(sqlite_url, disk_limits=LIMITS)
    free = SimpleNamespace(f_bavail=2 * BALLAST_BYTES - 1, f_frsize=1)
    monkeypatch.setattr(os, "statvfs", lambda _: free)

    async with database.ballast_dropped():
        pass
    assert not ballast.exists()

    free.f_bavail += 1
    async with database.ballast_dropped():
        pass
    assert ballast.exists()
    await database.close()


async def test_without_space_for_the_ballast_the_server_does_without(sqlite_url, ballast):
    with file_size_limit(BALLAST_BYTES - 1):
        database = await open_database(sqlite_url, disk_limits=LIMITS)
    assert not ballast.exists()

    async with database.ballast_dropped():
        pass

    assert ballast.stat().st_size == BALLAST_BYTES
    await database.close()


async def test_server_starts_on_a_full_disk_at_the_cost_of_the_ballast(
    sqlite_url, ballast, monkeypatch
):
    await (await open_database(sqlite_url, disk_limits=LIMITS)).close()
    connect = sqlite3.connect

    def connect_with_space(*arguments: Any, **options: Any) -> Any:
        if ballast.exists():
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return connect(*arguments, **options)

    monkeypatch.setattr(sqlite3, "connect", connect_with_space)

    database = await open_database(sqlite_url, disk_limits=LIMITS)

    assert not ballast.exists()
    await database.close()


async def test_postgresql_has_neither_watermark_nor_ballast(postgresql_url):
    limits = DiskLimits(min_free_bytes=2**62, ballast_bytes=BALLAST_BYTES)
    database = await open_database(postgresql_url, disk_limits=limits)

    database.refuse_when_full()
    async with database.ballast_dropped():
        await add_users(database, "t", 1)

    assert await count_users(database, "t") == 1
    await database.close()


async def test_full_disk_of_postgresql_is_no_space_either(postgresql_url):
    database = await open_database(postgresql_url)

    async def write() -> None:
        async with database.transaction() as tx:
            await tx.connection.execute(
                sa.text(
                    "DO $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END $$"
                )
            )

    with pytest.raises(StorageFull, match="no space left"):
        await write()
    await database.close()
