"""P3: what it costs that an acknowledged commit survives a power cut."""

from __future__ import annotations

from bench.items import inputs
from bench.limits.forty_lines import CHUNK
from bench.measuring import Scale, Verdict, alternate
from bench.processing import rate
from bench.workplace import Service, Workplace

_WARM_UP = 2_000


async def synchronous_full(place: Workplace, scale: Scale) -> list[Verdict]:
    """P3: the work of P1 with ``synchronous`` FULL, against NORMAL; two servers, one at a time."""
    name = "P3 sqlite"
    items = inputs(scale.items)
    async with (
        place.service("sqlite", BATCHWORK_SQLITE_SYNCHRONOUS="FULL") as full,
        place.service("sqlite", BATCHWORK_SQLITE_SYNCHRONOUS="NORMAL") as normal,
    ):

        async def measure(service: Service) -> float:
            return await rate(service, items, template="noop", chunk_size=CHUNK)

        for service in (full, normal):
            await rate(service, items[:_WARM_UP], template="noop", chunk_size=CHUNK)
        pairs = await alternate(
            name,
            runs=2 * scale.runs,
            unit="items/s",
            ours=lambda: measure(full),
            limit=lambda: measure(normal),
        )
    return [Verdict(name=name, target=0.8, unit="items/s", pairs=pairs)]
