"""Items that only wait: what arithmetic allows, and what asyncio makes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator


def ideal_rate(*, in_flight: int, wait: float) -> float:
    """Returns items per second when nothing but the waiting takes time."""
    return in_flight / wait


async def asyncio_rate(*, items: int, in_flight: int, wait: float) -> float:
    """Returns items per second of workers on one iterator that keep nothing."""
    waiting = iter(range(items))
    begin = time.perf_counter()
    async with asyncio.TaskGroup() as workers:
        for _ in range(in_flight):
            workers.create_task(_work(waiting, wait))
    return items / (time.perf_counter() - begin)


async def _work(waiting: Iterator[int], wait: float) -> None:
    for _ in waiting:
        await asyncio.sleep(wait)
