"""What becomes of a transaction, or of a connection, at whose other end nobody is any more."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import sqlalchemy as sa
from batchwork_server.errors import StoreUnavailable
from batchwork_server.store.database import Database, open_database
from batchwork_server.store.silence import end_stalled

from tests.postgres import ROLE, PostgresServer
from tests.tcp_proxy import TcpProxy

LOCK_ALL = sa.text("LOCK TABLE system_users IN EXCLUSIVE MODE")


async def test_transaction_that_says_nothing_is_ended_and_keeps_no_lock(postgresql_url):
    # A server that was cut off between two statements kept its chunks from its peers until the
    # system noticed, which by default takes two hours.
    silent = await open_database(postgresql_url, silent_after=timedelta(milliseconds=50))
    peer = await open_database(postgresql_url)

    async def hold_the_lock() -> None:
        async with silent.transaction() as tx:
            await tx.connection.execute(LOCK_ALL)
            async with asyncio.timeout(30), peer.transaction() as other:
                await other.connection.execute(LOCK_ALL)  # as soon as the first one is ended
            await tx.connection.execute(LOCK_ALL)

    with pytest.raises(StoreUnavailable):
        await hold_the_lock()

    await silent.ping()
    await silent.close()
    await peer.close()


async def test_postgresql_is_told_to_give_up_on_a_client_that_is_silent(postgresql_url):
    # Between the parts of a statement, or of a COPY, a transaction is not idle, and its locks
    # would stay.
    database = await open_database(postgresql_url, silent_after=timedelta(seconds=8))

    async with database.reading() as connection:
        rows = await connection.execute(
            sa.text("SELECT name, reset_val FROM pg_settings WHERE name LIKE 'tcp%'")
        )
        told = {name: int(value) for name, value in rows}
    await database.close()

    assert told == {
        "tcp_keepalives_idle": 2,
        "tcp_keepalives_interval": 2,
        "tcp_keepalives_count": 3,
        "tcp_user_timeout": 8000,
    }


async def test_connection_to_another_machine_is_given_up_when_that_is_silent(
    postgres: PostgresServer, postgresql_url: str
):
    async with TcpProxy(postgres.socket()) as proxy:
        url = f"postgresql://{ROLE}@127.0.0.1:{proxy.port}{urlsplit(postgresql_url).path}"
        database = await open_database(url, silent_after=timedelta(seconds=8))

        async with database.reading() as connection:
            raw = await connection.get_raw_connection()
            line = raw.driver_connection._transport.get_extra_info("socket")

            assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 8000
            assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 2
        await database.close()


Meanwhile = Callable[[], Awaitable[None]]


async def in_a_statement(driver: Any, meanwhile: Meanwhile) -> None:
    await driver.prepare("SELECT 1")  # PostgreSQL waits for its parameters
    await meanwhile()
    await driver.fetch("SELECT 1")


async def in_a_copy(driver: Any, meanwhile: Meanwhile) -> None:
    async def rows() -> AsyncIterator[tuple[str, str, bool, int]]:
        await meanwhile()
        yield "default", "late", True, 0

    columns = ["tenant_id", "user_id", "active", "create_time"]
    await driver.copy_records_to_table("system_users", records=rows(), columns=columns)


async def end_at_once(peer: Database) -> int:
    async with peer.reading() as connection:
        return await end_stalled(connection, silent_after=timedelta(0))


@pytest.mark.parametrize("stop", [in_a_statement, in_a_copy])
async def test_server_that_is_frozen_in_the_middle_of_a_statement_keeps_no_lock(
    postgresql_url, stop: Callable[[Any, Meanwhile], Awaitable[None]]
):
    # To PostgreSQL such a transaction is active, so no timeout ends it, and the system of a frozen
    # process acknowledges whatever comes: a peer waited for its locks until it woke up.
    frozen = await open_database(postgresql_url)
    peer = await open_database(postgresql_url)

    async def take_the_lock() -> None:
        assert await peer.end_stalled() == 0  # a live server may take a moment
        async with asyncio.timeout(30):
            while not await end_at_once(peer):
                pass  # PostgreSQL tells a moment later that it waits
            async with peer.transaction() as other:
                await other.connection.execute(LOCK_ALL)

    async def hold_the_lock() -> None:
        async with frozen.transaction() as tx:
            await tx.connection.execute(LOCK_ALL)
            raw = await tx.connection.get_raw_connection()
            await stop(raw.driver_connection, take_the_lock)

    with pytest.raises(StoreUnavailable):
        await hold_the_lock()

    async with peer.reading() as connection:
        assert await connection.scalar(sa.text("SELECT count(*) FROM system_users")) == 0
    await frozen.ping()
    await frozen.close()
    await peer.close()


async def test_statement_of_somebody_else_may_take_its_time(postgresql_url):
    peer = await open_database(postgresql_url)
    restoring = await asyncpg.connect(postgresql_url)
    ended = []

    async def look() -> None:
        async with peer.reading() as connection, asyncio.timeout(30):
            waits = sa.text(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = :pid "
                "AND state = 'active' AND wait_event = 'ClientRead'"
            )
            while not await connection.scalar(waits, {"pid": restoring.get_server_pid()}):
                pass
        ended.append(await end_at_once(peer))

    async with restoring.transaction():
        await in_a_copy(restoring, look)

    assert ended == [0]
    await restoring.close()
    await peer.close()
