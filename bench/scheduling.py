"""Ten thousand jobs with schedules: imported, looked at, found again, and due together."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from batchwork_server.domain.selection import LoadedItem
from batchwork_server.store.database import open_database
from batchwork_server.store.sql_store import SqlStore

from bench.children import child
from bench.measuring import Pair, Scale, Verdict, tell
from bench.memory import look
from bench.workplace import DatabaseKind, Service, Workplace

_JOBS = 10_000
_DUE = 1_000
_STARTS = 3
_PAGES = 5
_PAGE = 100
_MINUTE = timedelta(minutes=1)
_POLL = 0.5  # seconds

# What APScheduler 3.11 takes for as many jobs that it keeps in memory only and does not check.
_ALLOWED_MS = 2_800.0
_ALLOWED_MIB = 32.0

_ZONES = (
    *("UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo", "Asia/Kolkata"),
    *("Australia/Lord_Howe", "America/Sao_Paulo", "Africa/Cairo", "Pacific/Auckland"),
)
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


async def many_jobs(place: Workplace, scale: Scale, kind: DatabaseKind) -> list[Verdict]:
    """The import of 10,000 jobs, what they leave in memory, and a start that finds them."""
    name = f"Jobs {kind}"
    database = place.database(kind)
    await _load_a_category(database)
    empty = [await _start_ms(place, kind, database) for _ in range(_STARTS)]
    async with place.service(kind, database=database) as service, _sampler(place, service) as eye:
        before = await look(eye)
        first = await _import_ms(service, _job_file(map(_job, range(_JOBS))))
        after = await look(eye)
        again = await _import_ms(service, _job_file(map(_job, range(_JOBS))))
        pages = [await _upcoming_ms(service) for _ in range(_PAGES)]
    tell(name, jobs=f"{_JOBS:,}", imported_ms=first, again_ms=again, page_ms=median(pages))
    full = [await _start_ms(place, kind, database) for _ in range(_STARTS)]
    async with place.service(kind, database=database) as service, _sampler(place, service) as eye:
        found = await look(eye)
        fired, done = await _fire(service)
    tell(name, due=f"{_DUE:,}", all_fired_s=fired, all_done_s=done)
    return [
        Verdict(
            name=f"{name}-import",
            target=1,
            unit="ms",
            pairs=[Pair(ours=first, limit=_ALLOWED_MS)],
            lower_is_better=True,
            details={"again_ms": again, "page_ms": median(pages)},
        ),
        Verdict(
            name=f"{name}-memory",
            target=1,
            unit="MiB",
            pairs=[Pair(ours=after.uss - before.uss, limit=_ALLOWED_MIB)],
            lower_is_better=True,
            details={
                "empty": before.uss,
                "peak": after.peak - before.peak,
                "after_start": found.uss - before.uss,
            },
        ),
        Verdict(
            name=f"{name}-start",
            target=0.9,
            unit="ms",
            pairs=[Pair(ours=o, limit=e) for o, e in zip(full, empty, strict=True)],
            lower_is_better=True,
            details={"all_fired_s": fired, "all_done_s": done},
        ),
    ]


async def _load_a_category(database: str) -> None:
    """Makes the schema, and a category of one item, from which all jobs select."""
    opened = await open_database(database)
    try:
        store = SqlStore(opened)
        async with store.transaction() as tx:
            await store.categories.load(
                tx,
                tenant_id="default",
                category="posts",
                items=[LoadedItem(item_id="post", data_json='{"likes":10}')],
                now=datetime.now(UTC),
            )
    finally:
        await opened.close()


def _sampler(place: Workplace, service: Service) -> Any:
    return child("bench.sampler", str(service.process.pid), log=place.log)


async def _start_ms(place: Workplace, kind: DatabaseKind, database: str) -> float:
    """Starts a server and returns how long it took until it listened."""
    begin = time.perf_counter()
    async with place.service(kind, database=database):
        return (time.perf_counter() - begin) * 1000


async def _import_ms(service: Service, jobs: str) -> float:
    begin = time.perf_counter()
    await service.client.jobs.import_jobs(jobs)
    return (time.perf_counter() - begin) * 1000


async def _upcoming_ms(service: Service) -> float:
    """Returns how long the first page of all that is due next takes."""
    begin = time.perf_counter()
    runs = [run async for run in service.client.jobs.list_upcoming_runs(limit=_PAGE)]
    milliseconds = (time.perf_counter() - begin) * 1000
    if len(runs) != _PAGE:
        raise RuntimeError(f"There are {len(runs)} upcoming runs on a page of {_PAGE}.")
    return milliseconds


async def _fire(service: Service) -> tuple[float, float]:
    """Has many jobs due at the next minute.

    Returns:
        Seconds from that minute until the last of them had its batch, and until the last of these
        was over.
    """
    due = (datetime.now(UTC) + timedelta(seconds=10) + _MINUTE).replace(second=0, microsecond=0)
    await service.client.jobs.import_jobs(_job_file(_due_job(n, due) for n in range(_DUE)))
    await asyncio.sleep((due - datetime.now(UTC)).total_seconds())
    batches = service.client.batches
    while not [b async for b in batches.list_batches(operation="due", skip=_DUE - 1, limit=1)]:
        await asyncio.sleep(_POLL)
    made = [b async for b in batches.list_batches(operation="due")]
    done = [await service.finish(batch) for batch in made]
    fired, ended = (
        max(getattr(batch, name).ToDatetime(UTC) for batch in done)
        for name in ("create_time", "end_time")
    )
    return (fired - due).total_seconds(), (ended - due).total_seconds()


def _job_file(jobs: Iterable[dict[str, Any]]) -> str:
    return json.dumps({"batch_processing_jobs": list(jobs)})


def _job(number: int) -> dict[str, Any]:
    """Returns a job as people write them, with a schedule of each kind in each zone in turn."""
    return {
        "id": f"bat_bench_job_{number:05}",
        "name": f"Job {number}",
        "description": "One of very many, with a schedule and a filter of its own.",
        "type": "individual",
        "priority": ("low", "medium", "high")[number % 3],
        "category": "posts",
        "template_id": "noop",
        "filters": {"min_likes": number % 10},
        "limit": 500,
        "retry_limit": 3,
        "purpose_id": "benchmark",
        "schedule": _schedule(number),
    }


def _schedule(number: int) -> dict[str, Any]:
    days = [_DAYS[number % 7], _DAYS[(number + 3) % 7]]
    at = f"{number % 24:02}:{number * 7 % 60:02}"
    kinds: tuple[dict[str, Any], ...] = (
        {"frequency": "hourly", "minute": number % 60},
        {"frequency": "daily", "at": at},
        {"frequency": "weekly", "days": days, "at": at},
        {"frequency": "biweekly", "days": days, "at": at},
        {"frequency": "monthly", "day_of_month": 1 + number % 31, "at": at},
        {"frequency": "cron", "expression": f"{number % 60} {number % 24} * * 1-5"},
    )
    zone = _ZONES[number // len(kinds) % len(_ZONES)]
    return kinds[number % len(kinds)] | {"time_zone": zone}


def _due_job(number: int, due: datetime) -> dict[str, Any]:
    return {
        "id": f"bat_bench_due_{number:05}",
        "type": "individual",
        "category": "posts",
        "operation": "due",
        "schedule": {"frequency": "daily", "at": f"{due:%H:%M}", "time_zone": "UTC"},
    }
