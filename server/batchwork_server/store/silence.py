"""Notices that the other end of a connection has gone without a word.

A connection whose peer lost its power, or the way to it, looks like one on which an answer takes
its time. Without this a call that waits for the answer would wait for ever, and so would everybody
who waits for a lock of a transaction that nobody goes on with.
"""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from batchwork_server.store.statements import run

APPLICATION_NAME = "batchwork-server"
"""By which PostgreSQL knows our connections among those of others."""

_PROBES = 3

# A client that is frozen in the middle of a statement, or of a COPY, owes the next part of it.
# PostgreSQL calls that active, so no timeout of an idle transaction ends it, and the system of the
# client still acknowledges every probe.
_END_STALLED = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND application_name = ?
  AND state = 'active' AND wait_event = 'ClientRead'
  AND clock_timestamp() - state_change > ? AND pid <> pg_backend_pid()
"""


async def end_stalled(connection: AsyncConnection, *, silent_after: timedelta) -> int:
    """Ends connections of ours to PostgreSQL whose server owes the rest of a statement too long.

    Nothing is lost by it: the transaction is rolled back, and the server that held it, should it
    wake up, sees a connection that broke.

    Returns:
        How many there were.
    """
    rows = await run(connection, _END_STALLED, (APPLICATION_NAME, silent_after))
    return int(rows[0][0])


def give_up_on_silence(connection: Any, *, silent_after: timedelta) -> None:
    """Makes the system end a connection of asyncpg whose peer acknowledges nothing any more.

    A server that is slow to answer is no silence: its system acknowledges at once. A connection
    over a unix socket cannot be silent.
    """
    transport = getattr(connection, "_transport", None)  # asyncpg has no setting for it
    line = None if transport is None else transport.get_extra_info("socket")
    if line is None or line.family == socket.AF_UNIX:
        return
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _options(silent_after).items():
        if hasattr(socket, name):  # which ones there are depends on the system
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def keepalive_of_postgresql(silent_after: timedelta) -> dict[str, int]:
    """Returns the settings by which PostgreSQL in its turn ends a connection to a silent client.

    It ignores them over a unix socket.
    """
    options = _options(silent_after)
    return {
        "tcp_keepalives_idle": options["TCP_KEEPIDLE"],
        "tcp_keepalives_interval": options["TCP_KEEPINTVL"],
        "tcp_keepalives_count": options["TCP_KEEPCNT"],
        "tcp_user_timeout": options["TCP_USER_TIMEOUT"],
    }


def _options(silent_after: timedelta) -> dict[str, int]:
    seconds = silent_after.total_seconds()
    pause = max(1, round(seconds / (_PROBES + 1)))
    return {
        "TCP_KEEPIDLE": pause,
        "TCP_KEEPINTVL": pause,
        "TCP_KEEPCNT": _PROBES,
        "TCP_USER_TIMEOUT": max(1, round(seconds * 1000)),
    }
