"""A real server process with a processor that tells, line by line, what it does.

Started as ``python -m tests.e2e.launcher``; settings come from the environment, as always.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence

from batchwork_server.bootstrap import serving
from batchwork_server.config import load_settings
from batchwork_server.domain.batch import Template
from batchwork_server.logs import configure_logs
from batchwork_server.ports import ItemCall, ItemResult
from batchwork_server.processors.registry import ProcessorRegistry


class TellingProcessor:
    """Prints the key of each attempt, after a few milliseconds of work."""

    def check(self, template: Template) -> Sequence[str]:
        return ()

    async def process(self, call: ItemCall) -> ItemResult:
        await asyncio.sleep(call.parameters["seconds"])
        print(f"processed {call.idempotency_key}", flush=True)
        return ItemResult(value={"item": call.item_id})


async def main() -> None:
    settings = load_settings()
    configure_logs(level=settings.log_level)
    registry = ProcessorRegistry()
    registry.register("telling", TellingProcessor())
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with serving(settings, processors=registry) as server:
        print(f"port {server.port}", flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
    sys.exit(0)
