"""Runs that somebody waits for: when the waiting ends, and what is told then."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

import pytest
from batchwork_server.application.firing import Firing
from batchwork_server.application.once import Once, OnceOutcome
from batchwork_server.domain.batch import Batch, BatchState, StateReason
from batchwork_server.store.database import Database

from tests.engine.test_firing import FIRST, JOB, MINUTE, Server
from tests.factories import TENANT, make_loaded_item
from tests.fakes import FakeClock

Result = TypeVar("Result")


class Place(Server):
    """A server with nobody who works, and somebody who waits."""

    def __init__(self, database: Database, *, clock: FakeClock) -> None:
        super().__init__(database, clock=clock)
        self.once = Once(
            store=self.store,
            batches=self.batches,
            firing=Firing(store=self.store, batches=self.batches, clock=clock, zone="UTC"),
            clock=clock,
            wakeups=self.wakeups,
        )

    def waiting(self) -> asyncio.Task[OnceOutcome]:
        """Waits for all that is due."""
        return asyncio.create_task(self.once.run_due())

    async def made(self, count: int = 1) -> list[Batch]:
        """Returns the runs, once there are so many."""
        async with asyncio.timeout(30):
            while len(found := await self.batches_of()) < count:
                await asyncio.sleep(0)
        return found

    async def change(self, batch: Batch, state: BatchState) -> Batch:
        """Does to a batch what a worker or a caller would, and says nothing to who waits."""
        now = self.clock.now()
        async with self.store.transaction() as tx:
            if state is BatchState.PAUSED:
                changed = await self.store.changes.pause(
                    tx,
                    batch.key,
                    reason=StateReason.PAUSED_BY_CALLER,
                    message="",
                    resume_time=None,
                    now=now,
                )
            else:
                changed = await self.store.changes.close(
                    tx,
                    batch.key,
                    closing=state,
                    reason=StateReason.CANCELLED_BY_CALLER,
                    message="",
                    stop_in_flight=False,
                    now=now,
                )
        while await self.store.changes.close_some(now=now):
            pass
        assert changed is not None
        return changed

    def at(self, moment: datetime) -> None:
        self.clock.advance(moment - self.clock.now())


@pytest.fixture
def place(database: Database, clock: FakeClock) -> Place:
    return Place(database, clock=clock)


async def ended(task: asyncio.Task[Result], clock: FakeClock) -> Result:
    """Returns what a task returns; a second goes by, and one more whenever somebody waits."""
    async with asyncio.timeout(30):
        while not task.done():
            clock.advance(timedelta(seconds=1))
            waited = asyncio.ensure_future(clock.waited_on())
            await asyncio.wait({task, waited}, return_when=asyncio.FIRST_COMPLETED)
            waited.cancel()
    return task.result()


async def test_nothing_that_is_due_is_a_success(place: Place):
    outcome = await place.once.run_due()

    assert (outcome.batches, outcome.problems) == ([], ())
    assert outcome.is_completed(strict=True)


@pytest.mark.parametrize("state", [BatchState.CANCELLED, BatchState.EXPIRED, BatchState.PAUSED])
async def test_a_run_that_ends_elsewhere_or_rests_is_seen_and_not_completed(
    place: Place, state: BatchState
):
    await place.put()
    place.at(FIRST)
    task = place.waiting()
    [batch] = await place.made()

    await place.change(batch, state)
    outcome = await ended(task, place.clock)

    assert [each.state for each in outcome.batches] == [state]
    assert not outcome.is_completed(strict=False)
    assert not outcome.is_interrupted


async def test_what_is_open_goes_first_so_that_it_does_not_stand_in_the_way(place: Place):
    await place.put()
    await place.run_at(FIRST)
    [left] = await place.batches_of()
    place.at(FIRST + 60 * MINUTE)
    task = place.waiting()
    await place.clock.waited_on()
    assert [each.batch_id for each in await place.batches_of()] == [left.batch_id]

    await place.change(left, BatchState.CANCELLED)
    _, made = await ended(asyncio.create_task(place.made(2)), place.clock)
    await place.change(made, BatchState.CANCELLED)
    outcome = await ended(task, place.clock)

    assert len(outcome.batches) == 2
    assert set(await place.fates_of()) <= {"FIRED", "CAUGHT_UP"}


async def test_what_was_queued_behind_another_run_is_run_as_well(place: Place):
    await place.put(catch_up="all", catch_up_window=86400)
    place.at(FIRST + 130 * MINUTE)
    task = place.waiting()

    for number in range(1, 4):
        made = await ended(asyncio.create_task(place.made(number)), place.clock)
        assert len(made) == number, "one goes on at a time"
        await place.change(made[-1], BatchState.CANCELLED)
    outcome = await ended(task, place.clock)

    assert len(outcome.batches) == 3
    assert await place.fates_of() == ["CAUGHT_UP"] * 3


async def test_a_job_whose_source_is_away_is_a_problem(place: Place):
    await place.put()
    place.categories.away = True
    place.at(FIRST)

    outcome = await place.once.run_due()

    assert [JOB in problem for problem in outcome.problems] == [True]
    assert not outcome.is_completed(strict=False)
    assert await place.fates_of() == []


async def test_a_run_that_is_deleted_while_it_is_waited_for_is_a_problem(place: Place):
    await place.put()
    place.at(FIRST)
    task = place.waiting()
    [batch] = await place.made()
    await place.clock.waited_on()
    await place.change(batch, BatchState.CANCELLED)
    async with place.store.transaction() as tx:
        await place.store.retention.delete(tx, batch.key)

    outcome = await ended(task, place.clock)

    assert outcome.problems == (f"The batch {batch.batch_id!r} was deleted meanwhile.",)


async def test_whoever_stops_waiting_is_told_what_is_open(place: Place):
    await place.put()
    place.at(FIRST)
    task = place.waiting()
    [batch] = await place.made()

    place.once.stop()
    outcome = await task

    assert outcome.is_interrupted
    assert [each.batch_id for each in outcome.batches] == [batch.batch_id]


async def test_a_job_of_one_item_for_all_is_left_out_for_some_users(place: Place):
    place.categories.add("of_users", make_loaded_item("post_1", user_id="u-1"))
    await place.put("job_all", type="object")
    await place.put()
    place.at(FIRST)
    task = asyncio.create_task(place.once.run_due_for(frozenset({"u-1"})))
    await place.made()

    assert await place.batches_of("job_all") == []
    place.once.stop()
    await task
    assert await place.fates_of() == []


async def test_a_named_job_that_cannot_be_restricted_to_users_is_a_problem(place: Place):
    await place.put(type="object")

    outcome = await place.once.run_named([JOB], tenant_id=TENANT, user_ids=frozenset({"u-1"}))

    assert len(outcome.problems) == 1
    assert "leave user_ids out" in outcome.problems[0]


@pytest.mark.parametrize(
    ("state", "completed", "strictly"),
    [
        (BatchState.SUCCEEDED, True, True),
        (BatchState.PARTIALLY_SUCCEEDED, True, False),
        (BatchState.FAILED, False, False),
        (BatchState.PAUSED, False, False),
    ],
)
async def test_completed_means_what_the_documents_mean(
    place: Place, state: BatchState, completed: bool, strictly: bool
):
    await place.put()
    await place.run_at(FIRST)
    [batch] = await place.batches_of()

    outcome = OnceOutcome(batches=[replace(batch, state=state)], problems=())

    assert outcome.is_completed(strict=False) is completed
    assert outcome.is_completed(strict=True) is strictly
