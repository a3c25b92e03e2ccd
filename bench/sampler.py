"""The memory of another process, looked at every 50 ms.

``python -m bench.sampler PID`` answers each line of its input with the MiB that the process had at
most since the line before, and those that it has right now as PSS and as USS. A process of its
own, because one that makes requests misses moments.
"""

from __future__ import annotations

import asyncio
import sys

import psutil

_INTERVAL = 0.05
_MIB = 2**20


class Sampler:
    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._peak = 0

    async def run(self) -> None:
        while True:
            self._look()
            await asyncio.sleep(_INTERVAL)

    def answer(self) -> str:
        self._look()
        peak, self._peak = self._peak, 0
        now = self._process.memory_full_info()
        return f"{peak / _MIB} {now.pss / _MIB} {now.uss / _MIB}"

    def _look(self) -> None:
        self._peak = max(self._peak, self._process.memory_info().rss)


async def main(pid: int) -> None:
    sampler = Sampler(pid)
    looking = asyncio.create_task(sampler.run())
    while await asyncio.to_thread(sys.stdin.readline):
        print(sampler.answer(), flush=True)
    looking.cancel()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
