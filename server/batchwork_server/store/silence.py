"""Notices that the machine at the other end of a connection has gone without a word.

A connection whose peer lost its power, or the way to it, looks like one on which an answer takes
its time. Without this a call that waits for the answer would wait for ever.
"""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import Any

_PROBES = 3


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
