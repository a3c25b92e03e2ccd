"""Each entry of the documents' troubleshooting lists is answered by the server itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import grpc
import pytest
import stamina
from batchwork.v1.job_service_pb2 import PlanJobRequest, RunJobRequest
from batchwork.v1.preference_service_pb2 import (
    ExplainUserRequest,
    ExplainUserResponse,
    SourceState,
    UserDecision,
)
from batchwork_server.bootstrap import Serving, serving
from batchwork_server.config import Settings, load_settings
from batchwork_server.errors import ConfigurationError
from batchwork_server.processors.registry import ProcessorRegistry
from batchwork_server.setting_kinds import Secret
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.config_service import ConfigService, config_service
from tests.http_service import API_KEY, Told
from tests.rpc.api import Api
from tests.rpc.preferences import daily, make_driven_job, put

NINE = {"frequency": "daily", "preferred_time": "09:00"}
TEN = {"frequency": "daily", "preferred_time": "10:00"}


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    with stamina.set_testing(True, attempts=10, cap=True):
        yield


@pytest.fixture
async def service() -> AsyncIterator[ConfigService]:
    async with config_service() as running:
        yield running


def job_of_users() -> dict[str, Any]:
    """Makes a job that needs nothing but users who want posts."""
    job = make_driven_job()
    del job["category"]
    return job


@asynccontextmanager
async def following(
    settings: Settings, processors: ProcessorRegistry, service: ConfigService
) -> AsyncIterator[tuple[Serving, Api]]:
    """Runs a server that follows the service, with a job that preferences for posts drive."""
    settings = replace(
        settings, config_service_url=service.url, config_service_api_key=Secret(API_KEY)
    )
    async with (
        serving(settings, processors=processors) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        api = Api(channel)
        await api.import_jobs(make_driven_job())
        yield server, api


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await holds():
            await asyncio.sleep(0)


async def is_read(server: Serving) -> None:
    poller = server.application.preference_poller
    assert poller is not None

    async def is_well() -> bool:
        return poller.is_well

    await eventually(is_well)


async def health_of_source(api: Api) -> str:
    request = HealthCheckRequest(service="config-source")
    status = (await HealthStub(api.channel).Check(request)).status
    return str(HealthCheckResponse.ServingStatus.Name(status))


async def explain(api: Api, user_id: str = "ada", feature: str = "posts") -> ExplainUserResponse:
    request = ExplainUserRequest(user_id=user_id, feature_type=feature)
    explained: ExplainUserResponse = await api.preferences.ExplainUser(request)
    return explained


def decisions(explained: ExplainUserResponse) -> set[str]:
    return {UserDecision.Name(told.decision)[14:] for told in explained.periods}


def source_of(explained: ExplainUserResponse) -> str:
    return SourceState.Name(explained.source_note.state)[13:]


async def test_no_users_found_for_feature_type_names_the_features_that_users_have(api: Api):
    """The users have preferences, but for another feature than the job's."""
    await api.import_jobs(job_of_users())
    await put(api, feature_type="post", schedule=daily())

    planned = await api.jobs.PlanJob(PlanJobRequest(job_id="driven-job"))
    ran = await api.jobs.RunJob(RunJobRequest(job_id="driven-job"))

    for batch in (planned.batch, ran.batch):
        [warning] = [each for each in batch.warnings if each.reason == "NO_USERS"]
        assert warning.path == "feature_type"
        assert warning.message.startswith('No users found for feature_type "posts": ')
        assert '"post"' in warning.message
    assert decisions(await explain(api)) == {"NO_PREFERENCE"}


async def test_no_users_found_tells_when_nobody_has_any_preference(api: Api):
    await api.import_jobs(job_of_users())

    planned = await api.jobs.PlanJob(PlanJobRequest(job_id="driven-job"))

    [warning] = [each for each in planned.batch.warnings if each.reason == "NO_USERS"]
    assert "nobody has an enabled preference for any feature" in warning.message


async def test_a_run_for_users_is_not_warned_of(api: Api):
    await api.import_jobs(job_of_users())
    await put(api, schedule=daily())

    everybody = await api.jobs.PlanJob(PlanJobRequest(job_id="driven-job"))
    stranger = await api.jobs.PlanJob(PlanJobRequest(job_id="driven-job", user_ids=["eve"]))

    assert "NO_USERS" not in {each.reason for each in everybody.batch.warnings}
    [warning] = [each for each in stranger.batch.warnings if each.reason == "NO_USERS"]
    assert "restricted to" in warning.message


@pytest.mark.parametrize(
    ("told", "named"),
    [
        pytest.param(None, "CONFIG_SERVICE_URL", id="network connectivity"),
        pytest.param(Told(status=401), "CONFIG_SERVICE_API_KEY", id="the API key"),
        pytest.param(Told(status=404), "CONFIG_SERVICE_URL", id="the URL"),
    ],
)
async def test_error_connecting_to_config_database_says_what_to_check(
    settings: Settings,
    processors: ProcessorRegistry,
    service: ConfigService,
    told: Told | None,
    named: str,
):
    """Also the first check of "Preference-based job not running": is the database accessible?"""
    service.set("ada", posts=NINE)
    service.always = told
    if told is None:
        await service.stop()

    async with following(settings, processors, service) as (server, api):
        poller = server.application.preference_poller
        assert poller is not None
        await poller.run_once()
        health = await health_of_source(api)
        explained = await explain(api, "ada")

    assert health == "NOT_SERVING"
    assert decisions(explained) == {"NO_PREFERENCE"}
    if told is None or told.status != 404:  # of one user that says that they are not there
        assert source_of(explained) == "UNANSWERED"
        assert explained.source_note.message.startswith("Error connecting to Config Database")
        assert named in explained.source_note.message


async def test_preferences_not_being_detected_are_told_with_the_polling_interval(
    settings: Settings, processors: ProcessorRegistry, service: ConfigService
):
    """Also the third check of "Preference-based job not running"."""
    service.set("ada", posts=NINE)
    settings = replace(settings, config_poll_interval=timedelta(hours=1))

    async with following(settings, processors, service) as (server, api):
        await is_read(server)
        service.set("ada", posts=TEN)  # the next look is in an hour
        explained = await explain(api)

    assert source_of(explained) == "DIFFERENT"
    [difference] = explained.source_note.differences
    assert difference.field == "schedule"
    assert "CONFIG_POLL_INTERVAL" in explained.source_note.message


@pytest.mark.parametrize("given", ["0", "soon", "2 days"])
def test_a_polling_interval_that_is_none_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, given: str
):
    monkeypatch.setenv("CONFIG_POLL_INTERVAL", given)

    with pytest.raises(ConfigurationError) as raised:
        load_settings()

    assert "CONFIG_POLL_INTERVAL" in str(raised.value)


async def test_a_preference_based_job_without_users_is_told_for_each_check_of_the_guide(
    settings: Settings, processors: ProcessorRegistry, service: ConfigService
):
    service.set("ada", posts=NINE)
    service.set("bob", tips=NINE)

    async with following(settings, processors, service) as (server, api):
        await is_read(server)
        without_preference = await explain(api, "bob")
        other_feature = await explain(api, "bob", feature="tips")
        well = await explain(api)

    assert source_of(well) == "SAME"  # the Config Database is accessible
    assert decisions(without_preference) == {"NO_PREFERENCE"}
    assert '"tips"' in without_preference.periods[0].message
    assert decisions(other_feature) == {"NO_JOB"}  # the feature of the job is another one
    assert [run.job_id for run in well.next_runs] == ["driven-job"]
