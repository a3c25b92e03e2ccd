"""The shape of every background loop: something to do once, and a ticker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from batchwork_server.clock import Clock
from batchwork_server.errors import Unavailable
from batchwork_server.logs import WaitingLog, get_logger

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
    wake: asyncio.Event | None = None,
) -> None:
    """Calls ``run_once`` now and after every ``interval`` until ``stop`` is set.

    A call that fails is logged, and the next one comes as if it had not. While what it needs is
    away, that is told now and then, not at every call.

    Args:
        wake: Asks for a call before the interval is over. Such a loop ends by cancellation.
    """
    waiting = WaitingLog(log, "loop", monotonic=clock.monotonic, loop=name)
    while not stop.is_set():
        if wake is not None:
            wake.clear()
        try:
            await run_once()
        except Unavailable as error:
            waiting.waits(error.reason, error.message)
        except Exception:
            log.exception("loop.failed", loop=name)
        else:
            waiting.goes_on()
        await clock.wait(wake or stop, interval)


async def supervise(
    name: str, run: Callable[[], Awaitable[None]], *, clock: Clock, stop: asyncio.Event
) -> None:
    """Calls ``run`` again whenever it fails, until it returns or ``stop`` is set."""
    while not stop.is_set():
        try:
            await run()
            return
        except Exception:
            log.exception("loop.failed", loop=name)
            await clock.wait(stop, RESTART_PAUSE)
