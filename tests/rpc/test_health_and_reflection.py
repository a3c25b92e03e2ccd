"""Health tells who is well, and reflection what can be called."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import grpc
import pytest
from batchwork_server.bootstrap import serving
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from tests.rpc.api import Api, told_until_refused

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING

NAMES = {
    "",
    "batchwork.v1.BatchService",
    "batchwork.v1.JobService",
    "batchwork.v1.PreferenceService",
    "batchwork.v1.ValidationService",
    "engine",
    "database",
}


async def status_of(api, name):
    response = await HealthStub(api.channel).Check(HealthCheckRequest(service=name))
    return response.status


async def next_status(responses):
    return (await anext(responses)).status


@pytest.mark.parametrize("name", sorted(NAMES))
async def test_everything_becomes_well_after_the_start(api, name):
    responses = aiter(HealthStub(api.channel).Watch(HealthCheckRequest(service=name)))

    async with asyncio.timeout(10):
        while await next_status(responses) != SERVING:
            pass


async def test_all_names_are_listed(api):
    response = await HealthStub(api.channel).List(HealthListRequest())

    assert set(response.statuses) == NAMES


async def test_a_part_that_is_not_well_is_told_and_told_again_when_it_is(api, server):
    await server.rpc.set_health("database", True)
    responses = aiter(HealthStub(api.channel).Watch(HealthCheckRequest(service="database")))
    first = await next_status(responses)

    await server.rpc.set_health("database", False)
    second = await next_status(responses)

    assert (first, second) == (SERVING, NOT_SERVING)
    assert await status_of(api, "") == SERVING


async def test_a_name_that_nobody_knows_is_not_found(api):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await status_of(api, "no-such-part")

    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_is_answered_while_the_server_drains(api, server):
    await server.rpc.stop_serving()

    assert [await status_of(api, name) for name in sorted(NAMES)] == [NOT_SERVING] * len(NAMES)


async def test_a_health_watch_does_not_hold_up_the_end(settings, processors):
    async with (
        serving(settings, processors=processors) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        responses = aiter(HealthStub(channel).Watch(HealthCheckRequest()))
        await anext(responses)
        # The order of the end: health says no, then open streams are ended.
        await server.rpc.stop_serving()
        stopping = asyncio.create_task(server.rpc.stop(settings.shutdown_grace * 100))

        told, refusal = await told_until_refused(responses)

        await stopping
    assert [response.status for response in told] == [NOT_SERVING]
    assert refusal.reason == "SHUTTING_DOWN"


async def services(api) -> list[str]:
    async def ask():
        yield ServerReflectionRequest(list_services="")

    responses = ServerReflectionStub(api.channel).ServerReflectionInfo(ask())
    return [
        service.name
        async for response in responses
        for service in response.list_services_response.service
    ]


async def test_reflection_lists_the_services(api):
    assert set(await services(api)) == {
        *(name for name in NAMES if name.startswith("batchwork")),
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


async def test_reflection_can_be_switched_off(settings, processors):
    silent = replace(settings, reflection=False)
    async with (
        serving(silent, processors=processors) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await services(Api(channel))

    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
