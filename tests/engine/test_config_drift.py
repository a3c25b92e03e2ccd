"""A Config Database that does not tell its changes is found out by how many users wish what."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import stamina
from batchwork_server.application import config_drift
from batchwork_server.domain.preference import Wish
from batchwork_server.engine import preference_poller
from batchwork_server.logs import get_logger
from batchwork_server.store.database import Database

from tests.config_service import KEY, ConfigService, config_service
from tests.engine.config_following import INTERVAL, REREAD, Server
from tests.factories import TENANT
from tests.fakes import FakeClock
from tests.http_service import Told

NINE = {"frequency": "daily", "preferred_time": "09:00"}
TEN = {"frequency": "daily", "preferred_time": "10:00"}
ALL = f"/config/configs/{KEY}/all-tenants"
GROUPS = "/preferences/groups?feature_type=posts"
LOOK = REREAD / config_drift.LOOKS
REST = REREAD / config_drift.READINGS
"""How long after everything was read it is read again because of drift."""

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    with stamina.set_testing(True, attempts=10, cap=True):
        yield


@pytest.fixture
async def service() -> AsyncIterator[ConfigService]:
    async with config_service() as running:
        yield running


@pytest.fixture
async def server(
    database: Database, service: ConfigService, clock: FakeClock
) -> AsyncIterator[Server]:
    running = Server(database, service, clock)
    await running.put_job("posts")
    yield running
    await running.client.close()


@pytest.fixture
def told(logged: Lines, monkeypatch: pytest.MonkeyPatch) -> Lines:
    """Returns what the log says about the source."""
    for module in (preference_poller, config_drift):
        monkeypatch.setattr(module, "log", get_logger(module.__name__))
    return lambda: [line for line in logged() if line["event"].startswith("config_source.")]


def drifts(told: Lines) -> list[dict[str, Any]]:
    return [line for line in told() if line["event"] == "config_source.drift"]


def change_secretly(service: ConfigService, user_id: str, **features: Any) -> None:
    """Changes what a user wishes, and tells no change."""
    service.documents[user_id] = {"tenant_id": user_id, "active": True, "features": features}


async def poll_for(server: Server, duration: timedelta) -> None:
    """Polls at each interval."""
    for _ in range(duration // INTERVAL):
        assert await server.poll()


async def test_preferences_that_are_not_detected_are_found_on_two_looks(
    server: Server, service: ConfigService, told: Lines
):
    """The documents' "Preferences not being detected"."""
    service.set("ada", posts=NINE)
    service.set("bob", posts=NINE)
    await server.poll()
    await poll_for(server, REST)
    change_secretly(service, "ada", posts=TEN)
    change_secretly(service, "eve", posts=TEN)

    await poll_for(server, LOOK)
    once = await server.times()
    await poll_for(server, LOOK)

    assert once == {"ada/posts": 9, "bob/posts": 9}
    assert await server.times() == {"ada/posts": 10, "bob/posts": 9, "eve/posts": 10}
    [line] = drifts(told)
    assert (line["feature_type"], line["groups"]) == ("posts", 2)
    assert (line["missing_users"], line["surplus_users"]) == (2, 1)


async def test_a_change_that_is_on_its_way_is_no_drift(
    server: Server, service: ConfigService, told: Lines
):
    service.set("ada", posts=NINE)
    await server.poll()
    await poll_for(server, REST)

    change_secretly(service, "eve", posts=TEN)
    await poll_for(server, LOOK)
    service.set("eve", posts=TEN)
    service.requests.clear()
    await poll_for(server, 3 * LOOK)

    assert await server.times() == {"ada/posts": 9, "eve/posts": 10}
    assert drifts(told) == []
    assert ALL not in service.requests


async def test_the_groups_are_asked_for_now_and_then(server: Server, service: ConfigService):
    service.set("ada", posts=NINE)
    await server.poll()
    service.requests.clear()

    await poll_for(server, REREAD - 2 * INTERVAL)

    assert service.requests.count(GROUPS) == config_drift.LOOKS - 1
    assert ALL not in service.requests


async def test_users_with_broken_documents_are_no_drift(
    server: Server, service: ConfigService, told: Lines
):
    service.set("ada", posts=NINE)
    service.documents["bob"] = {"tenant_id": "bob", "features": {"posts": {**NINE, "odd": 1}}}
    await server.preferences.set_preference(
        Wish(), user_id="stranger", feature_type="posts", tenant_id=TENANT
    )
    await server.poll()
    service.requests.clear()

    await poll_for(server, REREAD - 2 * INTERVAL)

    assert GROUPS in service.requests
    assert ALL not in service.requests
    assert drifts(told) == []


async def test_drift_beside_broken_documents_is_found(
    server: Server, service: ConfigService, told: Lines
):
    service.documents["bob"] = {"tenant_id": "bob", "features": {"posts": {**NINE, "odd": 1}}}
    await server.poll()
    await poll_for(server, REST)

    change_secretly(service, "ada", posts=NINE)
    await poll_for(server, 2 * LOOK)

    assert await server.times() == {"ada/posts": 9}
    assert len(drifts(told)) == 1


async def test_a_service_that_never_tells_a_change_is_read_no_more_than_four_times_an_hour(
    server: Server, service: ConfigService
):
    service.set("ada", posts=NINE)
    await server.poll()
    service.requests.clear()

    for minute in range(240):
        change_secretly(service, f"user_{minute}", posts=TEN if minute % 2 else NINE)
        await poll_for(server, INTERVAL)

    readings = service.requests.count(ALL)
    assert 4 < readings <= 4 * config_drift.READINGS


async def test_after_a_restart_what_differs_is_found_as_well(
    server: Server, database: Database, service: ConfigService, clock: FakeClock, told: Lines
):
    service.set("ada", posts=NINE)
    await server.poll()
    change_secretly(service, "ada", posts=TEN)
    clock.advance(REST)

    next_server = Server(database, service, clock)
    await poll_for(next_server, LOOK + INTERVAL)
    await next_server.client.close()

    assert await next_server.times() == {"ada/posts": 10}
    assert len(drifts(told)) == 1


async def test_what_another_server_has_read_is_known(
    server: Server, database: Database, service: ConfigService, clock: FakeClock, told: Lines
):
    service.documents["bob"] = {"tenant_id": "bob", "features": {"posts": {**NINE, "odd": 1}}}
    other = Server(database, service, clock)
    await server.poll()
    service.requests.clear()

    for _ in range(40):
        await other.poller.run_once()
        clock.advance(INTERVAL)
    await other.client.close()

    assert GROUPS in service.requests
    assert ALL not in service.requests
    assert drifts(told) == []


async def test_a_service_without_groups_is_told_once_and_left_alone(
    server: Server, service: ConfigService, told: Lines
):
    service.has_groups = False
    service.set("ada", posts=NINE)
    await server.poll()
    await poll_for(server, 4 * LOOK)

    assert service.requests.count(GROUPS) == 1
    [line] = [line for line in told() if line["event"] == "config_source.groups_missing"]
    assert line["feature_types"] == ["posts"]
    assert server.poller.is_well


async def test_groups_that_do_not_come_say_nothing_and_are_told_once(
    server: Server, service: ConfigService, told: Lines
):
    service.set("ada", posts=NINE)
    await server.poll()
    await poll_for(server, REST)
    change_secretly(service, "ada", posts=TEN)
    service.group_problem = "many"
    await poll_for(server, 3 * LOOK)
    before = await server.times()
    service.group_problem = None
    await poll_for(server, 2 * LOOK)

    assert before == {"ada/posts": 9}
    assert await server.times() == {"ada/posts": 10}
    unanswered = [line for line in told() if line["event"] == "config_source.groups_unanswered"]
    assert len(unanswered) == 1
    assert server.poller.is_well


async def test_without_a_job_that_preferences_drive_nobody_asks_for_groups(
    database: Database, service: ConfigService, clock: FakeClock
):
    alone = Server(database, service, clock)
    service.set("ada", posts=NINE)

    await alone.poll()
    await poll_for(alone, 4 * LOOK)
    await alone.client.close()

    assert not [request for request in service.requests if "groups" in request]


async def test_an_away_service_does_not_count_as_a_look(
    server: Server, service: ConfigService, told: Lines
):
    service.set("ada", posts=NINE)
    await server.poll()
    await poll_for(server, REST)

    service.always = Told(status=400)
    for _ in range(2 * LOOK // INTERVAL):
        await server.poll()
    service.always = None
    await server.poll()

    assert drifts(told) == []
    assert await server.times() == {"ada/posts": 9}
