"""The shape of every background loop: something to do once, and a ticker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from batchwork_server.clock import Clock
from batchwork_server.logs import get_logger

log = get_logger(__name__)


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
