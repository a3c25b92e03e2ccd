"""The server itself, with processors that do next to nothing.

Started as ``python -m bench.server [profile]``; settings come from the environment, as always.
Everything but the processors is what ``batchwork-server serve`` runs. The words ``open`` and
``close`` on its input move the gate of the items of the template ``gated``.
"""

from __future__ import annotations

import asyncio
import cProfile
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from batchwork_server.bootstrap import serving
from batchwork_server.config import load_settings
from batchwork_server.domain.batch import Template
from batchwork_server.errors import ItemFailed, ItemSkipped
from batchwork_server.logs import configure_logs
from batchwork_server.ports import ItemCall, ItemResult
from batchwork_server.processors.registry import ProcessorRegistry

from bench.fates import Fate


class NoopProcessor:
    def check(self, template: Template) -> Sequence[str]:
        return ()

    async def process(self, call: ItemCall) -> ItemResult:
        return ItemResult(value={"ok": True})


class WaitProcessor:
    """Waits for as many seconds as the template says."""

    def check(self, template: Template) -> Sequence[str]:
        return ()

    async def process(self, call: ItemCall) -> ItemResult:
        await asyncio.sleep(call.parameters["seconds"])
        return ItemResult(value={"ok": True})


class GatedProcessor:
    """Lets nothing through until the gate is opened, and then everything at once."""

    def __init__(self) -> None:
        self._gate = asyncio.Event()

    def obey(self, word: str) -> float:
        """Opens or closes the gate, and returns the time at which that was done."""
        {"open": self._gate.set, "close": self._gate.clear}[word]()
        return time.time()

    def check(self, template: Template) -> Sequence[str]:
        return ()

    async def process(self, call: ItemCall) -> ItemResult:
        if not self._gate.is_set():
            await self._gate.wait()
        return ItemResult(value={"ok": True})


class FatedProcessor:
    """Does with each item what its data say."""

    def check(self, template: Template) -> Sequence[str]:
        return ()

    async def process(self, call: ItemCall) -> ItemResult:
        match Fate(call.data["fate"]):
            case Fate.FAIL:
                raise ItemFailed("FATED", "This item was made to fail.")
            case Fate.SKIP:
                raise ItemSkipped("FATED", "This item was made to be skipped.")
            case Fate.RETRY if call.attempt == 1:
                raise ItemFailed(
                    "FATED_ONCE", "The first attempt was made to fail.", retryable=True
                )
            case Fate.WAIT:
                await asyncio.sleep(0.02)
        return ItemResult(value={"ok": True, "attempt": call.attempt}, quality_score=0.5)


async def serve(profile: str | None) -> None:
    settings = load_settings()
    configure_logs(level=settings.log_level)
    registry = ProcessorRegistry()
    registry.register("noop", NoopProcessor())
    registry.register("wait", WaitProcessor())
    registry.register("fated", FatedProcessor())
    gated = GatedProcessor()
    registry.register("gated", gated)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    async with serving(settings, processors=registry) as server:
        print(f"Batchwork listens on port {server.port}.", flush=True)
        loop.add_reader(sys.stdin, _answer, gated)
        with _profiled(profile):
            await stop.wait()


def _answer(gated: GatedProcessor) -> None:
    """Does what the next line of the input says; its end means that nobody will say more."""
    line = sys.stdin.readline()
    if line:
        print(gated.obey(line.strip()), flush=True)
    else:
        asyncio.get_running_loop().remove_reader(sys.stdin)


@contextmanager
def _profiled(file: str | None) -> Iterator[None]:
    """Writes what the event loop's thread did in the block, unless there is no file to write to."""
    if file is None:
        yield
        return
    profiler = cProfile.Profile()
    profiler.enable()
    try:
        yield
    finally:
        profiler.disable()
        profiler.dump_stats(file)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1] if len(sys.argv) > 1 else None))
