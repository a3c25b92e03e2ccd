"""A scheduler in a process of its own, with a clock that it moves by itself, to be killed.

Started as ``python -m tests.e2e.racing_scheduler URL``. It says that it is ready and waits for a
line. Then it goes from due time to due time, and tells after each for how many jobs it decided
something or came too late.
"""

from __future__ import annotations

import asyncio
import sys

from batchwork_server.errors import Unavailable
from batchwork_server.logs import configure_logs
from batchwork_server.store.database import open_database

from tests.engine.test_firing import FIRST, HOUR, Server
from tests.fakes import FakeClock

JOBS = [f"job_{number}_of_many" for number in range(10)]
DUE_TIMES = [FIRST + hour * HOUR for hour in range(30)]


async def look(server: Server) -> int:
    """Fires what is due until nothing is, however long the database is locked."""
    looked_at = 0
    while True:
        try:
            found = await server.firing.fire_due()
        except Unavailable:
            continue
        if not found:
            return looked_at
        looked_at += found


async def main(url: str) -> None:
    # What keeps two servers off one file of SQLite is not what is tried here.
    database = await open_database(url, shared=True)
    clock = FakeClock()
    server = Server(database, clock=clock)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for due_time in DUE_TIMES:
        clock.advance(due_time - clock.now())
        print(await look(server), flush=True)
    await database.close()


if __name__ == "__main__":
    configure_logs(level="warn")
    asyncio.run(main(sys.argv[1]))
