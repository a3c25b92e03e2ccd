"""The processors of the server processes, for the server and for its child processes."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from datetime import timedelta

from batchwork_server.domain.batch import Template
from batchwork_server.errors import ItemFailed, RateLimited
from batchwork_server.ports import ItemCall, ItemResult
from batchwork_server.processors.registry import ProcessorRegistry


def tell(call: ItemCall) -> None:
    """Says in one piece, in the log, that an item was processed; in a child process, too."""
    os.write(sys.stderr.fileno(), f"processed {call.idempotency_key}\n".encode())


class TellingProcessor:
    """Tells the key of each attempt, after a few milliseconds of work."""

    def check(self, template: Template) -> Sequence[str]:
        return ()

    async def process(self, call: ItemCall) -> ItemResult:
        await asyncio.sleep(call.parameters["seconds"])
        tell(call)
        return ItemResult(value={"item": call.item_id})


class FaultyProcessor:
    """Does what the name of an item says, up to its first hyphen; most of it is bad."""

    def check(self, template: Template) -> Sequence[str]:
        return ()

    async def process(self, call: ItemCall) -> ItemResult:
        deed = call.item_id.partition("-")[0]
        match deed:
            case "die":
                os._exit(3)
            case "hang":
                await asyncio.Event().wait()
            case "stubborn":
                await _swallow_cancellation()
            case "block":
                time.sleep(1)
            case "large":
                return ItemResult(value="x" * 5 * 1024 * 1024)
            case "busy" if call.attempt == 1:
                raise ItemFailed("BUSY", retryable=True, retry_after=_LATER)
            case "limited" if os.environ.get("TEST_PROVIDER_IS_AWAY"):
                raise RateLimited("LIMITED", retry_after=_LATER)
        if deed in _ERRORS:
            raise _ERRORS[deed]
        await asyncio.sleep(0.005)
        tell(call)
        return ItemResult(value={"item": call.item_id})


_LATER = timedelta(seconds=3)
_ERRORS: dict[str, BaseException] = {
    "error": ValueError("no"),
    "base": BaseException("no"),
    "exit": SystemExit(1),
    "interrupt": KeyboardInterrupt(),
    "generator": GeneratorExit(),
}


async def _swallow_cancellation() -> None:
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


def load() -> ProcessorRegistry:
    registry = ProcessorRegistry()
    registry.register("telling", TellingProcessor())
    registry.register("faulty", FaultyProcessor())
    return registry
