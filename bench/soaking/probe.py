"""Looks at a server from outside, from a process with nothing else to do.

``python -m bench.soaking.probe PID TARGET BATCH_ID`` prints a line of JSON a second: what the
process has, and how long GetBatch took in that second.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from statistics import median

import psutil
from batchwork_client import Batchwork, connect

_ROUND = 1.0  # seconds
_PAUSE = 0.05  # seconds between two calls
_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """What one second showed.

    Attributes:
        resident: MiB.
        descriptors: Open files and sockets.
        threads: Of the whole process.
        answer_ms: The median latency of GetBatch.
        slowest_ms: The longest one.
    """

    resident: float
    descriptors: int
    threads: int
    answer_ms: float
    slowest_ms: float

    @property
    def line(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_line(cls, line: str) -> Vitals:
        return cls(**json.loads(line))


async def main(pid: int, target: str, batch_id: str) -> None:
    process = psutil.Process(pid)
    async with connect(target) as client:
        while True:
            latencies = await _latencies(client, batch_id)
            vitals = Vitals(
                resident=process.memory_info().rss / _MIB,
                descriptors=process.num_fds(),
                threads=process.num_threads(),
                answer_ms=median(latencies) * 1000,
                slowest_ms=max(latencies) * 1000,
            )
            print(vitals.line, flush=True)


async def _latencies(client: Batchwork, batch_id: str) -> list[float]:
    """Returns the seconds of the calls of one round."""
    latencies = []
    end = time.perf_counter() + _ROUND
    while time.perf_counter() < end:
        begin = time.perf_counter()
        await client.batches.get_batch(batch_id)
        latencies.append(time.perf_counter() - begin)
        await asyncio.sleep(_PAUSE)
    return latencies


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
