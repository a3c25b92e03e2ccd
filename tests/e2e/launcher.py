"""A real server process with a processor that tells, line by line, what it does.

Started as ``python -m tests.e2e.launcher``; settings come from the environment, as always.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import cast

from batchwork_server import failpoints
from batchwork_server.bootstrap import serving
from batchwork_server.config import load_settings
from batchwork_server.logs import configure_logs
from batchwork_server.process import run_to_its_end

from tests.e2e.processors import load


def arm_failpoint(text: str) -> None:
    """Arms what ``name=fault:after`` says; only this launcher knows the variable."""
    if text:
        name, _, rest = text.partition("=")
        fault, _, after = rest.partition(":")
        failpoints.arm(name, cast("failpoints.Fault", fault), after=int(after or 0))


async def main() -> None:
    settings = load_settings()
    configure_logs(level=settings.log_level)
    arm_failpoint(os.environ.get("TEST_FAILPOINT", ""))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with serving(settings, processors=load(), load_processors=load) as server:
        print(f"port {server.port}", flush=True)
        await stop.wait()


if __name__ == "__main__":
    run_to_its_end(main())
    sys.exit(0)
