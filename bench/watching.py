"""P5: what the engine keeps of its speed while others watch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from statistics import median

from batchwork.v1.batch_pb2 import Batch, BatchOptions
from batchwork.v1.item_pb2 import ItemInput

from bench.children import Child, child
from bench.items import inputs
from bench.limits.forty_lines import CHUNK
from bench.measuring import Scale, Verdict, alternate, tell
from bench.workplace import DatabaseKind, Service, Workplace

_CROWD = 1_000
_WARM_UP = 2_000
_LOOK = 0.1  # seconds between two looks at whether a batch is done


class Gated:
    """Measures batches that wait until everybody watches, and then run at once.

    From the opening of the gate to the last commit, both by the server's clock: how long END takes
    to everybody is not the engine's speed, and whether anybody watches must not decide how the end
    is noticed.
    """

    def __init__(self, service: Service, crowd: Child, items: Sequence[ItemInput]) -> None:
        self._service = service
        self._crowd = crowd
        self._items = items
        self.messages: list[float] = []
        """A second, to all watchers together, in each measurement that had some."""
        self.cpu_seconds: dict[int, list[float]] = {}
        """Of the server for an item, by the number of watchers."""

    async def rate(self, watchers: int) -> float:
        """Returns items per second while so many streams watch the batch."""
        await self._service.process.ask("close")
        batch = await self._service.client.batches.create_batch(
            self._items, template_id="gated", options=BatchOptions(chunk_size=CHUNK)
        )
        await self._crowd.ask(f"watch {batch.batch_id} {watchers}")
        cpu_seconds = self._service.process.cpu_seconds
        begin = float(await self._service.process.ask("open"))
        final = await self._finish(batch)
        messages = int(await self._crowd.ask("end"))
        self._note(watchers, self._service.process.cpu_seconds - cpu_seconds)
        seconds = final.end_time.ToNanoseconds() / 1e9 - begin
        if watchers:
            self.messages.append(messages / seconds)
        return len(self._items) / seconds

    async def _finish(self, batch: Batch) -> Batch:
        while not batch.HasField("end_time"):
            await asyncio.sleep(_LOOK)
            batch = await self._service.client.batches.get_batch(batch.batch_id)
        if batch.counts.succeeded != len(self._items):
            raise RuntimeError(f"The batch {batch.batch_id} did not go well: {batch.counts}")
        return batch

    def _note(self, watchers: int, cpu_seconds: float) -> None:
        self.cpu_seconds.setdefault(watchers, []).append(cpu_seconds / len(self._items))


async def many_watchers(place: Workplace, scale: Scale, kind: DatabaseKind) -> list[Verdict]:
    """P5: a thousand streams, all on the batch that runs."""
    return [await _compare(place, scale, kind, watchers=_CROWD, name=f"P5 {kind}", target=0.6)]


async def one_watcher(place: Workplace, scale: Scale, kind: DatabaseKind) -> list[Verdict]:
    """P5: a single stream. What it costs is less than a run differs from the next; so, many."""
    name = f"P5 one-watcher {kind}"
    return [await _compare(place, scale, kind, watchers=1, name=name, target=0.97, times=3)]


async def _compare(
    place: Workplace,
    scale: Scale,
    kind: DatabaseKind,
    *,
    watchers: int,
    name: str,
    target: float,
    times: int = 1,
) -> Verdict:
    items = inputs(scale.items)
    async with (
        place.service(kind) as service,
        child("bench.watchers", service.target, log=place.log) as crowd,
    ):
        await Gated(service, crowd, items[:_WARM_UP]).rate(watchers)
        gated = Gated(service, crowd, items)
        pairs = await alternate(
            name,
            runs=times * scale.runs,
            unit="items/s",
            ours=lambda: gated.rate(watchers),
            limit=lambda: gated.rate(0),
        )
    tell(name, messages=median(gated.messages), unit="messages/s")
    details = {
        "server_us": median(gated.cpu_seconds[watchers]) * 1e6,
        "server_us_limit": median(gated.cpu_seconds[0]) * 1e6,
    }
    return Verdict(name=name, target=target, unit="items/s", pairs=pairs, details=details)
