"""P9: many preferences of one feature: set and grouped, grouped by an upgrade, and one changed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from statistics import median
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from batchwork.v1.preference_pb2 import Preference
from batchwork_server.application.group_schedules import GroupSchedules
from batchwork_server.application.preferences import Preferences, WishedPreference
from batchwork_server.clock import SystemClock
from batchwork_server.domain.job import StoredJob, parse_job
from batchwork_server.domain.preference import Wish
from batchwork_server.domain.preference_groups import schedule_of_text
from batchwork_server.logs import configure_logs
from batchwork_server.store import schema
from batchwork_server.store.database import open_database
from batchwork_server.store.sql_store import SqlStore
from sqlalchemy.ext.asyncio import create_async_engine

from bench.measuring import Pair, Scale, Verdict, alternate, tell
from bench.workplace import DatabaseKind, Service, Workplace

_FEW = 1_000
_CHANGES = 200
_WARM_UP = 50
_PAGE = 10_000
_SET_AT_ONCE = 1_000
_ALLOWED = 200
"""Microseconds that a preference may take to be set and grouped."""
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
_BEFORE_GROUPS = "0004"
_ZONES = ("Europe/Berlin", "America/New_York", "Asia/Tokyo", "Australia/Sydney")
_INSERT = sa.text(
    "INSERT INTO preferences (tenant_id, feature_type, user_id, enabled, schedule_json,"
    " overrides_json, revision, create_time, update_time)"
    " VALUES ('default', 'posts', :user, :enabled, :schedule, '{}', 1, 0, 0)"
)


async def grouped(place: Workplace, scale: Scale, kind: DatabaseKind) -> list[Verdict]:
    """P9: sets wishes, groups what an older release has stored, and changes one of few and many."""
    taken_in = await _taken_in(place.database(kind), scale.preferences)
    tell(f"P9 {kind}", **taken_in)
    few, many = place.database(kind), place.database(kind)
    await _store_ungrouped(few, kind, _FEW)
    await _store_ungrouped(many, kind, scale.preferences)
    for url, count in ((few, _FEW), (many, scale.preferences)):
        seconds = await _group(url)
        tell(f"P9 {kind}", preferences=count, grouped=f"in {seconds:.2f} s")
    async with (
        place.service(kind, database=few) as among_few,
        place.service(kind, database=many) as among_many,
    ):
        for service, count in ((among_few, _FEW), (among_many, scale.preferences)):
            await _change(service, count, changes=_WARM_UP)
        pairs = await alternate(
            f"P9 change {kind}",
            runs=2 * scale.runs,
            unit="ms",
            ours=lambda: _change(among_many, scale.preferences, changes=_CHANGES),
            limit=lambda: _change(among_few, _FEW, changes=_CHANGES),
        )
    return [
        Verdict(
            name=f"P9 setting {kind}",
            target=_ALLOWED,
            unit="us",
            pairs=[Pair(ours=taken_in["each"], limit=_ALLOWED)],
            lower_is_better=True,
            target_is_ours=True,
            details=taken_in,
        ),
        Verdict(
            name=f"P9 grouping {kind}",
            target=10,
            unit="s",
            pairs=[Pair(ours=seconds, limit=10)],
            lower_is_better=True,
            target_is_ours=True,
            details={"preferences": scale.preferences},
        ),
        Verdict(
            name=f"P9 change {kind}",
            target=0.8,
            unit="ms",
            pairs=pairs,
            lower_is_better=True,
            details={"preferences": scale.preferences, "few": _FEW},
        ),
    ]


async def _taken_in(url: str, count: int) -> dict[str, float]:
    """Sets preferences as ``BatchSetPreferences`` does, and gives their groups their schedules."""
    configure_logs(level="warning")  # the use cases run in this process, and write a line a call
    database = await open_database(url)
    store, clock = SqlStore(database), SystemClock()
    await _store_job(store, clock)
    preferences = Preferences(store=store, clock=clock, changed=lambda _tenant_id: None)
    wished = (
        WishedPreference(
            user_id=row["user"],
            feature_type="posts",
            wish=Wish(enabled=row["enabled"], schedule=schedule_of_text(row["schedule"] or "")),
        )
        for row in _rows(count)
    )
    begin = time.perf_counter()
    while page := list(islice(wished, _SET_AT_ONCE)):
        await preferences.batch_set_preferences(page, tenant_id="default")
    stored = time.perf_counter()
    await GroupSchedules(store=store, clock=clock, zone="UTC").reconcile()
    end = time.perf_counter()
    await database.close()
    return {
        "preferences": count,
        "set": stored - begin,
        "scheduled": end - stored,
        "each": (end - begin) * 1_000_000 / count,
    }


async def _store_job(store: SqlStore, clock: SystemClock) -> None:
    """Stores a job that the preferences drive."""
    fields = {"id": "job_posts", "type": "preference", "feature_type": "posts"}
    definition, violations = parse_job({**fields, "template_id": "noop"})
    if definition is None:
        raise RuntimeError(f"The job of the benchmark is wrong: {violations}")
    now = clock.now()
    job = StoredJob(
        definition=definition,
        tenant_id="default",
        revision=1,
        source="",
        create_time=now,
        update_time=now,
    )
    async with store.transaction() as tx:
        await store.jobs.put(tx, [job])


async def _store_ungrouped(url: str, kind: DatabaseKind, count: int) -> None:
    """Makes a database as it was before there were groups."""
    engine = create_async_engine(sa.make_url(url).set(drivername=_DRIVERS[kind]))
    async with engine.begin() as connection:
        await connection.run_sync(_make_schema)
        rows = _rows(count)
        while page := list(islice(rows, _PAGE)):
            await connection.execute(_INSERT, page)
    await engine.dispose()


def _make_schema(connection: sa.Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(schema._MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["version_table"] = schema.VERSION_TABLE
    command.upgrade(config, _BEFORE_GROUPS)


def _rows(count: int) -> Iterator[dict[str, Any]]:
    """Yields wishes for 384 daily times in four zones, for the default, and a few for nothing."""
    for number in range(count):
        minutes, zone = number % 96 * 15, _ZONES[number // 96 % len(_ZONES)]
        at = f"{minutes // 60:02}:{minutes % 60:02}"
        schedule = f'{{"frequency": "daily", "at": "{at}", "time_zone": "{zone}"}}'
        yield {
            "user": f"user-{number:07}",
            "enabled": number % 50 != 49,
            "schedule": None if number % 10 == 9 else schedule,
        }


async def _group(url: str) -> float:
    """Brings a database up to date, and returns the seconds that it took."""
    begin = time.perf_counter()
    database = await open_database(url)
    seconds = time.perf_counter() - begin
    await database.close()
    return seconds


async def _change(service: Service, count: int, *, changes: int) -> float:
    """Moves users between groups, one after the other; returns the median of their milliseconds."""
    durations = []
    for number in range(changes):
        wish = Preference(
            user_id=f"user-{number * 7919 % count:07}", feature_type="posts", enabled=True
        )
        wish.schedule.daily.at = f"{time.monotonic_ns() // 1000 % 24:02}:{number % 60:02}"
        begin = time.perf_counter()
        await service.client.preferences.set_preference(wish)
        durations.append((time.perf_counter() - begin) * 1000)
    return median(durations)
