"""P1 and P2: from the call of CreateBatch to the END of WatchBatch, results on disk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from statistics import median

from batchwork.v1.batch_pb2 import BatchOptions
from batchwork.v1.item_pb2 import ItemInput

from bench.children import Child, child
from bench.items import inputs
from bench.limits.forty_lines import CHUNK
from bench.limits.ideal import asyncio_rate, ideal_rate
from bench.measuring import Scale, Verdict, alternate, tell
from bench.workplace import DatabaseKind, Service, Workplace

_WARM_UP = 2_000
_IN_FLIGHT = 100
_WAIT = 0.01  # seconds, as the template says


async def noop_items(place: Workplace, scale: Scale, kind: DatabaseKind) -> list[Verdict]:
    """P1: items that cost nothing, against the engine of forty lines on the same database.

    The limit is that engine over SQLAlchemy Core. What one reaches that hands its rows to the
    driver stands beside it.
    """
    name = f"P1 {kind}"
    items = inputs(scale.items)
    async with (
        place.service(kind) as service,
        _forty_lines(place, kind, "core") as plain,
        _forty_lines(place, kind, "driver") as tuned,
    ):
        tuned_rates: list[float] = []

        async def ours() -> float:
            return await rate(service, items, template="noop", chunk_size=CHUNK)

        async def limit() -> float:
            tuned_rates.append(await _rate_of(tuned, len(items)))
            return await _rate_of(plain, len(items))

        await rate(service, items[:_WARM_UP], template="noop", chunk_size=CHUNK)
        for engine in (tuned, plain):
            await _rate_of(engine, _WARM_UP)
        pairs = await alternate(name, runs=scale.runs, unit="items/s", ours=ours, limit=limit)
        by_default = await rate(service, items, template="noop")
        tell(name, chunk_size="default", ours=by_default, unit="items/s")
    details = {
        "ratio_driver": median(p.ours / rate for p, rate in zip(pairs, tuned_rates, strict=True)),
        "limit_driver": median(tuned_rates),
    }
    return [Verdict(name=name, target=0.5, unit="items/s", pairs=pairs, details=details)]


async def waiting_items(place: Workplace, scale: Scale, kind: DatabaseKind) -> list[Verdict]:
    """P2: items that wait 10 ms, a hundred at once, against what arithmetic allows."""
    name = f"P2 {kind}"
    items = inputs(scale.waiting_items)
    async with place.service(kind, BATCH_MAX_CONCURRENT_ITEMS=str(_IN_FLIGHT)) as service:

        async def ours() -> float:
            return await rate(service, items, template="wait", chunk_size=CHUNK)

        async def limit() -> float:
            return ideal_rate(in_flight=_IN_FLIGHT, wait=_WAIT)

        await rate(service, items[:_WARM_UP], template="wait", chunk_size=CHUNK)
        pairs = await alternate(name, runs=scale.runs, unit="items/s", ours=ours, limit=limit)
        bare = await asyncio_rate(items=len(items), in_flight=_IN_FLIGHT, wait=_WAIT)
        tell(name, asyncio_alone=bare, unit="items/s")
    return [Verdict(name=name, target=0.7, unit="items/s", pairs=pairs)]


def _forty_lines(
    place: Workplace, kind: DatabaseKind, way: str
) -> AbstractAsyncContextManager[Child]:
    return child("bench.limits.forty_lines", way, place.database(kind), log=place.log)


async def _rate_of(engine: Child, items: int) -> float:
    return items / float(await engine.ask(str(items)))


async def rate(
    service: Service, items: Sequence[ItemInput], *, template: str, chunk_size: int = 0
) -> float:
    """Returns items per second from the call of CreateBatch to END."""
    options = BatchOptions(chunk_size=chunk_size)
    begin = time.perf_counter()
    batch = await service.client.batches.create_batch(items, template_id=template, options=options)
    final = await service.finish(batch)
    seconds = time.perf_counter() - begin
    assert final.counts.total == len(items)
    return len(items) / seconds
