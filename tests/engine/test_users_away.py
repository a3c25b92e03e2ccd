"""Batches whose users cannot be validated: refused, processed all the same, or deferred."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from batchwork_server.domain.batch import Batch, BatchState, Counts, StateReason, UserValidation
from batchwork_server.domain.distribution import DeliveryCounts
from batchwork_server.domain.filters import ReferenceFilter
from batchwork_server.domain.job import JobShape
from batchwork_server.domain.reference import deliveries_of
from batchwork_server.domain.selection import SelectedItem
from batchwork_server.domain.user import UsersAway, UserVerdict
from batchwork_server.engine import deferred_validation
from batchwork_server.engine.deferred_validation import DeferredValidation
from batchwork_server.errors import SourceUnavailable
from batchwork_server.logs import get_logger
from batchwork_server.metrics import Metrics
from batchwork_server.store import transitions
from batchwork_server.wakeups import Wakeups
from structlog.testing import capture_logs

from tests.engine.conftest import RequestedOptions, StartWorker, Worker
from tests.fakes import FakeClock, FakeProcessor, FakeUsers

HALF = [f"user-{n}" for n in range(20)]
"""The users of a batch; those with an even number are valid."""


def of_users(*user_ids: str) -> tuple[SelectedItem, ...]:
    return tuple(
        SelectedItem(item_id=f"item-{n}", user_id=user_id, data_json="{}")
        for n, user_id in enumerate(user_ids)
    )


WITHOUT_USERS = (SelectedItem(item_id="a", user_id=None, data_json="{}"),)


async def submit(worker: Worker, *user_ids: str, away: UsersAway, **changes: Any) -> Batch:
    """Creates a batch of an item for each user while their source is away."""
    worker.users.add(*HALF[::2])
    worker.users.add(HALF[1], active=False)
    worker.users.away = True
    options = RequestedOptions(users_away=away, chunk_size=5)
    submission = {"items": of_users(*user_ids), "options": options}
    return await worker.submit((), **submission | changes)


async def current(worker: Worker, batch: Batch) -> Batch:
    kept, counted = await worker.store.chunks.check_counts(batch.key)
    assert kept == counted
    found = await worker.store.batches.get_by_key(batch.key)
    assert found is not None
    return found


async def skips(worker: Worker, batch: Batch) -> dict[str, int]:
    return dict(Counter(item.skip_reason for item in await worker.items(batch) if item.skip_reason))


@pytest.fixture
async def worker(start_worker: StartWorker) -> Worker:
    return await start_worker(FakeProcessor())


async def test_unless_it_says_otherwise_no_batch_is_made(worker: Worker):
    with pytest.raises(SourceUnavailable):
        await submit(worker, "user-0", away=UsersAway.FAIL)


async def test_users_who_are_assumed_to_be_valid_count_as_unknown(worker: Worker):
    batch = await submit(worker, "user-0", "nobody", "x" * 129, away=UsersAway.ASSUME_VALID)

    done = await worker.finish(batch)

    assert done.request.user_validation == UserValidation(total=3, invalid=1, unknown=2)
    assert done.counts == Counts(total=3, succeeded=2, skipped=1)
    assert await skips(worker, done) == {"USER_MALFORMED": 1}


@pytest.mark.arrow("batch Y")
async def test_a_deferred_batch_waits_for_its_users(worker: Worker):
    batch = await submit(worker, *HALF, away=UsersAway.DEFER)

    await worker.deferred.run_once()
    waiting = await current(worker, batch)
    [reason] = await worker.batches.wait_reasons(waiting)

    assert (waiting.state, waiting.state_reason) == (
        BatchState.PAUSED,
        StateReason.USERS_UNAVAILABLE,
    )
    assert waiting.request.user_validation == UserValidation(total=20, unknown=20)
    assert (reason.reason, reason.until) == ("USERS_UNAVAILABLE", None)
    assert not worker.work.calls


@pytest.mark.arrow("batch Z")
async def test_a_deferred_batch_begins_without_those_who_are_not_valid(worker: Worker):
    batch = await submit(worker, *HALF, "x" * 129, away=UsersAway.DEFER)
    nothing_to_do = await submit(worker, *HALF[1::2], away=UsersAway.DEFER)
    worker.users.away = False

    await worker.deferred.run_once()
    done = await worker.finish(batch)
    over = await current(worker, nothing_to_do)

    assert done.counts == Counts(total=21, succeeded=10, skipped=11)
    assert done.state_reason == ""
    assert done.request.user_validation == UserValidation(total=21, valid=10, invalid=11)
    assert await skips(worker, done) == {
        "USER_NOT_FOUND": 9,
        "USER_INACTIVE": 1,
        "USER_MALFORMED": 1,
    }
    assert sorted({call.user_id or "" for call in worker.work.calls}) == sorted(HALF[::2])
    assert (over.state, over.counts) == (BatchState.SUCCEEDED, Counts(total=10, skipped=10))


async def test_chunks_without_anything_to_do_are_left_out(worker: Worker):
    strangers = [f"stranger-{n}" for n in range(12)]
    batch = await submit(worker, *strangers, "user-0", away=UsersAway.DEFER)
    worker.users.away = False

    await worker.deferred.run_once()
    done = await worker.finish(batch)

    assert done.counts == Counts(total=13, succeeded=1, skipped=12)


async def test_who_watches_learns_what_was_found(worker: Worker):
    batch = await submit(worker, *HALF, away=UsersAway.DEFER)
    events: list[tuple[str, str]] = []
    skipped: list[str] = []
    watching = worker.watch(batch, include_items=True)
    await anext(watching)
    worker.users.away = False
    await worker.deferred.run_once()

    async for message in watching:
        events.append((message.kind, message.event_type))
        if message.item is not None and message.item.skip_reason:
            skipped.append(message.item.item_id)

    kinds = [kind for kind, _ in events]
    assert ("VALIDATION", "batch:validated") in events
    assert ("STATE_CHANGED", "batch:resumed") in events
    assert kinds.index("VALIDATION") < kinds.index("STATE_CHANGED")
    assert len(skipped) == 10


@pytest.mark.parametrize("in_between", ["resume", "cancel", "expire", "pause"])
async def test_what_becomes_of_a_deferred_batch_otherwise_wins(
    start_worker: StartWorker, in_between: str
):
    clock = FakeClock()
    worker = await start_worker(FakeProcessor(), clock=clock)
    options = RequestedOptions(
        users_away=UsersAway.DEFER, batch_timeout=timedelta(minutes=5), chunk_size=5
    )
    batch = await submit(worker, *HALF, away=UsersAway.DEFER, options=options)
    if in_between == "expire":
        clock.advance(timedelta(minutes=5))
        await worker.deadlines.run_once()
    else:
        await getattr(worker, in_between)(batch)
    worker.users.away = False

    await worker.deferred.run_once()
    if in_between == "pause":
        paused = await current(worker, batch)
        await worker.resume(batch)
    done = await worker.until(batch, lambda batch: batch.state.is_final)

    unknown = UserValidation(total=20, unknown=20)
    assert done.request.user_validation == unknown
    assert await current(worker, done) == done
    match in_between:
        case "cancel":
            assert done.counts == Counts(total=20, cancelled=20)
        case "expire":
            assert done.counts == Counts(total=20, expired=20)
        case "resume":
            assert done.counts == Counts(total=20, succeeded=20)
        case "pause":
            assert paused.state_reason == StateReason.PAUSED_BY_CALLER
            assert done.counts == Counts(total=20, succeeded=20)


async def test_two_loops_at_once_begin_it_once(worker: Worker):
    batch = await submit(worker, *HALF, away=UsersAway.DEFER)
    worker.users.away = False

    await asyncio.gather(*(worker.deferred.run_once() for _ in range(5)))
    done = await worker.finish(batch)

    assert done.counts == Counts(total=20, succeeded=10, skipped=10)
    assert done.request.user_validation == UserValidation(total=20, valid=10, invalid=10)


async def test_a_death_in_the_middle_of_it_leaves_everything_as_it_was(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
):
    batch = await submit(worker, *HALF, away=UsersAway.DEFER)
    worker.users.away = False

    async def die(*_arguments: object, **_named: object) -> None:
        raise RuntimeError("The server died.")

    with monkeypatch.context() as dying:
        dying.setattr(transitions, "resume", die)
        with suppress(RuntimeError):
            await worker.deferred.run_once()
    left = await current(worker, batch)
    await worker.deferred.run_once()
    done = await worker.finish(batch)

    assert left == batch
    assert done.counts == Counts(total=20, succeeded=10, skipped=10)


async def test_a_source_that_is_away_again_in_the_middle_changes_nothing(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("batchwork_server.engine.deferred_validation._USERS_AT_ONCE", 6)
    batch = await submit(worker, *HALF, away=UsersAway.DEFER)
    known, asked = worker.users.verdicts, 0

    async def once(user_ids: Any, *, tenant_id: str) -> Any:
        nonlocal asked
        worker.users.away = asked == 1
        asked += 1
        return await known(user_ids, tenant_id=tenant_id)

    monkeypatch.setattr(worker.users, "verdicts", once)
    await worker.deferred.run_once()
    left = await current(worker, batch)
    await worker.deferred.run_once()
    done = await worker.finish(batch)

    assert left == batch
    assert done.counts == Counts(total=20, succeeded=10, skipped=10)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"shape": JobShape.OBJECT}, id="one item of all users"),
        pytest.param({"is_draft": True}, id="a draft"),
        pytest.param(
            {
                "items": (
                    SelectedItem(item_id="a", user_id=None, data_json='{"user_ids": ["user-0"]}'),
                )
            },
            id="an item that lists users",
        ),
    ],
)
async def test_what_cannot_be_made_without_the_verdicts_is_not_deferred(
    worker: Worker, changes: dict[str, Any]
):
    with pytest.raises(SourceUnavailable):
        await submit(worker, *HALF, away=UsersAway.DEFER, **changes)


async def test_a_batch_that_names_no_user_waits_for_nobody(worker: Worker):
    worker.users.away = True
    options = RequestedOptions(users_away=UsersAway.DEFER)

    done = await worker.finish(await worker.submit(["a"], options=options))

    assert done.counts == Counts(total=1, succeeded=1)


async def references(worker: Worker, batch: Batch) -> dict[str, tuple[str, str]]:
    matching = ReferenceFilter(tenant_id=batch.tenant_id, batch_id=batch.batch_id)
    found, _ = await worker.store.references.list(matching, page_size=100, after=None)
    return {each.recipient.user_id: (each.state, each.reason) for each in found}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"items": of_users("user-0")}, id="with users"),
        pytest.param({"items": WITHOUT_USERS}, id="recipients only"),
        pytest.param({"items": WITHOUT_USERS, "shape": JobShape.OBJECT}, id="one object"),
    ],
)
async def test_recipients_of_a_deferred_batch_are_validated_when_it_begins(
    worker: Worker, changes: dict[str, Any]
):
    """Nobody asked again, and a user who does not exist was told to have the results."""
    recipients = ("user-0", "nobody", "user-1")
    batch = await submit(worker, away=UsersAway.DEFER, recipient_ids=recipients, **changes)
    waiting = await references(worker, batch)
    worker.users.away = False

    await worker.deferred.run_once()
    done = await worker.finish(batch)

    assert (batch.state, batch.state_reason) == (
        BatchState.PAUSED,
        StateReason.USERS_UNAVAILABLE,
    )
    assert {state for state, _ in waiting.values()} == {"PENDING"}
    assert await references(worker, done) == {
        "user-0": ("DELIVERED", ""),
        "nobody": ("FAILED", "USER_NOT_FOUND"),
        "user-1": ("FAILED", "USER_INACTIVE"),
    }
    assert (done.request.distribution.named, done.request.distribution.invalid) == (3, 2)
    assert deliveries_of(done, served=0) == DeliveryCounts(delivered=1, failed=2)


async def test_users_who_were_validated_already_are_counted_once(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
):
    """The source was there for the users, and away for the recipients."""
    known, asked = worker.users.verdicts, 0

    async def away_then(user_ids: Any, *, tenant_id: str) -> Any:
        nonlocal asked
        worker.users.away = asked == 1
        asked += 1
        return await known(user_ids, tenant_id=tenant_id)

    monkeypatch.setattr(worker.users, "verdicts", away_then)
    batch = await submit(
        worker, "user-0", "nobody", away=UsersAway.DEFER, recipient_ids=("nobody",)
    )

    await worker.deferred.run_once()
    done = await worker.finish(batch)

    assert done.request.user_validation == UserValidation(total=2, valid=1, invalid=1)
    assert await references(worker, done) == {"nobody": ("FAILED", "USER_NOT_FOUND")}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"is_draft": True}, id="a draft"),
        pytest.param({"items": ()}, id="nothing to do"),
    ],
)
async def test_recipients_of_what_cannot_wait_are_not_deferred(
    worker: Worker, changes: dict[str, Any]
):
    with pytest.raises(SourceUnavailable):
        await submit(
            worker,
            away=UsersAway.DEFER,
            recipient_ids=("nobody",),
            **{"items": WITHOUT_USERS} | changes,
        )


async def test_what_was_found_is_warned_of_and_counted(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
):
    """The final verdicts were in no metric, and the log named nobody."""
    monkeypatch.setattr(deferred_validation, "log", get_logger(deferred_validation.__name__))
    meter, users = Metrics(), FakeUsers("user-0", "user-2")
    users.add("user-1", active=False)
    deferred = deferred_beside(worker, users, meter=meter)
    strangers = [f"stranger-{n}" for n in range(7)]
    batch = await submit(
        worker, "user-0", *strangers, "user-0", away=UsersAway.DEFER, recipient_ids=("user-1",)
    )
    await submit(worker, "user-2", away=UsersAway.DEFER)

    with capture_logs() as logs:
        await deferred.run_once()

    lines = [line for line in logs if line["event"] == "batch.validated"]
    assert [line["log_level"] for line in lines] == ["warning", "info"]
    assert lines[0]["batch_id"] == batch.batch_id
    assert (lines[0]["invalid_users"], lines[0]["sample"]) == (7, strangers[:5])
    counted = {
        verdict: meter.registry.get_sample_value(
            "batchwork_users_validated_total", {"verdict": verdict}
        )
        for verdict in UserVerdict
    }
    assert {verdict: count for verdict, count in counted.items() if count} == {
        "VALID": 2,
        "NOT_FOUND": 7,
        "INACTIVE": 1,
    }


async def test_a_batch_whose_users_nobody_answers_for_holds_up_no_other(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
):
    batches = [await submit(worker, f"user-{n}", away=UsersAway.DEFER) for n in range(3)]
    worker.users.away = False
    hang_for(worker, monkeypatch, "user-0", "user-2")

    await worker.deferred.run_once()

    states = [(await current(worker, batch)).state for batch in batches]
    assert states[0] == states[2] == BatchState.PAUSED
    assert states[1] is not BatchState.PAUSED


async def test_a_source_that_stays_away_is_not_asked_for_every_batch_and_all_have_their_turn(
    worker: Worker,
):
    users = [f"user-{n}" for n in range(0, 20, 2)]
    for user in users:
        await submit(worker, user, away=UsersAway.DEFER)
    source = FakeUsers()
    source.away = True
    deferred = deferred_beside(worker, source)

    asked = []
    for _ in range(4):
        await deferred.run_once()
        asked.append([user for call in source.calls for user in call])
        source.calls.clear()

    assert asked == [users[0:3], users[3:6], users[6:9], [users[9], *users[0:2]]]


def deferred_beside(
    worker: Worker, users: FakeUsers, *, meter: Metrics | None = None
) -> DeferredValidation:
    """Returns one with a source of its own; that of the worker, which looks by itself, is away."""
    return DeferredValidation(
        store=worker.store, users=users, clock=FakeClock(), wakeups=Wakeups(), meter=meter
    )


def hang_for(worker: Worker, monkeypatch: pytest.MonkeyPatch, *hanging: str) -> None:
    """Has the source answer for everybody but these."""
    known = worker.users.verdicts

    async def verdicts(user_ids: Any, *, tenant_id: str) -> Any:
        if not set(hanging).isdisjoint(user_ids):
            raise SourceUnavailable("It takes too long.")
        return await known(user_ids, tenant_id=tenant_id)

    monkeypatch.setattr(worker.users, "verdicts", verdicts)
