"""P4: GetBatch against a bare echo of the same answer, through the same client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median

import grpc
from batchwork.v1.batch_pb2 import Batch, BatchState
from batchwork.v1.batch_service_pb2 import GetBatchRequest, GetBatchResponse
from batchwork.v1.batch_service_pb2_grpc import BatchServiceStub

from bench.children import Child, child
from bench.items import inputs
from bench.measuring import Scale, Verdict, measure_pair
from bench.workplace import DatabaseKind, Service, Workplace

_IN_FLIGHT = 16
_WARM_UP = 300
_SLOW_ITEMS = 50_000  # of a second each: they last longer than any measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What calls of GetBatch took.

    Attributes:
        rate: Calls per second with many in flight.
        latency: Seconds from a call to its answer at one in flight; the median.
        cpu_seconds: Processor time of the server for one call, all that it did meanwhile included.
    """

    rate: float
    latency: float
    cpu_seconds: float


class Reader:
    """Calls GetBatch on a server of either kind, and knows what that cost the server.

    Client and server share the machine, and the client is the same for both. Where the client is
    the slower half, a ratio of rates flatters the server; its processor time for a call does not.

    Attributes:
        readings: One for each measurement.
    """

    def __init__(self, channel: grpc.aio.Channel, request: GetBatchRequest, server: Child) -> None:
        self._get_batch = BatchServiceStub(channel).GetBatch
        self._request = request
        self._server = server
        self.readings: list[Reading] = []

    async def rate(self, calls: int) -> float:
        """Returns calls per second with many in flight, and keeps the whole reading."""
        latency = await self._latency(calls // 5)
        cpu_seconds = self._server.cpu_seconds
        begin = time.perf_counter()
        waiting = iter(range(calls))
        await asyncio.gather(*(self._call_each(waiting) for _ in range(_IN_FLIGHT)))
        reading = Reading(
            rate=calls / (time.perf_counter() - begin),
            latency=latency,
            cpu_seconds=(self._server.cpu_seconds - cpu_seconds) / calls,
        )
        self.readings.append(reading)
        return reading.rate

    async def warm_up(self) -> None:
        await self._call_each(iter(range(_WARM_UP)))

    async def encoded_answer(self) -> bytes:
        """Returns what the server answers, as it travels."""
        response: GetBatchResponse = await self._get_batch(self._request)
        return response.SerializeToString()

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


@asynccontextmanager
async def _running(place: Workplace, kind: DatabaseKind) -> AsyncIterator[tuple[Service, Batch]]:
    """Runs a server that has a batch whose items are processed meanwhile."""
    async with place.service(kind, BATCHWORK_SHUTDOWN_GRACE="0") as service:
        batch = await service.client.batches.create_batch(inputs(_SLOW_ITEMS), template_id="slow")
        yield service, batch
        batch = await service.client.batches.get_batch(batch.batch_id)
        if batch.state != BatchState.BATCH_STATE_RUNNING:
            raise RuntimeError("The batch ended before the measurement did.")


@asynccontextmanager
async def _stored(place: Workplace, kind: DatabaseKind) -> AsyncIterator[tuple[Service, Batch]]:
    """Runs a server that has a batch which is over, so that each call reads the database."""
    async with place.service(kind) as service:
        batch = await service.client.batches.create_batch(inputs(1000), template_id="noop")
        await service.finish(batch)
        yield service, batch


_STARTS = {"running": _running, "stored": _stored}


async def read_batch(
    place: Workplace, scale: Scale, kind: DatabaseKind, *, batch: str, target: float
) -> list[Verdict]:
    """P4: a batch that is ``running`` or ``stored``, each time on other servers.

    Two processes that do the same differ by a tenth, for as long as they live.
    """
    name = f"P4 {batch} {kind}"
    pairs, ours, limits = [], [], []
    for run in range(1, scale.runs + 1):
        async with (
            _STARTS[batch](place, kind) as (service, read),
            _readers(place, service, GetBatchRequest(batch_id=read.batch_id)) as (our, limit),
        ):
            pairs.append(
                await measure_pair(
                    name,
                    run=run,
                    unit="calls/s",
                    ours=partial(our.rate, scale.calls),
                    limit=partial(limit.rate, scale.calls),
                )
            )
        ours += our.readings
        limits += limit.readings
    details = {
        "p50_ms": median(reading.latency for reading in ours) * 1000,
        "p50_ms_limit": median(reading.latency for reading in limits) * 1000,
        "server_us": median(reading.cpu_seconds for reading in ours) * 1e6,
        "server_us_limit": median(reading.cpu_seconds for reading in limits) * 1e6,
    }
    return [Verdict(name=name, target=target, unit="calls/s", pairs=pairs, details=details)]


@asynccontextmanager
async def _readers(
    place: Workplace, service: Service, request: GetBatchRequest
) -> AsyncIterator[tuple[Reader, Reader]]:
    """Yields a reader of the server and one of its echo, both warm."""
    async with (
        _reader(service.target, request, service.process) as ours,
        _echo(place, ours, request) as limit,
    ):
        await ours.warm_up()
        await limit.warm_up()
        yield ours, limit


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
