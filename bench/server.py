"""The server itself, with processors that do next to nothing.

Started as ``python -m bench.server [profile]``; settings come from the environment, as always.
Everything but the processors is what ``batchwork-server serve`` runs.
"""

from __future__ import annotations

import asyncio
import cProfile
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from batchwork_server.bootstrap import serving
from batchwork_server.config import load_settings
from batchwork_server.domain.batch import Template
from batchwork_server.logs import configure_logs
from batchwork_server.ports import ItemCall, ItemResult
from batchwork_server.processors.registry import ProcessorRegistry


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


async def serve(profile: str | None) -> None:
    settings = load_settings()
    configure_logs(level=settings.log_level)
    registry = ProcessorRegistry()
    registry.register("noop", NoopProcessor())
    registry.register("wait", WaitProcessor())
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with serving(settings, processors=registry) as server:
        print(f"Batchwork listens on port {server.port}.", flush=True)
        with _profiled(profile):
            await stop.wait()


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
