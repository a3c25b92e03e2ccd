"""Opening a database: what is made of it, and what is refused and left alone."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import socket
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from batchwork_server.errors import ConfigurationError, StoreUnavailable
from batchwork_server.store.database import Database, PostgresLimits, open_database
from batchwork_server.store.location import shown
from batchwork_server.store.points import PostgresPoints
from batchwork_server.store.schema import VERSION_TABLE
from batchwork_server.store.tables import metadata, system_users
from sqlalchemy.ext.asyncio import create_async_engine

from tests.postgres import PostgresServer

ADD_USER = sa.insert(system_users).values(
    tenant_id="default", user_id="ann", active=True, create_time=0
)
COUNT_USERS = "SELECT count(*) FROM system_users WHERE tenant_id = ?"


def file_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def contents(folder: Path) -> dict[str, bytes]:
    """Returns every file of a folder but the locks, which only say who looked."""
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(".lock")
    }


async def schema_of(database: Database) -> set[tuple[str, ...]]:
    """Returns what the database itself says of its tables and indexes, without the white space."""
    if database.dialect == "sqlite":
        query = "SELECT name, coalesce(sql, '') FROM sqlite_schema"
    else:
        query = (
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' UNION ALL "
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE connamespace = 'public'::regnamespace UNION ALL "
            "SELECT table_name || '.' || column_name, concat_ws(' ', data_type, is_nullable, "
            "column_default) FROM information_schema.columns WHERE table_schema = 'public'"
        )
    async with database.reading() as connection:
        rows = [tuple(row) for row in await connection.execute(sa.text(query))]
    return {(name, re.sub(r"[\s\"]+", " ", sql)) for name, sql in rows if VERSION_TABLE not in name}


# An index of an expression, which SQLite does not tell of: the next test compares those, too.
@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
@pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based")
async def test_migrations_equal_the_tables(database):
    def differences(connection: sa.Connection) -> list[object]:
        options = {"compare_type": True, "version_table": VERSION_TABLE}
        return list(
            compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        )

    async with database.reading() as connection:
        assert await connection.run_sync(differences) == []


async def test_migrations_write_the_schema_that_the_tables_would(database):
    migrated = await schema_of(database)

    async with database.transaction() as tx:
        await tx.connection.run_sync(metadata.drop_all)
        await tx.connection.run_sync(metadata.create_all)

    assert await schema_of(database) == migrated


async def test_open_again_finds_what_was_written(database_url):
    database = await open_database(database_url)
    async with database.transaction() as tx:
        await tx.connection.execute(ADD_USER)
    await database.close()

    database = await open_database(database_url)
    row = await database.fetch_row(COUNT_USERS, ("default",))
    await database.close()

    assert row == (1,)


async def test_point_query_sees_what_was_committed_and_nothing_else(database):
    async with database.transaction() as tx:
        await tx.connection.execute(ADD_USER)
        assert await database.fetch_row(COUNT_USERS, ("default",)) == (0,)

    assert await database.fetch_row(COUNT_USERS, ("default",)) == (1,)


async def test_point_query_without_a_row_answers_none(database):
    assert await database.fetch_row("SELECT 1 FROM jobs WHERE job_id = ?", ("none",)) is None


async def test_point_query_answers_more_than_is_read_at_once(database):
    long = "x" * (3 * PostgresPoints.READ_SIZE)

    assert await database.fetch_row("SELECT CAST(? AS text)", (long,)) == (long,)


async def test_point_query_on_postgresql_reads_a_row_at_a_time(postgresql_url):
    sizes = []
    receive = socket.socket.recv

    class Watched(socket.socket):
        def recv(self, size: int, *args: int) -> bytes:
            sizes.append(size)
            return receive(self, size, *args)

    database = await open_database(postgresql_url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", Watched)  # what asyncio connects with
        await database.fetch_row("SELECT 1", ())
        sizes.clear()
        await database.fetch_row("SELECT 1", ())
    await database.close()

    assert set(sizes) == {PostgresPoints.READ_SIZE}


async def test_block_that_fails_writes_nothing(database):
    async def fail() -> None:
        async with database.transaction() as tx:
            await tx.connection.execute(ADD_USER)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()

    assert await database.fetch_row(COUNT_USERS, ("default",)) == (0,)


async def test_mistake_in_a_statement_is_not_taken_for_an_absent_database(database):
    async def ask() -> None:
        async with database.reading() as connection:
            await connection.execute(sa.text("SELECT 1 FROM no_such_table"))

    with pytest.raises(sa.exc.DBAPIError):
        await ask()


async def test_own_error_of_a_block_passes_through(database):
    async def read_a_file() -> None:
        async with database.transaction():
            raise FileNotFoundError

    async def add_twice() -> None:
        async with database.transaction() as tx:
            await tx.connection.execute(ADD_USER)
            await tx.connection.execute(ADD_USER)

    with pytest.raises(FileNotFoundError):
        await read_a_file()
    with pytest.raises(sa.exc.IntegrityError):
        await add_twice()


async def test_databases_are_migrated_at_the_same_time(tmp_path, postgres):
    files = [f"sqlite:///{tmp_path / name}" for name in ("a.db", "b.db")]
    url = postgres.create_database("migrated_twice")

    databases = await asyncio.gather(*(open_database(url) for url in [*files, url, url]))

    for database in databases:
        assert await database.fetch_row(COUNT_USERS, ("default",)) == (0,)
        await database.close()
    postgres.drop_database("migrated_twice")


async def test_sqlite_acknowledges_only_what_is_on_disk(sqlite_url):
    database = await open_database(sqlite_url)

    async with database.transaction() as tx:
        journal_mode = (await tx.connection.execute(sa.text("PRAGMA journal_mode"))).scalar_one()
        synchronous = (await tx.connection.execute(sa.text("PRAGMA synchronous"))).scalar_one()
    await database.close()

    assert (journal_mode, synchronous) == ("wal", 2)


async def test_close_leaves_nothing_but_the_file(sqlite_url, tmp_path):
    database = await open_database(sqlite_url)
    await database.ping()

    await database.close()

    assert list(contents(tmp_path)) == ["batchwork.db"]


async def test_second_server_on_a_file_is_refused_with_the_process_of_the_first(
    sqlite_url, tmp_path
):
    database = await open_database(sqlite_url)
    (tmp_path / "alias.db").symlink_to(file_of(sqlite_url))

    for url in (sqlite_url, f"sqlite:///{tmp_path / 'alias.db'}"):
        with pytest.raises(ConfigurationError, match=rf"process {os.getpid()}\)"):
            await open_database(url)

    await database.close()
    reopened = await open_database(sqlite_url)
    await reopened.close()


async def test_what_is_opened_beside_a_server_neither_minds_nor_keeps_anybody_away(sqlite_url):
    server = await open_database(sqlite_url)

    beside = await open_database(sqlite_url, shared=True)
    async with beside.transaction() as tx:
        await tx.connection.execute(ADD_USER)
    seen = await server.fetch_row(COUNT_USERS, ("default",))
    await server.close()
    successor = await open_database(sqlite_url)

    assert seen == (1,)
    await beside.close()
    await successor.close()


def write_garbage(path: Path) -> None:
    path.write_bytes(b"this was never a database" * 1000)


def write_torn_file(path: Path) -> None:
    write_foreign_file(path)
    path.write_bytes(path.read_bytes()[:5000])


def write_foreign_file(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('0001')")
        connection.commit()


def write_foreign_file_with_wal(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE recipes (name TEXT)")
        connection.commit()


def write_newer_schema(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE {VERSION_TABLE} (version_num TEXT)")
        connection.execute(f"INSERT INTO {VERSION_TABLE} VALUES ('9999')")
        connection.execute("CREATE TABLE batches (batch_key INTEGER)")
        connection.commit()


@pytest.mark.parametrize(
    ("write", "message"),
    [
        pytest.param(write_garbage, "not a database", id="garbage"),
        pytest.param(write_torn_file, "not a database that can be used", id="torn"),
        pytest.param(write_foreign_file, "not Batchwork's.*recipes", id="another program's"),
        pytest.param(write_foreign_file_with_wal, "not Batchwork's", id="another program's, WAL"),
        pytest.param(write_newer_schema, "newer than this server.*'9999'", id="newer"),
    ],
)
async def test_file_that_is_not_ours_is_refused_and_left_as_it_is(tmp_path, write, message):
    file = tmp_path / "theirs.db"
    write(file)
    before = contents(tmp_path)

    with pytest.raises(ConfigurationError, match=message) as refusal:
        await open_database(f"sqlite:///{file}")

    assert str(file) in str(refusal.value)
    assert contents(tmp_path) == before


async def test_postgresql_of_somebody_else_is_refused_and_left_as_it_is(postgres):
    url = postgres.create_database("foreign")
    engine = create_async_engine(url.replace("postgresql", "postgresql+asyncpg", 1))
    async with engine.begin() as connection:
        await connection.execute(sa.text("CREATE TABLE recipes (name TEXT)"))

    with pytest.raises(ConfigurationError, match="recipes"):
        await open_database(url)

    async with engine.connect() as connection:
        assert await connection.run_sync(lambda c: sa.inspect(c).get_table_names()) == ["recipes"]
    await engine.dispose()
    postgres.drop_database("foreign")


async def test_postgresql_database_that_is_not_there_is_a_matter_of_configuration(postgres):
    with pytest.raises(ConfigurationError, match="no_such_database"):
        await open_database(postgres.url("no_such_database"))


async def test_postgresql_server_that_is_not_there_is_unavailable(tmp_path):
    with pytest.raises(StoreUnavailable):
        await open_database(f"postgresql://batchwork@/batchwork?host={tmp_path}")


@pytest.mark.parametrize(
    "url",
    ["batchwork.db", "mysql://host/name", "nonsense://host", "sqlite://", "sqlite:///:memory:"],
)
async def test_url_that_is_not_understood_is_refused(url):
    with pytest.raises(ConfigurationError, match="BATCHWORK_DATABASE_URL"):
        await open_database(url)


async def test_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"folder .*nowhere.* does not exist"):
        await open_database(f"sqlite:///{tmp_path / 'nowhere' / 'batchwork.db'}")


async def test_locked_database_is_unavailable_and_works_again_when_it_is_free(sqlite_url):
    database = await open_database(sqlite_url, busy_timeout=timedelta(milliseconds=1))
    with closing(sqlite3.connect(file_of(sqlite_url), isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")

        with pytest.raises(StoreUnavailable, match="locked"):
            async with database.transaction():
                pass
        assert await database.fetch_row(COUNT_USERS, ("default",)) == (0,)

    async with database.transaction() as tx:
        await tx.connection.execute(ADD_USER)
    await database.close()


async def test_postgresql_that_crashed_is_unavailable_until_it_is_back():
    with PostgresServer(fsync=True) as server:
        database = await open_database(server.create_database("batchwork"))
        async with database.transaction() as tx:
            await tx.connection.execute(ADD_USER)

        server.kill()
        with pytest.raises(StoreUnavailable):
            await database.ping()
        with pytest.raises(StoreUnavailable):
            await database.fetch_row(COUNT_USERS, ("default",))
        with pytest.raises(StoreUnavailable):
            async with database.transaction():
                pass

        server.restart()
        assert await database.fetch_row(COUNT_USERS, ("default",)) == (1,)
        await database.close()


async def test_connection_that_breaks_in_a_transaction_is_unavailable():
    with PostgresServer() as server:
        database = await open_database(server.create_database("batchwork"))

        async def write() -> None:
            async with database.transaction() as tx:
                await tx.connection.execute(ADD_USER)
                server.restart()
                await tx.connection.execute(ADD_USER)

        with pytest.raises(StoreUnavailable):
            await write()

        assert await database.fetch_row(COUNT_USERS, ("default",)) == (0,)
        await database.close()


async def test_calls_that_are_cut_off_cost_no_connection(database_url):
    # The story: a caller who left in the middle of a statement cost its connection, and SQLite
    # keeps the descriptor of a closed file while others hold locks on it: they grew without end.
    database = await open_database(database_url)
    count = sa.text(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)"
        " SELECT count(*) FROM n"
    )

    async def read() -> None:
        async with database.reading() as connection:
            await connection.execute(count)

    async def write() -> None:
        async with database.transaction() as tx:
            await tx.connection.execute(count)

    async def cut_off() -> int:
        tasks = [asyncio.create_task(call()) for call in (read, read, read, write)]
        for _ in range(20):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(read(), read(), read(), write())
        return len(list(Path("/proc/self/fd").iterdir()))

    first = await cut_off()
    later = [await cut_off() for _ in range(5)]
    await database.close()

    assert max(later) <= first


async def test_cancellation_wins_over_a_database_that_goes_away_meanwhile(database):
    reading = asyncio.Event()

    async def read() -> None:
        async with database.reading():
            reading.set()
            try:
                await asyncio.Event().wait()
            finally:
                raise ConnectionResetError("the line is cut")

    task = asyncio.create_task(read())
    await reading.wait()
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled(), "a loop that waits for the database would go on for ever"


async def test_connection_that_is_cut_off_while_it_is_made_is_closed(sqlite_url):
    for steps in range(12):
        database = await open_database(sqlite_url)

        async def read(database: Database = database) -> None:
            async with database.reading():
                pass

        task = asyncio.create_task(read())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await database.close()
        gc.collect()  # one that was left open would warn here, and a warning is an error


async def test_a_url_as_relatives_of_libpq_write_it_is_understood(postgresql_url):
    url = postgresql_url.replace("postgresql://", "postgres://") + "&sslmode=disable"

    database = await open_database(url)
    await database.ping()
    await database.close()


_OPEN_CONNECTIONS = """
SELECT COUNT(*) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend'
"""


async def test_no_more_connections_are_opened_than_may_be(postgresql_url):
    limits = PostgresLimits(max_open=8, max_idle=8)
    database = await open_database(postgresql_url, postgres_limits=limits)  # 4 are for short reads
    together = asyncio.Barrier(4)

    async def read() -> None:
        async with database.reading() as connection:
            await together.wait()
            result = await connection.execute(sa.text(_OPEN_CONNECTIONS))
            assert result.scalar_one() == 4
            await together.wait()

    await asyncio.gather(*(read() for _ in range(8)))
    await database.close()


async def test_what_is_durable_is_told_even_if_nobody_waits_for_it_any_more(database):
    told: list[str] = []

    async def write() -> None:
        async with database.transaction() as tx:
            await tx.connection.execute(ADD_USER)
            tx.after_commit.append(lambda: told.append("stored"))
            task.cancel()  # as when a client hangs up: it arrives while the commit is under way

    task = asyncio.create_task(write())
    await asyncio.wait([task])

    assert task.cancelled()
    assert told == ["stored"]
    async with database.reading() as connection:
        assert (await connection.execute(sa.select(system_users))).all()


async def test_what_is_rolled_back_is_not_told(database):
    told: list[str] = []

    async def fail() -> None:
        async with database.transaction() as tx:
            tx.after_commit.append(lambda: told.append("stored"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()

    assert told == []


def test_a_url_is_shown_without_what_nobody_may_see():
    url = sa.make_url("postgresql://u:secret@h:5433/n?password=secret&host=h")

    assert shown(url) == "postgresql://u:***@h:5433/n"
