"""WatchPreferenceChanges tells changes as they happen, and leaves none out."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import grpc
import pytest
from batchwork.v1.batch_service_pb2 import WatchBatchRequest
from batchwork.v1.preference_service_pb2 import (
    PREFERENCE_WATCH_KIND_CHANGE as CHANGE,
)
from batchwork.v1.preference_service_pb2 import (
    PREFERENCE_WATCH_KIND_GOING_AWAY as GOING_AWAY,
)
from batchwork.v1.preference_service_pb2 import (
    PREFERENCE_WATCH_KIND_HEARTBEAT as HEARTBEAT,
)
from batchwork.v1.preference_service_pb2 import (
    WatchPreferenceChangesRequest,
    WatchPreferenceChangesResponse,
)
from batchwork_server.bootstrap import serving

from tests.rpc.api import ADA, BOB, OLGA, Api, as_caller, refusal_of, refused, told_until_refused
from tests.rpc.preferences import put


def watch(api, *, metadata=(), **fields):
    request = WatchPreferenceChangesRequest(**fields)
    return api.preferences.WatchPreferenceChanges(request, metadata=metadata)


async def take(stream, count: int) -> list[WatchPreferenceChangesResponse]:
    return [await anext(stream) for _ in range(count)]


async def test_what_changes_from_now_on_is_told(api):
    await put(api, "ada")
    stream = aiter(watch(api))
    [first] = await take(stream, 1)

    for user in ("bob", "cyd"):
        await put(api, user)
    told = await take(stream, 2)

    assert (first.kind, first.after) == (HEARTBEAT, 1)
    assert [(message.kind, message.change.user_id) for message in told] == [
        (CHANGE, "bob"),
        (CHANGE, "cyd"),
    ]
    assert [message.after for message in told] == [2, 3]


async def test_a_watch_goes_on_after_any_change(api):
    for user in ("ada", "bob", "cyd"):
        await put(api, user)

    _, *told = await take(aiter(watch(api, after=1)), 3)

    assert [message.change.sequence for message in told] == [2, 3]


async def test_more_changes_than_a_page_come_without_a_gap(api):
    for number in range(300):
        await put(api, f"user-{number:03}")

    _, *told = await take(aiter(watch(api, after=0)), 301)

    assert [message.change.sequence for message in told] == list(range(1, 301))


async def test_a_change_that_is_yet_to_come_is_out_of_range(api):
    refusal = await refused(watch(api, after=7))

    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.OUT_OF_RANGE,
        "RESUME_TOKEN_EXPIRED",
    )


async def test_a_caller_is_told_of_its_own_tenant_only(guarded):
    mine = aiter(watch(guarded, metadata=as_caller(ADA)))
    everything = aiter(watch(guarded, metadata=as_caller(OLGA), tenant_id="green"))
    await take(mine, 1)
    await take(everything, 1)

    await put(guarded, "bob-user", metadata=as_caller(BOB))
    await put(guarded, "ada-user", metadata=as_caller(ADA))

    [own], [others] = await take(mine, 1), await take(everything, 1)
    assert (own.change.user_id, others.change.user_id) == ("ada-user", "bob-user")


async def test_another_tenant_is_for_operators(guarded):
    refusal = await refused(watch(guarded, metadata=as_caller(ADA), tenant_id="green"))

    assert refusal.code is grpc.StatusCode.PERMISSION_DENIED


async def test_a_server_that_stops_tells_its_watchers(api, server):
    await put(api)
    stream = watch(api)
    await take(aiter(stream), 1)

    server.application.preferences.changes.close()
    told, refusal = await told_until_refused(stream)

    assert (told[-1].kind, told[-1].after) == (GOING_AWAY, 1)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")


async def test_too_many_watchers_are_told_when_to_come_back(settings, processors):
    one_watcher = replace(settings, max_watchers=1)
    async with (
        serving(one_watcher, processors=processors) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        api = Api(channel)
        first = watch(api)
        await take(aiter(first), 1)

        refusal = await refused(watch(api))

        first.cancel()
    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "QUOTA_WATCHERS",
    )
    assert "RetryInfo" in refusal.details


async def test_watches_of_changes_and_of_batches_are_counted_together(
    settings, processors, processor
):
    """Each kind was counted by itself, so a server held twice the watches that it allows."""
    processor.gate = asyncio.Event()
    two_watchers = replace(settings, max_watchers=2)
    async with (
        serving(two_watchers, processors=processors) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        api = Api(channel)
        batch = await api.create_batch()
        request = WatchBatchRequest(batch_id=batch.batch_id)
        of_changes, of_batch = watch(api), api.batches.WatchBatch(request)
        await take(aiter(of_changes), 1)
        await of_batch.read()

        with pytest.raises(grpc.aio.AioRpcError) as refused_changes:
            await take(aiter(watch(api)), 1)
        with pytest.raises(grpc.aio.AioRpcError) as refused_batch:
            await take(aiter(api.batches.WatchBatch(request)), 1)

        of_changes.cancel()
        processor.gate.set()
    assert [refusal_of(refused_changes.value).reason, refusal_of(refused_batch.value).reason] == [
        "QUOTA_WATCHERS",
        "QUOTA_WATCHERS",
    ]


@pytest.mark.parametrize("fields", [{"after": -1}, {"tenant_id": "-"}], ids=list)
async def test_bad_requests_are_violations(api, fields):
    refusal = await refused(watch(api, **fields))

    assert list(refusal.violations) == list(fields)
