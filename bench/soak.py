"""``python -m bench.soak [--minutes N] [--database sqlite|postgresql]``: a long, mixed load.

Whoever uses the client package does so here, all at once and again and again, while another
process looks at the server. Ends with what the server's memory did, with a check of every batch,
and with a line that a program can read; the exit code is 0 for PASS and 1 for FAIL.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import grpc
from batchwork_client import BatchworkError

from bench.children import Child, child
from bench.items import inputs
from bench.machine import header
from bench.measuring import number
from bench.soaking.judging import Judgement, Moment, chart, judge
from bench.soaking.ledger import Ledger
from bench.soaking.probe import Vitals
from bench.soaking.visitors import Round, Visitors
from bench.workplace import DatabaseKind, Service, Workplace, workplace

# Retries come soon, so that a batch is over while its creator waits for it.
_SETTINGS = {"BATCHWORK_RETRY_INITIAL_BACKOFF": "0.1", "BATCH_MAX_CONCURRENT_ITEMS": "100"}
# What a server only says when something went wrong. Nobody is killed here, so no chunk may be lost.
_ALARMS = frozenset(
    {
        "chunk.lost",
        "commit.waiting",
        "dispatch.waiting",
        "item.raised",
        "loop.failed",
        "recovery.reopened",
        "rpc.failed",
    }
)
_AFTER_A_PROBLEM = 1.0  # second, so that what always fails does not fail all the time


class Soak:
    """One load on one server."""

    def __init__(self, ledger: Ledger, service: Service) -> None:
        self._ledger = ledger
        self._service = service
        self._stop = asyncio.Event()
        self.moments: list[Moment] = []

    async def run(self, place: Workplace, *, seconds: float) -> None:
        """Lets the load go on for so long, and waits until everybody has finished the round."""
        watched = await self._service.client.batches.create_batch(inputs(100), template_id="noop")
        await self._service.finish(watched)
        arguments = (str(self._service.process.pid), self._service.target, watched.batch_id)
        async with (
            grpc.aio.insecure_channel(self._service.target) as channel,
            child("bench.soaking.probe", *arguments, log=place.log) as probe,
        ):
            visitors = Visitors(self._service.client, channel, self._service.target, self._ledger)
            async with asyncio.TaskGroup() as work:
                for round_ in visitors.rounds:
                    work.create_task(self._repeat(round_))
                await self._observe(probe, seconds=seconds)
                self._stop.set()
            await visitors.close()
        await self._compare(but=watched.batch_id)

    async def _repeat(self, round_: Round) -> None:
        while not self._stop.is_set():
            try:
                await round_()
            except BatchworkError as error:
                self._ledger.complain(f"{round_.__name__}: {error!r}")
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), _AFTER_A_PROBLEM)

    async def _observe(self, probe: Child, *, seconds: float) -> None:
        begin = time.perf_counter()
        while (at := time.perf_counter() - begin) < seconds:
            vitals = Vitals.from_line(await probe.line())
            self.moments.append(
                Moment(at=at, vitals=vitals, batches_done=self._ledger.batches_done)
            )

    async def _compare(self, *, but: str) -> None:
        stored = [batch async for batch in self._service.client.batches.list_batches()]
        self._ledger.compare([batch for batch in stored if batch.batch_id != but])


async def soak(kind: DatabaseKind, *, seconds: float) -> Judgement:
    """Runs a soak and prints what it showed.

    Raises:
        RuntimeError: the server ended; its log tells why.
        ValueError: it was too short to say anything.
    """
    ledger = Ledger()
    with workplace() as place:
        async with place.service(kind, **_SETTINGS) as service:
            load = Soak(ledger, service)
            await load.run(place, seconds=seconds)
        for event, times in _alarms(place.log).items():
            ledger.complain(f"The server logged {event}, {times} times.")
    judgement = judge(load.moments, problems=len(ledger.problems))
    print(chart(load.moments), end="\n\n")
    print(_line(judgement, kind, ledger, load.moments))
    return judgement


def _alarms(log: Path) -> Counter[str]:
    """Returns how often the server logged what it should not have to."""
    with log.open() as lines:
        events = (json.loads(line)["event"] for line in lines if line.startswith('{"timestamp"'))
        return Counter(event for event in events if event in _ALARMS)


def _line(judgement: Judgement, kind: str, ledger: Ledger, moments: list[Moment]) -> str:
    fields = {
        "minutes": number(moments[-1].at / 60),
        "batches": str(ledger.batches),
        "items": str(ledger.items),
        "memory_growth": f"{judgement.memory_growth:.3f}",
        "new_descriptors": number(judgement.new_descriptors),
        "slowest_ms": number(max(moment.vitals.slowest_ms for moment in moments)),
        "problems": str(judgement.problems),
    }
    verdict = "PASS" if judgement.is_good else "FAIL"
    return " ".join(["SOAK", kind, verdict, *(f"{name}={value}" for name, value in fields.items())])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    arguments = parser.parse_args()
    print(header(), end="\n\n", flush=True)
    judgement = asyncio.run(soak(arguments.database, seconds=60 * arguments.minutes))
    sys.exit(0 if judgement.is_good else 1)


if __name__ == "__main__":
    main()
