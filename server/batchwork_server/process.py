"""How the process of a server is set up for its work: memory and the interpreter."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import sys
from collections.abc import Coroutine
from typing import Any

_M_MMAP_THRESHOLD = -3  # of malloc.h
_M_ARENA_MAX = -8

_LAST_GRACE = 5.0  # seconds in which tasks that were cancelled at the very end have to end

# Blocks from here on come straight from the system, those included that asyncio reads sockets into:
# on the heap each tears a hole of that size, and a server on PostgreSQL grew without end.
_LARGE = 256 * 1024  # bytes
_HAND_OVER = 0.0005  # seconds


def prepare_process() -> None:
    """Prepares a process that is to serve. What was made before is to live as long as it does."""
    _spare_the_garbage_collector()
    _hand_over_quickly()
    _give_memory_back()


def _spare_the_garbage_collector() -> None:
    """Makes Python look for cycles seldom, and never again among what lives as long as the server.

    Items come and go by the thousand and leave no cycles; at the usual thresholds the search for
    them takes a quarter of the time of a batch.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)


def _hand_over_quickly() -> None:
    """Makes a thread wait shorter for the interpreter.

    The threads that talk to SQLite need it for microseconds after each statement. A busy event
    loop would keep each of them waiting for 5 ms, ten times as long as an fsync.
    """
    sys.setswitchinterval(_HAND_OVER)


def _give_memory_back() -> None:
    """Makes the C library keep less of what it was given back, where it is the one of GNU.

    Every thread would get an arena of its own, and after one large request the limit above which
    memory goes straight back to the system would have grown with it. What the imports needed for a
    moment, some 5 MiB, goes back at once.
    """
    try:
        library = ctypes.CDLL(None)
        mallopt, malloc_trim = library.mallopt, library.malloc_trim
    except (OSError, AttributeError):
        return  # another C library
    mallopt(_M_ARENA_MAX, 2)
    mallopt(_M_MMAP_THRESHOLD, _LARGE)
    malloc_trim(0)


def run_to_its_end(main: Coroutine[Any, Any, int | None]) -> int:
    """Runs ``main`` like ``asyncio.run``, but waits for what it leaves behind only so long.

    A processor that swallows its cancellation was given up with its worker; its task must not
    keep the process from ending either.

    Returns:
        The exit code that ``main`` returned; none means 0.
    """
    code = 1  # of a process that fails
    loop = asyncio.new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        code = loop.run_until_complete(main) or 0
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            _, left = loop.run_until_complete(asyncio.wait(left, timeout=_LAST_GRACE))
        if left:
            _leave_at_once(code)
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()
    return code


def _leave_at_once(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
