"""Keeps libraries that make connections of their own away from addresses that are not public.

Python tells hooks of each connection before it is made, in the thread that makes it, and one that
raises prevents it (https://docs.python.org/3/library/audit_events.html). What a hook is told is the
address itself: whatever a name meant a moment ago, and whoever looked it up, nothing else is
reached. A hook stays for as long as the process, so there is one, and none before it is needed.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from ipaddress import ip_address
from typing import Any

from batchwork_server.adapters.destinations import is_public

_EVENTS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})

_thread = threading.local()


class AddressRefused(OSError):
    """A connection that was not made; what makes connections is prepared for such errors."""


@contextmanager
def only_public_addresses() -> Iterator[list[str]]:
    """Lets this thread connect to public addresses only, until the block ends.

    Yields:
        The addresses that it was kept from, in order.
    """
    _listen()
    refused: list[str] = []
    _thread.refused = refused
    try:
        yield refused
    finally:
        del _thread.refused


@cache
def _listen() -> None:
    sys.addaudithook(_on_event)


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _EVENTS:  # nearly all, and there are many
        return
    refused: list[str] | None = getattr(_thread, "refused", None)
    if refused is None:
        return
    address = arguments[1]
    if isinstance(address, tuple) and not _may_be_reached(str(address[0])):
        refused.append(str(address[0]))
        raise AddressRefused(f"{address[0]} is not a public address.")


def _may_be_reached(host: str) -> bool:
    try:
        return is_public(ip_address(host.partition("%")[0]))
    except ValueError:
        return False  # a name, which the system would look up after this
