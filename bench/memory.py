"""P8: the memory of the server, by the number of items that it has been given and gives out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median

from batchwork.v1.batch_pb2 import Batch, BatchOptions

from bench.children import Child, child
from bench.items import inputs, stream_of_inputs
from bench.limits.forty_lines import CHUNK
from bench.measuring import Pair, Scale, Verdict, tell
from bench.workplace import DatabaseKind, Service, Workplace

_FIRST = 20_000
_LARGEST_REQUEST = 50_000  # inline items that one CreateBatch takes
_ALLOWED = 100.0  # MiB
_ALLOWED_GROWTH = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a process had, in MiB.

    Attributes:
        peak: Resident, at most, since the look before.
        pss: At this moment, with its share of what other processes use as well.
        uss: At this moment, what would be free if the process ended.
    """

    peak: float
    pss: float
    uss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """The memory of one server: empty, after the first items, and at most until the last.

    Attributes:
        first_out: After the results of the first items have gone out, too.
        last_out: The same of the others.
    """

    empty: Memory
    first: Memory
    last: Memory
    peak: float
    first_out: Memory
    last_out: Memory


async def stored_items(place: Workplace, scale: Scale, kind: DatabaseKind) -> list[Verdict]:
    """P8: the peak for 20,000 items in one batch, and how far it rises with the number of items.

    With those that come in, and with their results that go out again.
    """
    courses = [await _course(place, scale, kind) for _ in range(scale.memory_runs)]
    return [
        _for_the_first(courses, kind),
        _growth(courses, kind, scale.stored_items),
        _export(courses, kind, scale.stored_items - _FIRST),
    ]


def _for_the_first(courses: list[Course], kind: DatabaseKind) -> Verdict:
    """The limit is what is allowed: how much a server needs at least, nobody can say."""
    return Verdict(
        name=f"P8 {kind}-memory",
        target=1,
        unit="MiB",
        pairs=[Pair(ours=course.first.peak, limit=_ALLOWED) for course in courses],
        lower_is_better=True,
        details={
            "empty": median(course.empty.peak for course in courses),
            "pss": median(course.first.pss for course in courses),
            "uss": median(course.first.uss for course in courses),
        },
    )


def _growth(courses: list[Course], kind: DatabaseKind, items: int) -> Verdict:
    return Verdict(
        name=f"P8 {kind}-growth",
        target=1 / _ALLOWED_GROWTH,
        unit="MiB",
        pairs=[Pair(ours=course.peak, limit=course.first.peak) for course in courses],
        lower_is_better=True,
        details={
            "items": float(items),
            "pss": median(course.last.pss for course in courses),
            "uss": median(course.last.uss for course in courses),
        },
    )


def _export(courses: list[Course], kind: DatabaseKind, items: int) -> Verdict:
    return Verdict(
        name=f"P8 {kind}-export",
        target=1 / _ALLOWED_GROWTH,
        unit="MiB",
        pairs=[Pair(ours=course.last_out.peak, limit=course.first_out.peak) for course in courses],
        lower_is_better=True,
        details={
            "items": float(items),
            "pss": median(course.last_out.pss for course in courses),
            "uss": median(course.last_out.uss for course in courses),
        },
    )


async def _course(place: Workplace, scale: Scale, kind: DatabaseKind) -> Course:
    async with _watched_service(place, kind) as (service, sampler):
        looks = [await look(sampler)]
        outs: list[Memory] = []
        batches: list[Batch] = []
        stored = 0
        for count in (_FIRST, scale.stored_items - _FIRST):
            batches.append(await _process(service, count))
            stored += count
            looks.append(await look(sampler))
            tell(
                f"P8 {kind}",
                items=f"{stored:>8,}",
                peak=looks[-1].peak,
                uss=looks[-1].uss,
                unit="MiB",
            )
        for batch in batches:
            await _read_results(service, batch)
            outs.append(await look(sampler))
            tell(
                f"P8 {kind}",
                results=f"{batch.counts.total:>8,}",
                peak=outs[-1].peak,
                uss=outs[-1].uss,
                unit="MiB",
            )
    return Course(
        empty=looks[0],
        first=looks[1],
        last=looks[-1],
        peak=max(look.peak for look in looks[1:]),
        first_out=outs[0],
        last_out=outs[-1],
    )


@asynccontextmanager
async def _watched_service(
    place: Workplace, kind: DatabaseKind
) -> AsyncIterator[tuple[Service, Child]]:
    database = place.database(kind)
    # An installed server has bytecode. Without it each start compiles every module, and does not
    # give back all the memory which that takes.
    bytecode = {
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(place.log.with_name("bytecode")),
    }
    async with place.service(kind, database=database, **bytecode):
        pass  # its migrations take memory that a server needs once in its life
    async with (
        place.service(kind, database=database, **bytecode) as service,
        child("bench.sampler", str(service.process.pid), log=place.log) as sampler,
    ):
        yield service, sampler


async def _process(service: Service, count: int) -> Batch:
    create = _create_inline if count <= _LARGEST_REQUEST else _upload
    return await service.finish(await create(service, count))


async def _read_results(service: Service, batch: Batch) -> None:
    """Reads the result of every item, as a user does.

    Raises:
        RuntimeError: they were not as many as the batch has items.
    """
    read = 0
    async for _ in service.client.batches.stream_results(batch.batch_id):
        read += 1
    if read != batch.counts.total:
        raise RuntimeError(f"{read} results came of {batch.counts.total} items")


async def _create_inline(service: Service, count: int) -> Batch:
    return await service.client.batches.create_batch(
        inputs(count), template_id="noop", options=BatchOptions(chunk_size=CHUNK)
    )


async def _upload(service: Service, count: int) -> Batch:
    """Fills a draft and starts it."""
    batches = service.client.batches
    draft = await batches.create_batch(
        template_id="noop", options=BatchOptions(chunk_size=CHUNK), draft=True
    )
    await batches.upload_items(draft.batch_id, stream_of_inputs(count))
    return await batches.seal_batch(draft.batch_id, expected_count=count)


async def look(sampler: Child) -> Memory:
    """Returns what the process that ``bench.sampler`` looks at has."""
    peak, pss, uss = map(float, (await sampler.ask("look")).split())
    return Memory(peak=peak, pss=pss, uss=uss)
