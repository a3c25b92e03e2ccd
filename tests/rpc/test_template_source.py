"""A server whose templates come from a service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest
import stamina
from batchwork.v1.preference_service_pb2 import GetEffectivePreferenceRequest
from batchwork_server.bootstrap import Serving, serving
from batchwork_server.config import Settings
from batchwork_server.processors.registry import ProcessorRegistry
from batchwork_server.setting_kinds import Secret
from grpc_health.v1.health_pb2 import HealthCheckResponse, HealthListRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.http_service import API_KEY
from tests.rpc.api import Api, refused
from tests.rpc.preferences import put
from tests.template_service import TemplateServer, template_service

ECHO = {"template_id": "echo", "processor": "fake", "operations": ["echo"]}


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    """Retries without waiting."""
    with stamina.set_testing(True, attempts=10, cap=True):
        yield


@pytest.fixture
async def templates() -> AsyncIterator[TemplateServer]:
    async with template_service() as running:
        running.templates = [ECHO]
        yield running


@pytest.fixture
def following(settings: Settings, templates: TemplateServer) -> Settings:
    """The settings of a server that follows the service."""
    return replace(
        settings,
        templates_dir=None,
        template_service_url=templates.url,
        template_service_api_key=Secret(API_KEY),
    )


@asynccontextmanager
async def running(
    settings: Settings, processors: ProcessorRegistry
) -> AsyncIterator[tuple[Serving, Api]]:
    async with (
        serving(settings, processors=processors) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        yield server, Api(channel)


async def health(api: Api) -> Any:
    names = (await HealthStub(api.channel).List(HealthListRequest())).statuses
    return names["template-source"].status if "template-source" in names else None


async def test_batches_run_with_the_templates_of_the_service(
    following: Settings, processors: ProcessorRegistry
):
    async with running(following, processors) as (_, api):
        batch = await api.finished((await api.create_batch()).batch_id)
        status = await health(api)

    assert batch.template_id == "echo"
    assert status == HealthCheckResponse.SERVING


async def test_a_server_starts_without_the_service_and_goes_on_when_it_is_there(
    following: Settings, processors: ProcessorRegistry, templates: TemplateServer
):
    await templates.stop()

    async with running(following, processors) as (server, api):
        refusal = await refused(api.create_batch())
        before = await health(api)
        await templates.start()
        await server.application.template_source.run_once()
        batch = await api.finished((await api.create_batch()).batch_id)

    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.UNAVAILABLE,
        "DEPENDENCY_UNAVAILABLE",
    )
    assert before == HealthCheckResponse.NOT_SERVING
    assert batch.counts.succeeded == 1


async def test_preferences_are_set_and_told_while_no_template_is_known(
    following: Settings, processors: ProcessorRegistry, templates: TemplateServer
):
    await templates.stop()

    async with running(following, processors) as (_, api):
        done = await put(api, template_overrides={"colur": "red"})
        request = GetEffectivePreferenceRequest(user_id="ada", feature_type="posts")
        found = await api.preferences.GetEffectivePreference(request)

    assert not done.warnings
    assert dict(found.template_overrides) == {"colur": "red"}


async def test_what_changes_in_the_service_holds_for_the_next_batch(
    following: Settings, processors: ProcessorRegistry, templates: TemplateServer
):
    async with running(following, processors) as (server, api):
        templates.templates = [{**ECHO, "template_id": "other"}]
        await server.application.template_source.run_once()
        batch = await api.create_batch()

    assert batch.template_id == "other"


async def test_templates_from_files_have_no_such_health(api: Api):
    assert await health(api) is None
