"""Many watchers in one process, which is not the one that measures.

``python -m bench.watchers TARGET`` reads lines from its input. ``watch BATCH_ID NUMBER`` opens so
many streams and answers when each has shown its snapshot; ``end`` answers with the number of
messages once every stream has brought END.

The streams are read without the client package: what a watcher does with its messages is not what
is measured, and this process has to share the machine with the server.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc
from batchwork.v1.batch_service_pb2 import BATCH_EVENT_KIND_END, WatchBatchRequest
from batchwork.v1.batch_service_pb2_grpc import BatchServiceStub


class Crowd:
    """The watchers of one batch."""

    def __init__(self, stub: BatchServiceStub) -> None:
        self._stub = stub
        self._watchers: list[asyncio.Task[int]] = []

    async def watch(self, batch_id: str, number: int) -> str:
        snapshots = [asyncio.Event() for _ in range(number)]
        self._watchers = [
            asyncio.create_task(self._watch(batch_id, snapshot)) for snapshot in snapshots
        ]
        waiting: asyncio.Future[Any] = asyncio.gather(*(snapshot.wait() for snapshot in snapshots))
        first: list[asyncio.Future[Any]] = [waiting, *self._watchers]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        for watcher in self._watchers:
            if watcher.done():
                watcher.result()  # so early it can only have failed, and says why
        return "watching"

    async def end(self) -> str:
        return str(sum(await asyncio.gather(*self._watchers)))

    async def _watch(self, batch_id: str, snapshot: asyncio.Event) -> int:
        """Returns how many messages there were."""
        messages = 0
        kind = None
        responses: Any = self._stub.WatchBatch(WatchBatchRequest(batch_id=batch_id))
        async for response in responses:
            messages += 1
            kind = response.event.kind
            snapshot.set()
        if kind != BATCH_EVENT_KIND_END:
            raise RuntimeError("A watch ended without END.")
        return messages


async def main(target: str) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        crowd = Crowd(BatchServiceStub(channel))
        while line := await asyncio.to_thread(sys.stdin.readline):
            match line.split():
                case ["watch", batch_id, number]:
                    print(await crowd.watch(batch_id, int(number)), flush=True)
                case ["end"]:
                    print(await crowd.end(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
