"""Tasks that run what strangers wrote, who may cancel the task that they are in."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any


async def forget_cancellation(task: asyncio.Task[Any]) -> None:
    """Has the current task go on as if nobody had cancelled it."""
    while task.cancelling():
        task.uncancel()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)  # one that has not come yet comes here, and nowhere else
