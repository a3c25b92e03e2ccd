"""Every verb in every state of a batch, with the real use cases, on each database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
from batchwork_server.application.batch_changes import BatchChanges
from batchwork_server.application.batches import chunks_of
from batchwork_server.application.retention import Deletion
from batchwork_server.application.uploads import Uploads
from batchwork_server.application.validation import Validation
from batchwork_server.domain.batch import Batch, BatchState
from batchwork_server.domain.filters import RetryFilter
from batchwork_server.domain.item import ItemState, Outcome
from batchwork_server.domain.submission import Idempotency
from batchwork_server.domain.transition import APPLIES, Effect, Verb, effect_of
from batchwork_server.engine.closing import Closing
from batchwork_server.engine.deadlines import Deadlines
from batchwork_server.engine.dispatch.local import LocalDispatcher
from batchwork_server.errors import NothingMatches, WrongState
from batchwork_server.store.database import Database
from batchwork_server.store.sql_store import SqlStore
from batchwork_server.wakeups import Wakeups

from tests.engine.conftest import CALLER
from tests.factories import TENANT, make_items, make_options, make_request
from tests.fakes import START, FakeClock, FakeUsers
from tests.store.test_chunks import claim, current, failed, record_of, succeeded

S, V = BatchState, Verb
AGAIN = Idempotency()
TIMEOUT = timedelta(minutes=10)

AFTERWARDS: Mapping[Verb, Mapping[BatchState, BatchState | None]] = {
    V.SEAL: {S.DRAFT: S.PENDING},
    V.PAUSE: {S.PENDING: S.PAUSED, S.RUNNING: S.PAUSED},
    V.RESUME: {S.PAUSED: S.RUNNING},
    V.CANCEL: dict.fromkeys((S.DRAFT, S.PENDING, S.RUNNING, S.PAUSED), S.CANCELLING),
    V.EXPIRE: dict.fromkeys((S.DRAFT, S.PENDING, S.RUNNING, S.PAUSED), S.CANCELLING),
    V.RETRY: dict.fromkeys((S.PARTIALLY_SUCCEEDED, S.FAILED, S.CANCELLED, S.EXPIRED), S.PENDING),
    V.DELETE: dict.fromkeys(
        (S.SUCCEEDED, S.PARTIALLY_SUCCEEDED, S.FAILED, S.CANCELLED, S.EXPIRED), None
    ),
}
"""What follows where a verb applies; none where nothing is left."""


class Rig:
    """The use cases over one store, and hands in the place of workers."""

    def __init__(self, store: SqlStore, clock: FakeClock) -> None:
        wakeups = Wakeups()
        dispatcher = LocalDispatcher(chunks=store.chunks, clock=clock, wakeups=wakeups)
        self.store = store
        self.clock = clock
        self.changes = BatchChanges(
            store=store, dispatcher=dispatcher, clock=clock, wakeups=wakeups
        )
        self.uploads = Uploads(
            store=store,
            validation=Validation(FakeUsers()),
            dispatcher=dispatcher,
            clock=clock,
            wakeups=wakeups,
        )
        self.deletion = Deletion(store=store, clock=clock, rows_left=lambda: None)
        self.closing = Closing(store=store, clock=clock, wakeups=wakeups)
        self.deadlines = Deadlines(store=store, clock=clock, wakeups=wakeups)

    async def create(self, *, is_draft: bool = False, count: int = 30) -> Batch:
        """Stores a batch of three chunks, whose time is limited."""
        items = make_items(count)
        request = make_request(options=make_options(chunk_size=10, batch_timeout=TIMEOUT))
        async with self.store.transaction() as tx:
            return await self.store.batches.insert(
                tx,
                tenant_id=TENANT,
                batch_id="bat-1",
                request=request,
                items=items,
                chunks=chunks_of(items, request.options, now=START),
                now=START,
                expire_time=START + TIMEOUT,
                is_draft=is_draft,
            )

    async def process(self, *, failing: int = 0) -> None:
        """Takes everything that is open and records it; the first items fail for good."""
        for chunk in await claim(self.store, now=self.clock.now()):
            outcomes: list[Outcome] = []
            for item in chunk.items:
                make = failed if item.index < failing else succeeded
                outcomes.append(make(item.index, attempts=item.attempts + 1, is_new=item.is_new))
            await self.store.chunks.record([record_of(chunk, outcomes)], now=self.clock.now())

    async def apply(self, verb: Verb, batch: Batch, *, stop_in_flight: bool = False) -> None:
        """Asks for what a verb means, the way that a caller or the engine does.

        Args:
            stop_in_flight: Of a cancellation: items in flight are stopped as well.
        """
        batch_id = batch.batch_id
        match verb:
            case Verb.SEAL:
                await self.uploads.seal_batch(
                    batch_id, expected_count=None, caller=CALLER, idempotency=AGAIN
                )
            case Verb.PAUSE:
                await self.changes.pause_batch(batch_id, caller=CALLER, idempotency=AGAIN)
            case Verb.RESUME:
                await self.changes.resume_batch(batch_id, caller=CALLER, idempotency=AGAIN)
            case Verb.CANCEL:
                await self.changes.cancel_batch(
                    batch_id, caller=CALLER, idempotency=AGAIN, stop_in_flight=stop_in_flight
                )
            case Verb.RETRY:
                states = (ItemState.FAILED, ItemState.CANCELLED, ItemState.EXPIRED)
                await self.changes.retry_batch(
                    batch_id, RetryFilter(states=states), caller=CALLER, idempotency=AGAIN
                )
            case Verb.DELETE:
                await self.deletion.delete_batch(batch_id, caller=CALLER, idempotency=AGAIN)
            case Verb.EXPIRE:
                self.clock.advance(TIMEOUT)
                await self.deadlines.run_once()

    async def batch_in(self, state: BatchState) -> Batch:
        """Returns a batch that came to a state the way that batches do."""
        batch = await self.create(is_draft=state is S.DRAFT)
        match state:
            case S.RUNNING:
                await claim(self.store, limit=1)
            case S.PAUSED | S.CANCELLING:
                await claim(self.store, limit=1)
                await self.apply(V.PAUSE if state is S.PAUSED else V.CANCEL, batch)
            case S.SUCCEEDED:
                await self.process()
            case S.PARTIALLY_SUCCEEDED:
                await self.process(failing=7)
            case S.FAILED:
                await self.process(failing=30)
            case S.CANCELLED | S.EXPIRED:
                await self.apply(V.CANCEL if state is S.CANCELLED else V.EXPIRE, batch)
                await self.closing.run_once()
        batch = await current(self.store, batch)
        assert batch.state is state
        return batch


@pytest.fixture
def rig(database: Database, clock: FakeClock) -> Rig:
    return Rig(SqlStore(database), clock)


def test_the_table_says_what_follows_wherever_a_verb_applies():
    assert {verb: frozenset(after) for verb, after in AFTERWARDS.items()} == APPLIES


@pytest.mark.arrow("batch D", "batch J", "batch M", "batch Q", "batch R", "batch X")
@pytest.mark.parametrize("state", list(BatchState))
@pytest.mark.parametrize(
    ("verb", "stop_in_flight"),
    [
        *(pytest.param(verb, False, id=verb) for verb in Verb),
        pytest.param(V.CANCEL, True, id="cancelled at once"),
    ],
)
async def test_each_verb_does_in_each_state_what_the_table_says(
    rig: Rig, state: BatchState, verb: Verb, stop_in_flight: bool
):
    before = await rig.batch_in(state)

    refusal = None
    try:
        await rig.apply(verb, before, stop_in_flight=stop_in_flight)
    except WrongState as error:
        refusal = error

    if state in AFTERWARDS[verb]:
        assert refusal is None
        after = await assert_became(rig, before, AFTERWARDS[verb][state])
        assert after is None or after.stop_in_flight is stop_in_flight
        return
    if state is S.CANCELLING and stop_in_flight:  # it is what was asked for, but for this
        before = replace(before, stop_in_flight=True, sequence=before.sequence + 1)
    assert await current(rig.store, before) == before, "nothing changes"
    # The engine asks nobody, and is refused by nobody: it only expires what it can.
    is_refused = effect_of(verb, state) is Effect.REFUSED and verb is not V.EXPIRE
    assert (refusal is not None) == is_refused
    if refusal is not None:
        assert refusal.metadata["state"] == state
        assert f"'bat-1' is {state}; it cannot be {verb} now" in refusal.message


async def assert_became(rig: Rig, before: Batch, state: BatchState | None) -> Batch | None:
    if state is None:
        assert await rig.store.batches.get_by_key(before.key) is None
        return None
    batch = await current(rig.store, before)
    assert batch.state is state
    assert batch.sequence == before.sequence + 1
    assert batch.counts.total == before.counts.total
    return batch


async def test_items_in_flight_that_are_stopped_already_are_not_stopped_again(rig: Rig):
    batch = await rig.batch_in(S.CANCELLING)
    await rig.apply(V.CANCEL, batch, stop_in_flight=True)
    stopped = await current(rig.store, batch)

    await rig.apply(V.CANCEL, batch, stop_in_flight=True)
    await rig.apply(V.CANCEL, batch)

    assert stopped.stop_in_flight
    assert await current(rig.store, batch) == stopped


@pytest.mark.arrow("batch T", "batch U", "item M", "item N")
@pytest.mark.parametrize("state", sorted(APPLIES[Verb.CANCEL]))
@pytest.mark.parametrize("verb", [Verb.CANCEL, Verb.EXPIRE])
async def test_what_is_closed_ends_when_its_items_in_flight_are_accounted_for(
    rig: Rig, state: BatchState, verb: Verb
):
    batch = await rig.create(is_draft=state is S.DRAFT)
    running = [] if state in (S.DRAFT, S.PENDING) else await claim(rig.store, limit=1)
    if state is S.PAUSED:
        await rig.apply(V.PAUSE, batch)

    await rig.apply(verb, batch)
    await rig.closing.run_once()
    for chunk in running:
        outcomes = [succeeded(item.index) for item in chunk.items]
        await rig.store.chunks.record([record_of(chunk, outcomes)], now=rig.clock.now())

    batch = await current(rig.store, batch)
    assert batch.state is (S.CANCELLED if verb is V.CANCEL else S.EXPIRED)
    closed = batch.counts.cancelled if verb is V.CANCEL else batch.counts.expired
    assert (batch.counts.succeeded, closed) == (10 * len(running), 30 - 10 * len(running))


@pytest.mark.arrow("batch O")
async def test_a_batch_of_which_nothing_was_taken_is_pending_again_after_a_pause(rig: Rig):
    batch = await rig.batch_in(S.PENDING)

    await rig.apply(V.PAUSE, batch)
    nothing_to_take = await claim(rig.store)
    await rig.apply(V.RESUME, batch)

    assert nothing_to_take == []
    assert (await current(rig.store, batch)).state is S.PENDING
    await rig.process()
    assert (await current(rig.store, batch)).state is S.SUCCEEDED


@pytest.mark.arrow("batch E")
async def test_a_draft_without_work_is_over_when_it_is_sealed(rig: Rig):
    batch = await rig.create(is_draft=True, count=0)

    await rig.apply(V.SEAL, batch)

    assert (await current(rig.store, batch)).state is S.SUCCEEDED


@pytest.mark.parametrize(
    ("verb", "state"), [(Verb.CANCEL, S.CANCELLED), (Verb.EXPIRE, S.EXPIRED)], ids=str
)
async def test_a_draft_without_items_ends_as_what_it_was_closed_for(
    rig: Rig, verb: Verb, state: BatchState
):
    # The story: nothing of an empty draft could expire, and so it SUCCEEDED when its time was over.
    batch = await rig.create(is_draft=True, count=0)

    await rig.apply(verb, batch)

    batch = await current(rig.store, batch)
    assert batch.state is state
    assert batch.state_reason == ("CANCELLED_BY_CALLER" if verb is V.CANCEL else "DRAFT_TIMEOUT")


async def test_a_retry_that_matches_nothing_leaves_the_batch_as_it_was(rig: Rig):
    batch = await rig.batch_in(S.CANCELLED)

    with pytest.raises(NothingMatches):
        await rig.changes.retry_batch(
            batch.batch_id, RetryFilter(), caller=CALLER, idempotency=AGAIN
        )

    assert await current(rig.store, batch) == batch
