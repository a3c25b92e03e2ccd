"""The shape of every background loop: something to do once, and a ticker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from batchwork_server.clock import Clock
from batchwork_server.logs import get_logger

log = get_logger(__name__)

RESTART_PAUSE = timedelta(seconds=1)
"""How long a loop rests that failed for a reason that nobody foresaw."""


async def tick(
    name: str,
    run_once: Callable[[], Awaitable[object]],
    *,
    interval: timedelta,
    clock: Clock,
    stop: asyncio.Event,
) -> None:
    """Calls ``run_once`` now and after every ``interval`` until ``stop`` is set.

    A call that fails is logged, and the next one comes as if it had not.
    """
    while not stop.is_set():
        try:
            await run_once()
        except Exception:
            log.exception("loop.failed", loop=name)
        await clock.wait(stop, interval)


async def supervise(
    name: str, run: Callable[[], Awaitable[None]], *, clock: Clock, stop: asyncio.Event
) -> None:
    """Calls ``run``, which goes on until ``stop`` is set, again whenever it fails."""
    while not stop.is_set():
        try:
            await run()
        except Exception:
            log.exception("loop.failed", loop=name)
            await clock.wait(stop, RESTART_PAUSE)
