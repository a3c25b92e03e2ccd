"""A watch loses nothing and repeats nothing, whatever the connection does."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import timedelta

import grpc
import pytest
from batchwork.v1.batch_service_pb2 import BatchEvent, WatchBatchesResponse, WatchBatchResponse
from batchwork.v1.batch_service_pb2_grpc import BatchServiceServicer
from batchwork_client import (
    DeadlineExceededError,
    NotFoundError,
    Patience,
    ResourceExhaustedError,
    ResumeTokenExpiredError,
    UnavailableError,
)
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo

from tests.client.servers import (
    END,
    GOING_AWAY,
    HEARTBEAT,
    ITEM_FINISHED,
    PROGRESS,
    SILENCE,
    SNAPSHOT,
    STATE_CHANGED,
    SUCCEEDED,
    TOKEN_EXPIRED,
    UNAVAILABLE,
    HandTimer,
    Refusal,
    Streams,
    end,
    event,
    item_finished,
    progress,
    servicer,
    snapshot,
)


@pytest.fixture
def timer():
    return HandTimer()


@pytest.fixture
def patience(timer):
    return Patience(timer=timer, jitter=lambda: 0.0)


@pytest.fixture
def watched(client_of):
    """Starts a server whose watches go by a script, and returns a client of it."""

    async def start(streams):
        return await client_of(servicer(BatchServiceServicer, WatchBatch=streams))

    return start


async def kinds_of(events):
    return [event.kind async for event in events]


async def test_watch_ends_after_the_last_event(watched):
    client = await watched(Streams([snapshot(1), progress(2), end(3)]))

    events = [event async for event in client.batches.watch_batch("bat-1")]

    assert [event.kind for event in events] == [SNAPSHOT, PROGRESS, END]
    assert events[-1].batch.state == SUCCEEDED


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param([UNAVAILABLE], id="server shuts down"),
        pytest.param([event(GOING_AWAY, 2)], id="server says that it goes away"),
        pytest.param([], id="stream ends early with OK"),
        pytest.param([Refusal(code=grpc.StatusCode.CANCELLED)], id="server cut the stream"),
        pytest.param([Refusal(code=grpc.StatusCode.INTERNAL)], id="stream was reset"),
        pytest.param([Refusal(code=grpc.StatusCode.UNKNOWN)], id="stream was removed"),
    ],
)
async def test_broken_stream_is_resumed_after_the_newest_token(watched, patience, cut):
    streams = Streams([snapshot(1), progress(2), *cut], [progress(3), end(4)])
    client = await watched(streams)

    kinds = await kinds_of(client.batches.watch_batch("bat-1", patience=patience))

    assert kinds == [SNAPSHOT, PROGRESS, PROGRESS, END]
    assert streams.tokens == ["", "t2"]


async def test_watch_that_never_got_an_answer_starts_with_a_snapshot(watched, patience):
    streams = Streams([UNAVAILABLE], [UNAVAILABLE], [snapshot(5), end(6)])
    client = await watched(streams)

    kinds = await kinds_of(client.batches.watch_batch("bat-1", patience=patience))

    assert kinds == [SNAPSHOT, END]
    assert streams.tokens == ["", "", ""]


async def test_watch_starts_after_the_token_it_is_given(watched):
    streams = Streams([progress(8), end(9)])
    client = await watched(streams)

    kinds = await kinds_of(client.batches.watch_batch("bat-1", resume_token="t7"))

    assert kinds == [PROGRESS, END]
    assert streams.tokens == ["t7"]


async def test_resumed_stream_asks_for_the_same_things(watched, patience):
    streams = Streams([UNAVAILABLE], [end(1)])
    client = await watched(streams)

    await kinds_of(
        client.batches.watch_batch(
            "bat-1",
            include_items=True,
            only_failed_items=True,
            min_interval=timedelta(seconds=2),
            tenant_id="acme",
            patience=patience,
        )
    )

    first, second = streams.requests
    assert first == second
    assert second.only_failed_items
    assert second.min_interval.ToTimedelta() == timedelta(seconds=2)
    assert streams.correlation_ids[0] == streams.correlation_ids[1]


async def test_events_that_come_twice_are_dropped(watched, patience):
    streams = Streams(
        [snapshot(1), progress(2), event(STATE_CHANGED, 3), UNAVAILABLE],
        [progress(2), event(STATE_CHANGED, 3), progress(4), end(5)],
    )
    client = await watched(streams)

    kinds = await kinds_of(client.batches.watch_batch("bat-1", patience=patience))

    assert kinds == [SNAPSHOT, PROGRESS, STATE_CHANGED, PROGRESS, END]


async def test_items_of_one_commit_are_told_apart(watched, patience):
    # The commit with sequence 2 finished three items; the stream broke among them.
    streams = Streams(
        [snapshot(1), item_finished(2, "a"), item_finished(2, "b"), UNAVAILABLE],
        [item_finished(2, "a"), item_finished(2, "b"), item_finished(2, "c"), end(3)],
    )
    client = await watched(streams)

    events = client.batches.watch_batch("bat-1", include_items=True, patience=patience)
    items = [event.item.item_id async for event in events if event.kind == ITEM_FINISHED]

    assert items == ["a", "b", "c"]


async def test_event_after_a_snapshot_of_the_same_sequence_is_new(watched):
    client = await watched(Streams([snapshot(2), item_finished(2, "a"), end(3)]))

    kinds = await kinds_of(client.batches.watch_batch("bat-1"))

    assert kinds == [SNAPSHOT, ITEM_FINISHED, END]


async def test_heartbeats_move_the_token_and_are_not_yielded(watched, patience):
    streams = Streams([snapshot(1), event(HEARTBEAT, 7), UNAVAILABLE], [end(8)])
    client = await watched(streams)

    kinds = await kinds_of(client.batches.watch_batch("bat-1", patience=patience))

    assert kinds == [SNAPSHOT, END]
    assert streams.tokens == ["", "t7"]


async def test_expired_token_starts_again_with_a_snapshot(watched, patience):
    streams = Streams(
        [snapshot(1), progress(2), UNAVAILABLE],
        [TOKEN_EXPIRED],
        [snapshot(40), progress(41), end(42)],
    )
    client = await watched(streams)

    kinds = await kinds_of(client.batches.watch_batch("bat-1", patience=patience))

    assert kinds == [SNAPSHOT, PROGRESS, SNAPSHOT, PROGRESS, END]
    assert streams.tokens == ["", "t2", ""]


async def test_snapshot_after_an_expired_token_may_be_older(watched, patience):
    # The database was restored from a backup: its sequences are behind what was seen.
    streams = Streams([TOKEN_EXPIRED], [snapshot(3), progress(4), end(5)])
    client = await watched(streams)

    kinds = await kinds_of(
        client.batches.watch_batch("bat-1", resume_token="t90", patience=patience)
    )

    assert kinds == [SNAPSHOT, PROGRESS, END]


async def test_expired_token_that_was_never_given_is_an_error(watched, patience):
    client = await watched(Streams([TOKEN_EXPIRED]))

    with pytest.raises(ResumeTokenExpiredError):
        await kinds_of(client.batches.watch_batch("bat-1", patience=patience))


async def test_silent_server_counts_as_dead(watched):
    # The snapshot is the first message that is waited for, the silence is the second.
    patience = Patience(timer=HandTimer(expiring=[2]))
    streams = Streams([snapshot(1), SILENCE], [end(2)])
    client = await watched(streams)

    kinds = await kinds_of(client.batches.watch_batch("bat-1", patience=patience))

    assert kinds == [SNAPSHOT, END]
    assert streams.tokens == ["", "t1"]


async def test_pauses_double_up_to_the_longest(watched, timer):
    patience = Patience(
        timer=timer,
        jitter=lambda: 0.0,
        first_pause=timedelta(seconds=1),
        longest_pause=timedelta(seconds=5),
    )
    client = await watched(Streams(*[[UNAVAILABLE]] * 5, [end(1)]))

    await kinds_of(client.batches.watch_batch("bat-1", patience=patience))

    assert [pause.total_seconds() for pause in timer.pauses] == [1, 2, 4, 5, 5]


async def test_pauses_start_again_after_something_new(watched, patience, timer):
    streams = Streams([UNAVAILABLE], [UNAVAILABLE], [snapshot(1), UNAVAILABLE], [end(2)])
    client = await watched(streams)

    await kinds_of(client.batches.watch_batch("bat-1", patience=patience))

    assert timer.pauses == [patience.first_pause, patience.first_pause * 2, patience.first_pause]


async def test_jitter_shortens_a_pause_by_up_to_its_half():
    patience = Patience(first_pause=timedelta(seconds=4), jitter=lambda: 1.0)

    assert patience.pause(failures=1, asked_for=None) == timedelta(seconds=2)


async def test_pause_is_never_shorter_than_the_server_asks_for(watched, patience, timer):
    busy = Refusal(
        code=grpc.StatusCode.RESOURCE_EXHAUSTED,
        reason="QUOTA_WATCHERS",
        details=[RetryInfo(retry_delay=Duration(seconds=7))],
    )
    client = await watched(Streams([busy], [end(1)]))

    await kinds_of(client.batches.watch_batch("bat-1", patience=patience))

    assert timer.pauses == [timedelta(seconds=7)]


async def test_watch_gives_up_when_nothing_new_comes(watched, timer):
    patience = Patience(timer=timer, jitter=lambda: 0.0, give_up_after=timedelta(seconds=60))
    going_away = [snapshot(1), event(GOING_AWAY, 1)]
    client = await watched(Streams(going_away, *[[event(GOING_AWAY, 1)]] * 100))

    with pytest.raises(UnavailableError, match="goes away") as given_up:
        await kinds_of(client.batches.watch_batch("bat-1", patience=patience))

    assert timer.now <= 60
    assert given_up.value.correlation_id


async def test_quota_without_a_delay_is_an_error(watched, patience):
    client = await watched(Streams([Refusal(code=grpc.StatusCode.RESOURCE_EXHAUSTED)]))

    with pytest.raises(ResourceExhaustedError):
        await kinds_of(client.batches.watch_batch("bat-1", patience=patience))


async def test_refused_watch_is_not_tried_again(watched, patience):
    streams = Streams([Refusal(code=grpc.StatusCode.NOT_FOUND)])
    client = await watched(streams)

    with pytest.raises(NotFoundError):
        await kinds_of(client.batches.watch_batch("bat-2", patience=patience))

    assert len(streams.requests) == 1


async def test_fault_that_the_server_names_is_not_tried_again(watched, patience):
    fault = Refusal(code=grpc.StatusCode.INTERNAL, reason="INTERNAL", message="a bug")
    client = await watched(Streams([fault]))

    with pytest.raises(Exception, match="a bug"):
        await kinds_of(client.batches.watch_batch("bat-1", patience=patience))


async def test_leaving_the_loop_closes_the_stream(client_of):
    closed = asyncio.Event()

    async def watch_batch(request, context):
        context.add_done_callback(lambda _: closed.set())
        yield WatchBatchResponse(event=snapshot(1))
        await asyncio.Event().wait()

    client = await client_of(servicer(BatchServiceServicer, WatchBatch=watch_batch))

    async with aclosing(client.batches.watch_batch("bat-1")) as events:
        async for _ in events:
            break

    await closed.wait()


async def test_waiting_returns_the_final_batch(watched, patience):
    client = await watched(Streams([snapshot(1), UNAVAILABLE], [end(2)]))

    batch = await client.batches.wait_for_batch("bat-1", patience=patience)

    assert batch.state == SUCCEEDED


async def test_waiting_too_long_says_that_the_batch_goes_on(watched):
    patience = Patience(timer=HandTimer(expiring=[1]))
    client = await watched(Streams([snapshot(1), SILENCE]))

    with pytest.raises(DeadlineExceededError, match="goes on"):
        await client.batches.wait_for_batch(
            "bat-1", timeout=timedelta(minutes=1), patience=patience
        )


# Many batches


def of(batch_id: str, made: BatchEvent, token: str = "") -> BatchEvent:
    """Makes an event as a watch of many batches tells it."""
    made.batch_id = batch_id
    made.resume_token = token or f"{batch_id}-{made.sequence}"
    return made


@pytest.fixture
def watched_many(client_of):
    """Starts a server whose watches of many go by a script, and returns a client of it."""

    async def start(streams):
        async def answer(request, context):
            async for response in streams.answer(request, context):
                yield WatchBatchesResponse(event=response.event)

        return await client_of(servicer(BatchServiceServicer, WatchBatches=answer))

    return start


async def told_until_end_of(batch_id, events):
    told = []
    async with aclosing(events):
        async for each in events:
            told.append((each.batch_id, each.kind))
            if told[-1] == (batch_id, END):
                break
    return told


async def test_watch_of_many_goes_on_after_the_end_of_one(watched_many):
    streams = Streams(
        [of("a", snapshot(1)), of("b", snapshot(1)), of("a", end(2)), of("b", end(2))]
    )
    client = await watched_many(streams)

    told = await told_until_end_of("b", client.batches.watch_batches())

    assert told == [("a", SNAPSHOT), ("b", SNAPSHOT), ("a", END), ("b", END)]


async def test_watch_of_many_resumes_and_drops_what_comes_twice(watched_many, patience):
    streams = Streams(
        [of("a", snapshot(1)), of("b", snapshot(4)), of("a", end(2)), UNAVAILABLE],
        [of("a", end(2)), of("b", progress(4)), of("b", progress(5)), event(GOING_AWAY, 0)],
        [of("b", progress(5)), of("b", end(6))],
    )
    client = await watched_many(streams)

    told = await told_until_end_of("b", client.batches.watch_batches(patience=patience))

    assert told == [("a", SNAPSHOT), ("b", SNAPSHOT), ("a", END), ("b", PROGRESS), ("b", END)]
    assert streams.tokens == ["", "a-2", "t0"]


async def test_same_sequence_of_another_tenant_s_batch_is_new(watched_many):
    other = of("a", snapshot(1), token="other")
    other.tenant_id = "green"
    client = await watched_many(Streams([of("a", snapshot(1)), other, of("a", end(2))]))

    told = await told_until_end_of("a", client.batches.watch_batches(tenant_id="-"))

    assert told == [("a", SNAPSHOT), ("a", SNAPSHOT), ("a", END)]


async def test_retried_batch_ends_twice(watched_many):
    streams = Streams(
        [of("a", end(2)), of("a", event(STATE_CHANGED, 3)), of("a", end(4)), of("b", end(2))]
    )
    client = await watched_many(streams)

    told = await told_until_end_of("b", client.batches.watch_batches())

    assert told == [("a", END), ("a", STATE_CHANGED), ("a", END), ("b", END)]


async def test_watch_of_many_starts_with_snapshots_after_an_expired_token(watched_many, patience):
    streams = Streams([TOKEN_EXPIRED], [of("a", snapshot(1)), of("a", end(2))])
    client = await watched_many(streams)

    told = await told_until_end_of(
        "a", client.batches.watch_batches(resume_token="old", patience=patience)
    )

    assert told == [("a", SNAPSHOT), ("a", END)]
    assert streams.tokens == ["old", ""]


async def test_resumed_watch_of_many_asks_for_the_same_batches(watched_many, patience):
    streams = Streams([UNAVAILABLE], [of("a", end(1))])
    client = await watched_many(streams)

    events = client.batches.watch_batches(
        operation="annotate",
        job_id="job-1",
        labels={"team": "blue"},
        feature_type="digest",
        without_progress=True,
        min_interval=timedelta(seconds=2),
        tenant_id="-",
        patience=patience,
    )
    await told_until_end_of("a", events)

    first, second = streams.requests
    assert first == second
    assert dict(second.labels) == {"team": "blue"}
    assert second.min_interval.ToTimedelta() == timedelta(seconds=2)
