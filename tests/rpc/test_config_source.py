"""A server that follows a Config Database shows what is wished there, and tells how it is."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import grpc
import pytest
import stamina
from batchwork.v1.preference_service_pb2 import (
    ExplainUserRequest,
    GetPreferenceRequest,
    SourceNote,
    SourceState,
)
from batchwork_server.application import source_notes
from batchwork_server.bootstrap import Serving, serving
from batchwork_server.config import Settings
from batchwork_server.engine.preference_poller import PreferencePoller
from batchwork_server.processors.registry import ProcessorRegistry
from batchwork_server.setting_kinds import Secret
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.config_service import ConfigService, config_service
from tests.http_service import API_KEY
from tests.rpc.api import Api

NINE = {"frequency": "daily", "preferred_time": "09:00"}
TEN = {"frequency": "daily", "preferred_time": "10:00", "template_overrides": {"tone": "casual"}}


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    """Retries without waiting."""
    with stamina.set_testing(True, attempts=10, cap=True):
        yield


@pytest.fixture
async def service() -> AsyncIterator[ConfigService]:
    async with config_service() as running:
        yield running


@pytest.fixture
def following(settings: Settings, service: ConfigService) -> Settings:
    """The settings of a server that follows the service."""
    return replace(settings, config_service_url=service.url, config_service_api_key=Secret(API_KEY))


@asynccontextmanager
async def running(
    settings: Settings, processors: ProcessorRegistry
) -> AsyncIterator[tuple[Serving, Api]]:
    async with (
        serving(settings, processors=processors) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        yield server, Api(channel)


def poller_of(server: Serving) -> PreferencePoller:
    poller = server.application.preference_poller
    assert poller is not None
    return poller


async def found(api: Api, user_id: str) -> Any:
    request = GetPreferenceRequest(user_id=user_id, feature_type="posts")
    return (await api.preferences.GetPreference(request)).preference


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await holds():
            await asyncio.sleep(0)


async def is_read(server: Serving) -> None:
    """Waits until all users were read once."""
    poller = poller_of(server)

    async def is_well() -> bool:
        return poller.is_well

    await eventually(is_well)


async def note_on(api: Api, user_id: str, *, feature_type: str = "posts") -> SourceNote:
    """Returns what the service is said to say of a user."""
    request = ExplainUserRequest(user_id=user_id, feature_type=feature_type)
    answer = await api.preferences.ExplainUser(request)
    assert answer.HasField("source_note")
    return answer.source_note


def state_of(note: SourceNote) -> str:
    return SourceState.Name(note.state).removeprefix("SOURCE_STATE_")


async def names_of(api: Api) -> dict[str, Any]:
    return dict((await HealthStub(api.channel).List(HealthListRequest())).statuses)


async def test_what_changes_in_the_service_is_seen_by_get_preference(
    following: Settings, processors: ProcessorRegistry, service: ConfigService
):
    service.set("ada", posts=NINE)

    async with running(following, processors) as (server, api):
        poller = poller_of(server)

        async def is_well() -> bool:
            return poller.is_well

        await eventually(is_well)
        first = await found(api, "ada")
        service.set("ada", posts=TEN)
        await poller.run_once()
        second = await found(api, "ada")

    assert (first.schedule.daily.at, second.schedule.daily.at) == ("09:00", "10:00")
    assert dict(second.template_overrides) == {"tone": "casual"}
    assert set(service.keys) == {f"bearer {API_KEY}"}


async def test_health_says_whether_the_service_answers(
    following: Settings, processors: ProcessorRegistry, service: ConfigService
):
    await service.stop()

    async with running(following, processors) as (server, api):
        before = (await names_of(api))["config-source"].status
        await service.start()
        poller = poller_of(server)

        async def answers() -> bool:
            await poller.run_once()
            return poller.is_well

        await eventually(answers)
        overall = (await HealthStub(api.channel).Check(HealthCheckRequest())).status

    assert (before, overall) == (HealthCheckResponse.NOT_SERVING, HealthCheckResponse.SERVING)


async def test_a_server_that_follows_no_service_has_no_such_health(api: Api):
    assert "config-source" not in await names_of(api)


async def test_without_a_service_there_is_no_client_of_http_in_memory(
    settings: Settings, tmp_path: Any
):
    code = (
        "import asyncio, sys\n"
        "from batchwork_server.bootstrap import application\n"
        "from batchwork_server.config import load_settings\n"
        "async def main():\n"
        "    async with application(load_settings()):\n"
        "        print([name for name in ('httpx2', 'stamina') if name in sys.modules])\n"
        "asyncio.run(main())\n"
    )
    environment = {"BATCHWORK_DATABASE_URL": f"sqlite:///{tmp_path / 'other.db'}"}

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        env={"PYTHONPATH": ":".join(sys.path), **environment},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()

    assert out.decode().splitlines()[-1] == "[]"


async def test_who_explains_a_user_is_told_that_the_service_says_the_same(
    following: Settings, processors: ProcessorRegistry, service: ConfigService
):
    service.set("ada", posts=NINE)

    async with running(following, processors) as (server, api):
        await is_read(server)
        ada = await note_on(api, "ada")
        stranger = await note_on(api, "nobody")
        other_feature = await note_on(api, "ada", feature_type="tips")

    assert [state_of(note) for note in (ada, stranger, other_feature)] == ["SAME"] * 3
    assert not ada.stale
    assert list(ada.differences) == []


async def test_preferences_that_are_not_detected_are_told_with_what_differs(
    following: Settings, processors: ProcessorRegistry, service: ConfigService
):
    """The documents' "Preferences not being detected"."""
    service.set("ada", posts=NINE)
    service.set("bob", posts=NINE)

    async with running(following, processors) as (server, api):
        await is_read(server)
        for user, features in (("ada", {"posts": {**TEN, "enabled": False}}), ("eve", {})):
            service.documents[user] = {"tenant_id": user, "active": False, "features": features}
        service.documents["cleo"] = {"tenant_id": "cleo", "features": {"posts": NINE}}
        del service.documents["bob"]
        ada, bob, cleo, eve = [await note_on(api, user) for user in ("ada", "bob", "cleo", "eve")]

    assert [state_of(note) for note in (ada, bob, cleo, eve)] == ["DIFFERENT"] * 3 + ["SAME"]
    told = {each.field: (each.stored, each.source) for each in ada.differences}
    assert told["enabled"] == ("true", "false")
    assert told["inactive"] == ("false", "true")
    assert '"09:00"' in told["schedule"][0]
    assert '"10:00"' in told["schedule"][1]
    assert told["template_overrides"] == ("{}", '{"tone": "casual"}')
    assert "CONFIG_POLL_INTERVAL" in ada.message
    assert [(each.field, bool(each.stored), bool(each.source)) for each in bob.differences] == [
        ("preference", True, False)
    ]
    assert "no document of the user" in bob.message
    assert [(each.field, bool(each.stored), bool(each.source)) for each in cleo.differences] == [
        ("preference", False, True)
    ]


async def test_explaining_a_user_never_fails_or_waits_because_the_service_is_away(
    following: Settings,
    processors: ProcessorRegistry,
    service: ConfigService,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(source_notes, "PATIENCE", timedelta(0))
    monkeypatch.setattr(source_notes, "YOUNG", timedelta(0))
    service.set("ada", posts=NINE)

    async with running(following, processors) as (server, api):
        await is_read(server)
        impatient = await note_on(api, "bob")
        monkeypatch.setattr(source_notes, "PATIENCE", timedelta(seconds=30))
        await note_on(api, "ada")
        await service.stop()
        away = await note_on(api, "cleo")
        stale = await note_on(api, "ada")
        await service.start()

    assert [state_of(note) for note in (impatient, away)] == ["UNANSWERED"] * 2
    assert "did not answer within" in impatient.message
    assert away.message.startswith("Error connecting to Config Database")
    assert (state_of(stale), stale.stale) == ("SAME", True)
    assert stale.age.ToMicroseconds() > 0
    assert "before it went away" in stale.message


async def test_a_document_that_cannot_be_read_is_told_to_who_explains_its_user(
    following: Settings, processors: ProcessorRegistry, service: ConfigService
):
    async with running(following, processors) as (server, api):
        await is_read(server)
        service.documents["ada"] = {"tenant_id": "ada", "features": {"posts": {"odd": 1}}}
        note = await note_on(api, "ada")

    assert state_of(note) == "UNANSWERED"
    assert "$.features.posts.odd" in note.message


async def test_of_other_tenants_the_service_is_not_asked(
    following: Settings, processors: ProcessorRegistry, service: ConfigService
):
    async with running(replace(following, config_tenant="acme"), processors) as (server, api):
        await is_read(server)
        request = ExplainUserRequest(user_id="ada", feature_type="posts")
        answer = await api.preferences.ExplainUser(request)

    assert not answer.HasField("source_note")
    assert not [request for request in service.requests if request.startswith("/tenants/")]


async def test_without_a_service_nothing_is_said_of_one(api: Api):
    request = ExplainUserRequest(user_id="ada", feature_type="posts")

    assert not (await api.preferences.ExplainUser(request)).HasField("source_note")
