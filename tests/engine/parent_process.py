"""A parent of child processes, to be killed: one child is busy with an item, one waits.

Prints the ids of its children.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import psutil
from batchwork_server.engine.isolation import ChildProcesses
from batchwork_server.logs import configure_logs

from tests.engine.child_processors import call_for, load

LIMIT = timedelta(hours=1)


async def main() -> None:
    configure_logs(level="warn")
    children = ChildProcesses(load=load, workers=2)
    await children.process("scripted", call_for("chat"), limit=LIMIT)
    print(*(child.pid for child in psutil.Process().children()), flush=True)
    await children.process("scripted", call_for("spin"), limit=LIMIT)


if __name__ == "__main__":
    asyncio.run(main())
