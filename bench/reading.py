"""P4: GetBatch against a bare echo of the same answer, through the same client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from statistics import median

import grpc
from batchwork.v1.batch_pb2 import Batch, BatchState
from batchwork.v1.batch_service_pb2 import GetBatchRequest, GetBatchResponse
from batchwork.v1.batch_service_pb2_grpc import BatchServiceStub

from bench.children import Child, child
from bench.items import inputs
from bench.measuring import Scale, Verdict, alternate
from bench.workplace import DatabaseKind, Service, Workplace

_IN_FLIGHT = 16
_WARM_UP = 300
_SLOW_ITEMS = 50_000  # of a second each: they last longer than any measurement


class Reader:
    """Calls GetBatch on a server of either kind, and knows what that cost the server.

    Client and server share the machine, and the client is the same for both. Where the client is
    the slower half, a ratio of rates flatters the server; its processor time for a call does not.
    """

    def __init__(self, channel: grpc.aio.Channel, request: GetBatchRequest, server: Child) -> None:
        self._get_batch = BatchServiceStub(channel).GetBatch
        self._request = request
        self._server = server
        self._cpu_seconds: list[float] = []
        self._latencies: list[float] = []

    async def rate(self, calls: int) -> float:
        """Returns calls per second with many in flight; beside it, notes the latency of one."""
        self._latencies.append(await self._latency(calls // 5))
        cpu_seconds = self._server.cpu_seconds
        begin = time.perf_counter()
        waiting = iter(range(calls))
        await asyncio.gather(*(self._call_each(waiting) for _ in range(_IN_FLIGHT)))
        seconds = time.perf_counter() - begin
        self._cpu_seconds.append((self._server.cpu_seconds - cpu_seconds) / calls)
        return calls / seconds

    async def warm_up(self) -> None:
        await self._call_each(iter(range(_WARM_UP)))

    async def encoded_answer(self) -> bytes:
        """Returns what the server answers, as it travels."""
        response: GetBatchResponse = await self._get_batch(self._request)
        return response.SerializeToString()

    @property
    def latency(self) -> float:
        """Seconds from a call to its answer at one in flight; the median of medians."""
        return median(self._latencies)

    @property
    def cpu_seconds(self) -> float:
        """Processor time of the server for one call, all that it did meanwhile included."""
        return median(self._cpu_seconds)

    async def _call_each(self, waiting: Iterator[int]) -> None:
        for _ in waiting:
            await self._get_batch(self._request)

    async def _latency(self, calls: int) -> float:
        durations = []
        for _ in range(calls):
            begin = time.perf_counter()
            await self._get_batch(self._request)
            durations.append(time.perf_counter() - begin)
        return median(durations)


async def running_batch(place: Workplace, scale: Scale, kind: DatabaseKind) -> list[Verdict]:
    """P4: a batch whose items are processed meanwhile."""
    name = f"P4 running {kind}"
    async with place.service(kind, BATCHWORK_SHUTDOWN_GRACE="0") as service:
        batch = await service.client.batches.create_batch(inputs(_SLOW_ITEMS), template_id="slow")
        verdict = await _compare(name, place, service, batch, scale=scale, target=0.85)
        if (
            await service.client.batches.get_batch(batch.batch_id)
        ).state != BatchState.BATCH_STATE_RUNNING:
            raise RuntimeError("The batch ended before the measurement did.")
    return [verdict]


async def stored_batch(
    place: Workplace, scale: Scale, kind: DatabaseKind, *, target: float
) -> list[Verdict]:
    """P4: a batch that is over, so that each call reads it from the database."""
    async with place.service(kind) as service:
        batch = await service.client.batches.create_batch(inputs(1000), template_id="noop")
        await service.finish(batch)
        return [
            await _compare(f"P4 stored {kind}", place, service, batch, scale=scale, target=target)
        ]


async def _compare(
    name: str, place: Workplace, service: Service, batch: Batch, *, scale: Scale, target: float
) -> Verdict:
    request = GetBatchRequest(batch_id=batch.batch_id)
    async with (
        _reader(service.target, request, service.process) as ours,
        _echo(place, ours, request) as limit,
    ):
        await ours.warm_up()
        await limit.warm_up()
        pairs = await alternate(
            name,
            runs=scale.runs,
            unit="calls/s",
            ours=lambda: ours.rate(scale.calls),
            limit=lambda: limit.rate(scale.calls),
        )
    details = {
        "p50_ms": ours.latency * 1000,
        "p50_ms_limit": limit.latency * 1000,
        "server_us": ours.cpu_seconds * 1e6,
        "server_us_limit": limit.cpu_seconds * 1e6,
    }
    return Verdict(name=name, target=target, unit="calls/s", pairs=pairs, details=details)


@asynccontextmanager
async def _echo(place: Workplace, ours: Reader, request: GetBatchRequest) -> AsyncIterator[Reader]:
    """Runs an echo of what the server answers right now."""
    answer = await ours.encoded_answer()
    async with child("bench.limits.echo", answer.hex(), log=place.log) as process:
        target = f"127.0.0.1:{await process.line()}"
        async with _reader(target, request, process) as reader:
            yield reader


@asynccontextmanager
async def _reader(target: str, request: GetBatchRequest, server: Child) -> AsyncIterator[Reader]:
    async with grpc.aio.insecure_channel(target) as channel:
        yield Reader(channel, request, server)
