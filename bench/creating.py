"""P6: CreateBatch with many inline items, durable when it has answered."""

from __future__ import annotations

import time

from batchwork.v1.batch_pb2 import BatchOptions

from bench.children import child
from bench.items import inputs
from bench.limits.forty_lines import CHUNK
from bench.measuring import Scale, Verdict, alternate
from bench.workplace import DatabaseKind, Workplace

_WARM_UP = 1_000


async def inline_items(place: Workplace, scale: Scale, kind: DatabaseKind) -> list[Verdict]:
    """P6: one call, against an insert of the same rows."""
    name = f"P6 {kind}"
    items = inputs(scale.inline_items)
    async with (
        place.service(kind) as service,
        child("bench.limits.raw_insert", place.database(kind), log=place.log) as table,
    ):

        async def create(count: int) -> float:
            begin = time.perf_counter()
            batch = await service.client.batches.create_batch(
                items[:count], template_id="noop", options=BatchOptions(chunk_size=CHUNK)
            )
            seconds = time.perf_counter() - begin
            await service.finish(batch)  # the next call finds a server with nothing to do
            return seconds * 1000

        async def insert(count: int) -> float:
            return float(await table.ask(str(count))) * 1000

        await create(_WARM_UP)
        await insert(_WARM_UP)
        pairs = await alternate(
            name,
            runs=2 * scale.runs,
            unit="ms",
            ours=lambda: create(len(items)),
            limit=lambda: insert(len(items)),
        )
    return [
        Verdict(
            name=name,
            target=150,
            unit="ms",
            pairs=pairs,
            lower_is_better=True,
            target_is_ours=True,
        )
    ]
