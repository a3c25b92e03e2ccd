"""When jobs run next, and what was decided about their due times, on each database."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

import sqlalchemy as sa
from batchwork_server.domain.filters import OccurrenceFilter
from batchwork_server.domain.firing import (
    Decided,
    Decision,
    NextRun,
    Occurrence,
    SkipReason,
    started,
)
from batchwork_server.domain.job import StoredJob
from batchwork_server.store.database import Database
from batchwork_server.store.occurrences import queued_query
from batchwork_server.store.sql_store import SqlStore
from batchwork_server.store.store import DueJob, QueuedDueTimes

from tests.factories import TENANT, make_chunk, make_items, make_request
from tests.fakes import START
from tests.store.test_jobs import make_stored, put

HOUR = timedelta(hours=1)


def run_at(hours: float = 0, *, jitter: timedelta = timedelta(0)) -> NextRun:
    due_time = START + hours * HOUR
    return NextRun(due_time=due_time, start_time=due_time + jitter)


async def schedule(store: SqlStore, next_run: NextRun | None, job_id: str = "job_posts") -> None:
    async with store.transaction() as tx:
        await store.jobs.schedule(tx, {job_id: next_run}, tenant_id=TENANT)


async def put_due(store: SqlStore, next_run: NextRun | None = None) -> DueJob:
    await put(store, make_stored())
    await schedule(store, next_run or run_at())
    [due] = await store.occurrences.due(now=START + HOUR, limit=10)
    return due


async def record(store: SqlStore, due: DueJob, *decided: Decided) -> int:
    async with store.transaction() as tx:
        return await store.occurrences.record(tx, due, decided, now=START)


async def move(store: SqlStore, due: DueJob, next_run: NextRun | None) -> bool:
    async with store.transaction() as tx:
        return await store.occurrences.move(tx, due, next_run)


def fired(hours: float = 0) -> Decided:
    return Decided(run=run_at(hours), decision=Decision.FIRED, batch_id=f"bat_{hours}")


async def listed(store: SqlStore, **changes) -> list[Occurrence]:
    wanted = OccurrenceFilter(**{"tenant_id": TENANT, "job_id": "job_posts"} | changes)
    found, _ = await store.occurrences.list(wanted, page_size=100, before=None)
    return found


async def test_a_job_is_due_when_its_next_run_begins(store: SqlStore) -> None:
    await put(store, make_stored(), make_stored("job_later"), make_stored("job_on_request"))
    await schedule(store, run_at(0, jitter=timedelta(minutes=5)))
    await schedule(store, run_at(1), "job_later")

    early = await store.occurrences.due(now=START, limit=10)
    found = await store.occurrences.due(now=START + timedelta(minutes=5), limit=10)

    assert early == []
    assert [(due.job, due.next_run) for due in found] == [
        (make_stored(), run_at(0, jitter=timedelta(minutes=5)))
    ]


async def test_the_next_start_is_the_first_of_all_jobs_after_a_moment(store: SqlStore) -> None:
    await put(store, make_stored(), make_stored("job_later"), make_stored("job_on_request"))
    await schedule(store, run_at(0, jitter=timedelta(minutes=5)))
    await schedule(store, run_at(1), "job_later")
    first, second = START + timedelta(minutes=5), START + HOUR

    found = [
        await store.occurrences.next_start_time(after=after)
        for after in (START, first - timedelta(microseconds=1), first, second)
    ]

    assert found == [first, first, second, None]


async def test_a_job_that_is_stored_again_stays_due(store: SqlStore) -> None:
    await put_due(store)

    await put(store, make_stored(revision=2, display_name="More posts"))

    [due] = await store.occurrences.due(now=START, limit=10)
    assert due.job.revision == 2


async def test_a_due_job_tells_whether_a_run_of_it_goes_on(store: SqlStore) -> None:
    before = await put_due(store)
    async with store.transaction() as tx:
        await store.batches.insert(
            tx,
            tenant_id=TENANT,
            batch_id="a-run",
            request=make_request(job_id="job_posts"),
            items=make_items(1),
            chunks=[make_chunk(item_count=1)],
            now=START,
        )

    [after] = await store.occurrences.due(now=START, limit=10)

    assert (before.is_running, after.is_running) == (False, True)


async def test_only_one_of_two_moves_a_job_on(store: SqlStore) -> None:
    due = await put_due(store)

    assert [await move(store, due, run_at(1)), await move(store, due, run_at(2))] == [True, False]

    [moved] = await store.occurrences.due(now=START + HOUR, limit=10)
    assert moved.next_run == run_at(1)


async def test_a_job_that_changed_meanwhile_is_not_moved_on(store: SqlStore) -> None:
    due = await put_due(store)
    await put(store, make_stored(revision=2))

    assert not await move(store, due, None)


async def test_a_due_time_is_decided_on_once(store: SqlStore) -> None:
    due = await put_due(store)

    counts = [await record(store, due, fired(0)), await record(store, due, fired(0), fired(1))]

    assert counts == [1, 1]
    assert [each.due_time for each in await listed(store)] == [START + HOUR, START]


async def test_an_occurrence_comes_back_as_it_was_recorded(store: SqlStore) -> None:
    due = await put_due(store)
    skipped = Decided(
        run=run_at(0), decision=Decision.SKIPPED, reason=SkipReason.RUN_FAILED, message="Kein 🎉"
    )

    await record(store, due, skipped)

    assert await listed(store) == [
        Occurrence(
            tenant_id=TENANT,
            job_id="job_posts",
            due_time=START,
            decision=Decision.SKIPPED,
            reason=SkipReason.RUN_FAILED,
            message="Kein 🎉",
            batch_id="",
            decide_time=START,
        )
    ]


async def test_occurrences_are_listed_by_job_and_time_and_page_by_page(store: SqlStore) -> None:
    due = await put_due(store)
    await record(store, due, *(fired(hour) for hour in range(5)))

    wanted = OccurrenceFilter(tenant_id=TENANT, job_id="job_posts")
    first, before = await store.occurrences.list(wanted, page_size=3, before=None)
    second, end = await store.occurrences.list(wanted, page_size=3, before=before)

    assert [each.batch_id for each in first + second] == [f"bat_{n}" for n in (4, 3, 2, 1, 0)]
    assert end is None
    inside = await listed(store, start=START + HOUR, end=START + 3 * HOUR)
    assert [each.batch_id for each in inside] == ["bat_2", "bat_1"]
    assert not await listed(store, tenant_id="other")
    assert not await listed(store, job_id="job_other")


def queued(hours: float = 0) -> Decided:
    return Decided(run=run_at(hours), decision=Decision.QUEUED, queued_as=Decision.CAUGHT_UP)


async def settle(store: SqlStore, waiting: Occurrence) -> bool:
    decided = started(waiting, batch_id="bat_new", now=START + HOUR)
    async with store.transaction() as tx:
        return await store.occurrences.settle(tx, waiting, decided, now=START + HOUR)


async def test_the_first_that_waits_of_each_job_can_begin(store: SqlStore) -> None:
    due = await put_due(store)
    await put(store, make_stored("job_also"), make_stored("job_quiet"))
    await record(store, due, queued(2), fired(0), queued(1))
    also = replace(due, job=make_stored("job_also"))
    await record(store, also, queued(0))

    found = await store.occurrences.queued(limit=10)

    assert [(each.job.definition.job_id, each.occurrence.due_time) for each in found] == [
        ("job_also", START),
        ("job_posts", START + HOUR),
    ]
    assert found[1].occurrence.queued_as is Decision.CAUGHT_UP
    assert len(await store.occurrences.queued(limit=1)) == 1


async def test_only_one_of_two_starts_what_waits(store: SqlStore) -> None:
    await record(store, await put_due(store), queued())
    [waiting] = await store.occurrences.queued(limit=10)

    assert [await settle(store, waiting.occurrence) for _ in range(2)] == [True, False]

    [occurrence] = await listed(store)
    assert (occurrence.decision, occurrence.queued_as) == (Decision.CAUGHT_UP, None)
    assert occurrence.message == "It waited 3600 s for other runs of the job."
    assert await store.occurrences.queued(limit=10) == []


async def test_a_job_is_held_as_it_is_then(store: SqlStore) -> None:
    due = await put_due(store)
    paused = replace(due.job, pause_time=START)
    async with store.transaction() as tx:
        before = await store.occurrences.hold(tx, "job_posts", tenant_id=TENANT)
        await store.jobs.set_pause(tx, paused)
        after = await store.occurrences.hold(tx, "job_posts", tenant_id=TENANT)
        other = await store.occurrences.hold(tx, "job_posts", tenant_id="other")

    assert (before, after, other) == (due.job, paused, None)


async def test_a_due_job_tells_whether_a_due_time_of_it_waits(store: SqlStore) -> None:
    due = await put_due(store)
    await record(store, due, queued())

    [again] = await store.occurrences.due(now=START + HOUR, limit=10)

    assert (due.is_waiting, again.is_waiting) == (False, True)


async def backfill(store: SqlStore, job: StoredJob, *hours: float, backfill_id: str) -> set[float]:
    """Queues due times for a backfill, and returns which of them wait for it now."""
    wanted = QueuedDueTimes(
        due_times=[run_at(each).due_time for each in hours],
        backfill_id=backfill_id,
        is_parallel=False,
    )
    async with store.transaction() as tx:
        queued = await store.occurrences.queue(tx, job, wanted, now=START)
    return {(due_time - START) / HOUR for due_time in queued}


async def cancel(store: SqlStore, backfill_id: str, *, tenant_id: str = TENANT) -> int | None:
    async with store.transaction() as tx:
        return await store.occurrences.cancel_backfill(
            tx, backfill_id, tenant_id=tenant_id, now=START
        )


async def test_a_backfill_takes_what_is_free_or_was_skipped(store: SqlStore) -> None:
    due = await put_due(store)
    skipped = Decided(run=run_at(1), decision=Decision.SKIPPED, reason=SkipReason.MISSED)
    await record(store, due, fired(0), skipped, queued(2))

    first = await backfill(store, due.job, 0, 1, 2, 3, backfill_id="bfl_1")
    second = await backfill(store, due.job, 0, 1, 2, 3, 4, backfill_id="bfl_2")

    assert (first, second) == ({1, 3}, {4})
    [again] = await listed(store, start=START + HOUR, end=START + 2 * HOUR)
    assert (again.decision, again.reason, again.queued_as) == (
        Decision.QUEUED,
        None,
        Decision.BACKFILLED,
    )
    assert {each.due_time for each in await listed(store, backfill_id="bfl_1")} == {
        START + HOUR,
        START + 3 * HOUR,
    }


async def test_what_is_kept_is_found_by_due_time(store: SqlStore) -> None:
    due = await put_due(store)
    await record(store, due, fired(0), fired(1))

    found = await store.occurrences.of_due_times(due.job, [START, START + 2 * HOUR])

    assert {due_time: each.batch_id for due_time, each in found.items()} == {START: "bat_0"}


async def test_a_cancelled_backfill_is_counted_once_and_leaves_what_runs(store: SqlStore) -> None:
    due = await put_due(store)
    await backfill(store, due.job, 0, 1, 2, backfill_id="bfl_1")
    await backfill(store, due.job, 3, backfill_id="bfl_2")
    [waiting] = await store.occurrences.queued(limit=10)
    await settle(store, waiting.occurrence)

    counts = [await cancel(store, "bfl_1"), await cancel(store, "bfl_1")]

    assert counts == [2, 0]
    assert [await cancel(store, "bfl_1", tenant_id="other"), await cancel(store, "bfl_3")] == [
        None,
        None,
    ]
    assert [(each.reason or each.decision) for each in await listed(store)] == [
        *("QUEUED", "CANCELLED", "CANCELLED", "BACKFILLED")
    ]


async def test_what_waits_is_never_forgotten(store: SqlStore) -> None:
    await record(store, await put_due(store), queued(0), fired(1))

    assert await store.occurrences.forget(before=START + HOUR, limit=10) == 1
    assert [each.decision for each in await listed(store)] == [Decision.QUEUED]


async def test_only_a_job_that_is_as_it_was_read_gets_its_first_run(store: SqlStore) -> None:
    await put(store, make_stored(), make_stored("job_changed"))
    jobs, _ = await store.occurrences.unscheduled(limit=10, after=None)
    await put(store, make_stored("job_changed", revision=2))

    async with store.transaction() as tx:
        for job in jobs:
            await store.occurrences.schedule_first(tx, job, run_at(0))

    left, _ = await store.occurrences.unscheduled(limit=10, after=None)
    assert [job.definition.job_id for job in left] == ["job_changed"]


async def test_unscheduled_jobs_come_page_by_page(store: SqlStore) -> None:
    await put(store, *(make_stored(f"job_{n}_of_many") for n in range(5)))

    first, after = await store.occurrences.unscheduled(limit=3, after=None)
    second, end = await store.occurrences.unscheduled(limit=3, after=after)

    assert [job.definition.job_id[:5] for job in first + second] == [f"job_{n}" for n in range(5)]
    assert end is None


async def test_the_oldest_occurrences_are_forgotten_first(store: SqlStore) -> None:
    due = await put_due(store)
    for hour in range(4):
        async with store.transaction() as tx:
            now = START + hour * HOUR
            await store.occurrences.record(tx, due, [fired(hour)], now=now)

    first = await store.occurrences.forget(before=START + 3 * HOUR, limit=2)
    then = await store.occurrences.forget(before=START + 3 * HOUR, limit=2)

    assert (first, then) == (2, 1)
    assert [each.batch_id for each in await listed(store)] == ["bat_3"]


async def plan_of(database: Database, statement: str, **parameters: int) -> str:
    explain = "EXPLAIN QUERY PLAN" if database.dialect == "sqlite" else "EXPLAIN"
    async with database.transaction() as tx:
        if database.dialect == "postgresql":
            await tx.connection.execute(sa.text("SET LOCAL enable_seqscan = off"))
        rows = await tx.connection.execute(sa.text(f"{explain} {statement}"), parameters)
        return "\n".join(str(row) for row in rows)


async def test_the_next_job_is_found_by_its_index(database: Database) -> None:
    plan = await plan_of(database, "SELECT * FROM jobs WHERE next_start_time <= 1")

    assert "ix_jobs_next_start_time" in plan


async def test_what_waits_is_found_by_its_index(database: Database) -> None:
    # The story: SQLite searched with the first column of a pair alone, and by the key of the
    # table; a hundred thousand due times that waited took half a minute at each look.
    plan = await plan_of(database, queued_query(database.dialect), limit=10)

    on_queue = re.findall(r".*(?:SEARCH o|occurrences o(?:_\d)?) .*", plan)
    assert len(on_queue) == (4 if database.dialect == "sqlite" else 2)
    assert all("ix_occurrences_queued" in line for line in on_queue)
    if database.dialect == "sqlite":
        assert "ix_occurrences_queued (tenant_id=? AND job_id>?)" in plan
        assert "SEARCH w USING PRIMARY KEY (tenant_id=? AND job_id=? AND due_time=?)" in plan
    else:
        assert "CTE firsts" in plan, "what is first is found before all that is kept is looked at"
