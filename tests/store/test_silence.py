"""What becomes of a transaction, or of a connection, at whose other end nobody is any more."""

from __future__ import annotations

import asyncio
import socket
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa
from batchwork_server.errors import StoreUnavailable
from batchwork_server.store.database import open_database

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
