"""Jobs with a schedule fire: each due time once, or with a reason why not."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

import pytest
from batchwork_server import failpoints
from batchwork_server.application import firing as module
from batchwork_server.application.batches import Batches
from batchwork_server.application.firing import Firing
from batchwork_server.application.job_imports import JobImports
from batchwork_server.application.jobs import Jobs
from batchwork_server.application.notices import JobNotices
from batchwork_server.application.planning import Planning
from batchwork_server.application.validation import Validation
from batchwork_server.domain.batch import Batch, BatchOptions, BatchState, StateReason
from batchwork_server.domain.caller import Caller
from batchwork_server.domain.filters import BatchFilter, OccurrenceFilter
from batchwork_server.domain.firing import Occurrence
from batchwork_server.domain.submission import Idempotency
from batchwork_server.engine.batch_scheduler import BatchScheduler
from batchwork_server.engine.deferred_validation import DeferredValidation
from batchwork_server.engine.dispatch.local import LocalDispatcher
from batchwork_server.errors import StoreUnavailable, Unavailable
from batchwork_server.logs import get_logger
from batchwork_server.store.database import Database, open_database
from batchwork_server.store.sql_store import SqlStore
from batchwork_server.wakeups import Wakeups
from structlog.testing import capture_logs

from tests.factories import TENANT, make_loaded_item, make_template
from tests.fakes import START, FakeCategories, FakeClock, FakeTemplates, FakeUsers

JOB = "job_posts"
HOURLY = {"frequency": "hourly", "minute": 30}
FIRST = START + timedelta(minutes=30)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


class Server:
    """What of a server makes jobs fire, over a database."""

    def __init__(self, database: Database, *, clock: FakeClock) -> None:
        self.store = SqlStore(database)
        self.clock = clock
        self.categories = FakeCategories()
        self.categories.add("posts", make_loaded_item("post_1"), make_loaded_item("post_2"))
        self.categories.add("accounts", make_loaded_item("account_1", user_id="ann"))
        self.users = users = FakeUsers("ann")
        templates = FakeTemplates(make_template(template_id="tpl_posts"))
        self.wakeups = wakeups = Wakeups()
        self.batches = Batches(
            store=self.store,
            planning=Planning(
                store=self.store,
                categories=self.categories,
                validation=Validation(users),
                templates=templates,
                defaults=BatchOptions(chunk_size=10, item_timeout=MINUTE),
                clock=clock,
            ),
            dispatcher=LocalDispatcher(chunks=self.store.chunks, clock=clock, wakeups=wakeups),
            clock=clock,
            wakeups=wakeups,
            alone=False,
            draft_timeout=HOUR,
        )
        notices = JobNotices(
            categories=self.categories,
            users=users,
            templates=templates,
            preferences=self.store.preferences,
        )
        self.jobs = Jobs(
            store=self.store,
            notices=notices,
            templates=templates,
            clock=clock,
            wakeups=wakeups,
            zone="UTC",
        )
        self.imports = JobImports(
            store=self.store,
            notices=notices,
            templates=templates,
            clock=clock,
            wakeups=wakeups,
            zone="UTC",
        )
        self.firing = Firing(store=self.store, batches=self.batches, clock=clock, zone="UTC")
        self.scheduler = BatchScheduler(self.firing, clock=clock, wakeups=wakeups)

    async def put(self, job_id: str = JOB, **fields: Any) -> None:
        """Imports a job that is due at half past every hour."""
        job = {
            "id": job_id,
            "type": "individual",
            "category": "posts",
            "template_id": "tpl_posts",
            "schedule": HOURLY,
        } | fields
        text = json.dumps({"batch_processing_jobs": [job]})
        await self.imports.import_jobs(text, tenant_id=TENANT)

    async def run_at(self, moment: datetime) -> None:
        """Lets the scheduler look once, at that moment."""
        self.clock.advance(moment - self.clock.now())
        await self.scheduler.run_once()

    async def batches_of(self, job_id: str = JOB) -> list[Batch]:
        """Returns the batches of a job, oldest first."""
        wanted = BatchFilter(tenant_id=TENANT, job_id=job_id)
        found, _ = await self.store.batches.list(wanted, page_size=10_000, after=None, skip=0)
        return list(found)[::-1]

    async def occurrences_of(self, job_id: str = JOB) -> list[Occurrence]:
        """Returns what was decided about a job, oldest first."""
        wanted = OccurrenceFilter(tenant_id=TENANT, job_id=job_id)
        found, _ = await self.store.occurrences.list(wanted, page_size=10_000, before=None)
        return found[::-1]

    async def run_now(self, job_id: str = JOB) -> Batch:
        """Runs a job as ``RunJob`` does."""
        caller = Caller(tenant_id=TENANT, name="ada")
        return await self.batches.run_job(job_id, caller=caller, idempotency=Idempotency())

    async def end_runs(self, job_id: str = JOB) -> None:
        """Ends what goes on of a job."""
        now = self.clock.now()
        async with self.store.transaction() as tx:
            for batch in await self.store.changes.open_runs(tx, job_id, tenant_id=TENANT):
                await self.store.changes.close(
                    tx,
                    batch.key,
                    closing=BatchState.CANCELLED,
                    reason=StateReason.CANCELLED_BY_CALLER,
                    message="",
                    stop_in_flight=False,
                    now=now,
                )
        while await self.store.changes.close_some(now=now):
            pass

    async def fates_of(self, job_id: str = JOB) -> list[str]:
        return [each.reason or each.decision for each in await self.occurrences_of(job_id)]


@pytest.fixture
def server(database: Database, clock: FakeClock) -> Server:
    return Server(database, clock=clock)


async def test_a_job_fires_once_when_it_is_due(server: Server):
    await server.put()

    await server.run_at(FIRST - timedelta(microseconds=1))
    assert await server.batches_of() == []
    await server.run_at(FIRST)
    await server.run_at(FIRST + timedelta(seconds=1))

    [batch] = await server.batches_of()
    [occurrence] = await server.occurrences_of()
    assert (batch.request.source, batch.request.job_id, batch.counts.total) == ("schedule", JOB, 2)
    assert batch.batch_id.startswith("bat_schedule_")
    assert (occurrence.due_time, occurrence.decision) == (FIRST, "FIRED")
    assert (occurrence.batch_id, occurrence.reason) == (batch.batch_id, None)


async def test_a_job_fires_at_every_due_time(server: Server):
    await server.put(overlap="allow")

    for hour in range(3):
        await server.run_at(FIRST + hour * HOUR)

    assert [each.create_time for each in await server.batches_of()] == [
        FIRST + hour * HOUR for hour in range(3)
    ]
    assert await server.fates_of() == ["FIRED"] * 3


async def test_jitter_delays_the_start_and_leaves_the_due_time(server: Server):
    await server.put(schedule=HOURLY | {"jitter": 1200})
    [job] = await server.store.occurrences.due(now=FIRST + HOUR / 2, limit=1)
    start = job.next_run.start_time

    await server.run_at(start - timedelta(seconds=1))
    early = await server.batches_of()
    await server.run_at(start)

    assert FIRST < start < FIRST + timedelta(seconds=1200)
    assert early == []
    [occurrence] = await server.occurrences_of()
    assert (occurrence.due_time, occurrence.decide_time) == (FIRST, start)
    assert occurrence.decision == "FIRED"


DAY_LONG, SHORT = {"catch_up_window": 86400}, {"catch_up_window": 3 * 3600}
ALL = {"catch_up": "all"} | SHORT
OUTSIDE = ["OUTSIDE_WINDOW"] * 6


@pytest.mark.parametrize(
    ("policies", "expected", "then"),
    [
        pytest.param({}, ["OUTSIDE_WINDOW"] * 8 + ["CAUGHT_UP"], [], id="latest by default"),
        pytest.param(DAY_LONG, ["MISSED"] * 8 + ["CAUGHT_UP"], [], id="latest of a day"),
        pytest.param(
            DAY_LONG | {"overlap": "queue_one"},
            ["MISSED"] * 8 + ["CAUGHT_UP"],
            [],
            id="latest, queued",
        ),
        pytest.param(
            DAY_LONG | {"overlap": "cancel_previous"},
            ["MISSED"] * 8 + ["CAUGHT_UP"],
            [],
            id="latest, cancelling",
        ),
        pytest.param(DAY_LONG | {"catch_up": "none"}, ["MISSED"] * 9, [], id="none"),
        pytest.param(
            DAY_LONG | {"catch_up": "none", "overlap": "queue_one"},
            ["MISSED"] * 9,
            [],
            id="none, queued",
        ),
        pytest.param(
            ALL | {"overlap": "allow"}, [*OUTSIDE, *["CAUGHT_UP"] * 3], [], id="all at once"
        ),
        pytest.param(
            ALL, [*OUTSIDE, "CAUGHT_UP", "QUEUED", "QUEUED"], [7, 8], id="all, one after the other"
        ),
        pytest.param(
            ALL | {"overlap": "queue_one"},
            [*OUTSIDE, "CAUGHT_UP", "QUEUED", "QUEUED"],
            [7, 8],
            id="all, queued",
        ),
        pytest.param(
            ALL | {"overlap": "cancel_previous"},
            [*OUTSIDE, "OVERLAP", "OVERLAP", "CAUGHT_UP"],
            [],
            id="all, cancelling",
        ),
    ],
)
async def test_a_night_without_a_server_is_made_up_for_by_the_policy(
    server: Server, policies: dict[str, Any], expected: list[str], then: list[int]
):
    await server.put(**policies)
    morning = FIRST + 8 * HOUR + 20 * MINUTE

    await server.run_at(morning)

    assert await server.fates_of() == expected
    caught_up = [each.batch_id for each in await server.occurrences_of() if each.batch_id]
    assert [batch.batch_id for batch in await server.batches_of()] == caught_up
    for hour in then:
        await server.end_runs()
        await server.run_at(morning)
        newest = (await server.batches_of())[-1]
        [started] = [e for e in await server.occurrences_of() if e.batch_id == newest.batch_id]
        assert (started.due_time, started.decision) == (FIRST + hour * HOUR, "CAUGHT_UP")
    assert "QUEUED" not in await server.fates_of()
    await server.end_runs()
    await server.run_at(FIRST + 9 * HOUR)
    newest_one = (await server.occurrences_of())[-1]
    assert (newest_one.due_time, newest_one.decision) == (FIRST + 9 * HOUR, "FIRED")


async def test_months_of_missed_minutes_are_all_recorded(server: Server):
    await server.put(
        schedule={"frequency": "cron", "expression": "* * * * *"}, catch_up_window=86400
    )

    await server.run_at(START + 2500 * MINUTE + MINUTE / 2)

    counts = Counter(await server.fates_of())
    assert sum(counts.values()) == 2500
    assert counts["FIRED"] == 1
    assert len(await server.batches_of()) == 1


async def test_a_due_time_is_skipped_while_the_run_before_goes_on(server: Server):
    await server.put()
    await server.run_at(FIRST)

    await server.run_at(FIRST + HOUR)

    assert await server.fates_of() == ["FIRED", "OVERLAP"]
    assert len(await server.batches_of()) == 1


async def test_a_due_time_fires_again_when_the_run_before_is_over(server: Server):
    await server.put()
    await server.run_at(FIRST)
    await server.end_runs()

    await server.run_at(FIRST + HOUR)

    assert await server.fates_of() == ["FIRED", "FIRED"]


async def test_a_run_that_cannot_be_planned_is_skipped_with_the_reason(
    server: Server, logged: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
):
    # A logger keeps the stream that it wrote to first, which was another test's.
    monkeypatch.setattr(module, "log", get_logger(module.__name__))
    await server.put(category="nothing_there")

    await server.run_at(FIRST)
    server.categories.add("nothing_there", make_loaded_item("post_1"))
    await server.run_at(FIRST + HOUR)

    failed, fired = await server.occurrences_of()
    assert (failed.reason, failed.batch_id) == ("RUN_FAILED", "")
    assert "There is no category 'nothing_there'" in failed.message
    assert fired.decision == "FIRED"
    [line] = [line for line in logged() if line["event"] == "job.skipped"]
    assert (line["job_id"], line["due_time"], line["lateness"]) == (JOB, FIRST.isoformat(), 0)


async def test_a_source_that_is_away_is_waited_for(server: Server):
    await server.put()
    await server.put("job_without", schedule=None)
    server.categories.away = True

    await server.run_at(FIRST)
    meanwhile = await server.occurrences_of()
    server.categories.away = False
    await server.run_at(FIRST + timedelta(seconds=11))

    assert meanwhile == []
    assert await server.fates_of() == ["FIRED"]


async def test_a_job_that_fails_without_a_known_reason_keeps_no_other_waiting(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    await server.put("job_bad", category="bad")
    await server.put()

    async def select(*_: Any, **__: Any) -> bool:
        raise ZeroDivisionError

    exists = server.categories.exists
    monkeypatch.setattr(
        server.categories,
        "exists",
        lambda name, **more: select() if name == "bad" else exists(name, **more),
    )
    with pytest.raises(ZeroDivisionError):
        await server.run_at(FIRST)
    await server.run_at(FIRST + timedelta(seconds=1))

    assert await server.fates_of() == ["FIRED"]
    assert await server.fates_of("job_bad") == []


async def test_a_job_that_changed_while_it_was_due_fires_as_it_is_now(server: Server):
    await server.put()
    server.clock.advance(FIRST - START)
    await server.put(name="Renamed")

    await server.run_at(FIRST)

    [batch] = await server.batches_of()
    assert (batch.request.display_name, batch.request.job_revision) == ("Renamed", 2)


async def test_another_schedule_counts_from_the_change_on(server: Server):
    await server.put()
    server.clock.advance(FIRST - START)
    await server.put(schedule={"frequency": "hourly", "minute": 45})

    await server.run_at(FIRST)
    await server.run_at(FIRST + 15 * MINUTE)

    assert [each.due_time for each in await server.occurrences_of()] == [FIRST + 15 * MINUTE]


async def test_a_job_that_lost_its_schedule_or_is_deleted_does_not_fire(server: Server):
    await server.put()
    await server.put("job_deleted")
    await server.put(schedule=None)
    await server.jobs.delete_job("job_deleted", tenant_id=TENANT)

    await server.run_at(FIRST)

    assert await server.batches_of() == []
    assert await server.batches_of("job_deleted") == []


async def test_a_job_that_preferences_drive_does_not_fire_by_itself(server: Server):
    await server.put(type="preference", feature_type="digest")

    await server.run_at(FIRST)

    assert await server.occurrences_of() == []


async def test_a_job_that_is_deleted_and_made_again_fires_no_due_time_twice(server: Server):
    await server.put(overlap="allow")
    await server.run_at(FIRST)
    await server.jobs.delete_job(JOB, tenant_id=TENANT)
    server.clock.advance(-MINUTE)
    await server.put(overlap="allow")

    await server.run_at(FIRST)

    assert len(await server.batches_of()) == 1


async def test_a_paused_job_has_not_missed_anything(server: Server, database: Database):
    await server.put(catch_up="all", catch_up_window=86400, overlap="allow")
    await server.jobs.pause_job(JOB, tenant_id=TENANT, note="Holidays.")

    await server.run_at(FIRST)
    await server.put(schedule=HOURLY | {"minute": 45})  # a change does not resume it
    await Server(database, clock=server.clock).scheduler.run_once()  # nor does a start
    await server.run_at(FIRST + 3 * HOUR)
    await server.jobs.resume_job(JOB, tenant_id=TENANT)
    await server.run_at(FIRST + 3 * HOUR + 15 * MINUTE)

    assert [each.due_time for each in await server.occurrences_of()] == [
        FIRST + 3 * HOUR + 15 * MINUTE
    ]


async def test_jobs_of_an_older_release_get_their_next_run_at_the_first_start(
    server: Server, database: Database
):
    await server.put()
    async with server.store.transaction() as tx:
        await server.store.jobs.schedule(tx, {JOB: None}, tenant_id=TENANT)

    await server.scheduler.run_once()
    await server.run_at(FIRST)

    assert await server.fates_of() == ["FIRED"]


async def test_a_database_that_is_away_loses_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    await server.put()

    async def away(*_: Any, **__: Any) -> bool:
        raise StoreUnavailable("The database is away.")

    with monkeypatch.context() as patched:
        patched.setattr(server.store.occurrences, "record", away)
        with pytest.raises(Unavailable):
            await server.run_at(FIRST)
    await server.run_at(FIRST + timedelta(seconds=1))

    assert await server.fates_of() == ["FIRED"]
    assert len(await server.batches_of()) == 1


async def test_a_run_that_is_due_while_the_source_of_users_is_away_waits_for_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "log", get_logger(module.__name__))
    await server.put(category="accounts")
    server.users.away = True

    with capture_logs() as logs:
        for seconds in (0, 5):
            with suppress(Unavailable):
                await server.run_at(FIRST + timedelta(seconds=seconds))
        waiting = await server.batches_of()
        server.users.away = False
        await server.run_at(FIRST + timedelta(seconds=10))
    [batch] = await server.batches_of()

    lines = [line for line in logs if line["event"] == "job.waiting"]
    assert {(line["log_level"], line["reason"]) for line in lines} == {
        ("warning", "DEPENDENCY_UNAVAILABLE")
    }
    assert waiting == []
    assert await server.fates_of() == ["FIRED"]
    assert (batch.request.due_time, batch.request.user_validation.valid) == (FIRST, 1)


async def test_a_run_that_may_be_deferred_fires_and_begins_when_the_source_is_back(
    server: Server,
):
    await server.put(category="accounts", users_away="defer")
    deferred = DeferredValidation(
        store=server.store, users=server.users, clock=server.clock, wakeups=server.wakeups
    )
    server.users.away = True

    await server.run_at(FIRST)
    await deferred.run_once()
    [waiting] = await server.batches_of()
    server.users.away = False
    await deferred.run_once()
    [begun] = await server.batches_of()

    assert (waiting.state, waiting.state_reason) == (
        BatchState.PAUSED,
        StateReason.USERS_UNAVAILABLE,
    )
    assert (begun.state, begun.request.user_validation.valid) == (BatchState.PENDING, 1)
    assert await server.fates_of() == ["FIRED"]


async def test_a_death_after_the_commit_fires_nothing_twice(
    server: Server, database: Database, clock: FakeClock
):
    await server.put(catch_up="all", catch_up_window=86400, overlap="allow", schedule=HOURLY)
    failpoints.arm("fire.committed", "raise", after=1)
    try:
        with pytest.raises(failpoints.Failpoint):
            await server.run_at(FIRST + 3 * HOUR)
    finally:
        failpoints.disarm()
    half = await server.batches_of()

    await Server(database, clock=clock).scheduler.run_once()

    assert len(half) == 2
    assert await server.fates_of() == ["CAUGHT_UP"] * 3 + ["FIRED"]
    assert len(await server.batches_of()) == 4


@asynccontextmanager
async def several(database: Database, database_url: str) -> AsyncIterator[list[Database]]:
    """Opens four databases where that can be, and else shares the one."""
    if database.dialect == "sqlite":  # its lock file keeps a second one away
        yield [database] * 4
        return
    opened = [await open_database(database_url) for _ in range(3)]
    try:
        yield [database, *opened]
    finally:
        for each in opened:
            await each.close()


async def test_four_schedulers_fire_each_due_time_once(
    database: Database, database_url: str, clock: FakeClock
):
    async with several(database, database_url) as databases:
        servers = [Server(each, clock=clock) for each in databases]
        names = [f"job_{number}_of_many" for number in range(40)]
        for name in names:
            await servers[0].put(name, overlap="allow")

        for hour in range(6):
            clock.advance(FIRST + hour * HOUR - clock.now())
            await asyncio.gather(*(each.scheduler.run_once() for each in servers))

        for name in names:
            occurrences = await servers[0].occurrences_of(name)
            assert [each.due_time for each in occurrences] == [FIRST + n * HOUR for n in range(6)]
            assert {each.decision for each in occurrences} == {"FIRED"}
            batches = await servers[0].batches_of(name)
            assert sorted(each.batch_id for each in batches) == sorted(
                each.batch_id for each in occurrences
            )
