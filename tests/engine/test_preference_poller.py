"""A Config Database is followed: what is wished there is wished here, on each database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import time
from typing import Any

import pytest
import stamina
from batchwork_server.domain.declared_overrides import DeclaredOverride
from batchwork_server.domain.preference import Wish
from batchwork_server.domain.schedule import Daily, Schedule
from batchwork_server.engine import preference_poller as module
from batchwork_server.errors import StoreUnavailable
from batchwork_server.logs import get_logger
from batchwork_server.store.database import Database

from tests.config_service import KEY, ConfigService, config_service
from tests.engine.config_following import INTERVAL, REREAD, Server
from tests.factories import TENANT, make_template
from tests.fakes import FakeClock, FakeTemplates
from tests.http_service import Told

NINE = {"frequency": "daily", "preferred_time": "09:00"}
TEN = {"frequency": "daily", "preferred_time": "10:00"}
ALL = f"/config/configs/{KEY}/all-tenants"

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
    yield running
    await running.client.close()


@pytest.fixture
def told(logged: Lines, monkeypatch: pytest.MonkeyPatch) -> Lines:
    """Returns what the log says about the source."""
    # A logger keeps the stream that it wrote to first, which was another test's.
    monkeypatch.setattr(module, "log", get_logger(module.__name__))
    return lambda: [line for line in logged() if line["event"].startswith("config_source.")]


def events(told: Lines) -> list[str]:
    return [line["event"] for line in told()]


async def test_at_first_everybody_is_read_and_then_only_who_changed(
    server: Server, service: ConfigService, told: Lines
):
    service.page_size = 2
    for name in ("ada", "bob", "cleo"):
        service.set(name, posts=NINE)

    assert not server.poller.is_well
    assert await server.poll()
    service.set("bob", posts=TEN)
    service.requests.clear()
    assert await server.poll()

    assert await server.times() == {"ada/posts": 9, "bob/posts": 10, "cleo/posts": 9}
    assert service.requests == ["/preferences/changes?since_id=3"]
    read, changed = told()
    assert (read["event"], read["users"], read["set"]) == ("config_source.read", 3, 3)
    assert (changed["event"], changed["set"], changed["last_id"]) == (
        "config_source.changed",
        1,
        "4",
    )


async def test_what_is_set_already_changes_nothing(
    server: Server, service: ConfigService, told: Lines
):
    service.set("ada", posts=NINE)
    await server.poll()
    before = await server.stored()

    service.set("ada", posts=NINE)
    await server.poll()
    await server.poll()

    assert await server.stored() == before
    assert server.announced == [TENANT]
    assert events(told) == ["config_source.read"]


async def test_a_feature_that_is_not_in_the_document_any_more_is_not_wished(
    server: Server, service: ConfigService
):
    service.set("ada", posts=NINE, tips=NINE)
    service.set("bob", posts=NINE)
    await server.poll()

    service.set("ada", tips=NINE)
    service.delete("bob")
    await server.poll()

    assert await server.times() == {"ada/tips": 9}


async def test_a_user_who_is_not_active_is_stored_so(server: Server, service: ConfigService):
    service.set("ada", posts=NINE)
    await server.poll()

    service.set_active("ada", active=False)
    await server.poll()

    preference = (await server.stored())["ada/posts"]
    assert (preference.active, preference.enabled, preference.revision) == (False, True, 2)


async def test_the_service_wins_over_what_was_set_here(server: Server, service: ConfigService):
    await server.preferences.set_preference(
        Wish(schedule=Schedule(cadence=Daily(at=time(7)))),
        user_id="ada",
        feature_type="posts",
        tenant_id=TENANT,
    )
    await server.preferences.set_preference(
        Wish(), user_id="stranger", feature_type="posts", tenant_id=TENANT
    )
    service.set("ada", posts=NINE)

    await server.poll()

    assert await server.times() == {"ada/posts": 9, "stranger/posts": None}
    assert (await server.stored())["ada/posts"].revision == 2


async def test_a_service_that_lost_everybody_opts_nobody_out(
    server: Server, service: ConfigService
):
    service.set("ada", posts=NINE)
    await server.poll()

    service.documents.clear()
    server.clock.advance(REREAD)
    await server.poll()

    assert service.requests[-1] == ALL
    assert await server.times() == {"ada/posts": 9}


async def test_a_change_that_nobody_told_is_seen_when_everything_is_read_again(
    server: Server, service: ConfigService
):
    service.set("ada", posts=NINE)
    await server.poll()
    service.documents["ada"]["features"]["posts"] = TEN

    server.clock.advance(REREAD - 2 * INTERVAL)
    await server.poll()
    before = await server.times()
    await server.poll()

    assert before == {"ada/posts": 9}
    assert await server.times() == {"ada/posts": 10}


async def test_when_the_service_forgot_the_change_everything_is_read_again(
    server: Server, service: ConfigService, told: Lines
):
    service.set("ada", posts=NINE)
    await server.poll()
    service.set("ada", posts=TEN)
    service.set("bob", posts=TEN)
    service.forget()

    assert await server.poll()
    service.requests.clear()
    await server.poll()

    assert await server.times() == {"ada/posts": 10, "bob/posts": 10}
    assert service.requests == ["/preferences/changes?since_id=3"]
    assert "config_source.changes_forgotten" in events(told)


async def test_a_restart_goes_on_where_the_last_server_was(
    server: Server, database: Database, service: ConfigService, clock: FakeClock
):
    service.set("ada", posts=NINE)
    await server.poll()
    service.requests.clear()

    next_server = Server(database, service, clock)
    assert await next_server.poll()
    await next_server.client.close()

    assert service.requests == ["/preferences/changes?since_id=1"]


async def test_another_key_is_another_source(
    server: Server, database: Database, service: ConfigService, clock: FakeClock
):
    await server.poll()
    service.requests.clear()

    other = Server(database, service, clock, key="other")
    await other.poll()
    await other.client.close()

    assert "/config/configs/other/all-tenants" in service.requests


async def test_many_changes_come_page_by_page_in_one_look(server: Server, service: ConfigService):
    await server.poll()
    service.changes_size = 3
    for number in range(10):
        service.set(f"user_{number}", posts=NINE)

    await server.poll()

    assert len(await server.times()) == 10
    place = await server.sync.place()
    assert place is not None
    assert place.change_id == "10"


async def test_a_crash_in_the_middle_of_a_look_is_made_up_for(
    server: Server, service: ConfigService, monkeypatch: pytest.MonkeyPatch
):
    await server.poll()
    service.set("ada", posts=NINE)

    async def fail(*_args: Any, **_options: Any) -> bool:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(server.sync, "move", fail)
        with pytest.raises(StoreUnavailable):
            await server.poll()
    await server.poll()

    stored = await server.stored()
    assert {name: each.revision for name, each in stored.items()} == {"ada/posts": 1}
    place = await server.sync.place()
    assert place is not None
    assert place.change_id == "1"


async def test_who_comes_late_with_old_wishes_does_not_overwrite_newer_ones(
    server: Server, service: ConfigService
):
    service.set("ada", posts=NINE)
    await server.poll()
    place = await server.sync.place()
    assert place is not None
    service.set("ada", posts=TEN)
    old = await server.client.changes(place.change_id)
    assert old is not None
    service.set("ada", posts=NINE)
    await server.poll()

    stored = await server.sync.apply(old.users, at=place)
    moved = await server.sync.move(place, at=place)

    assert (stored, moved) == (None, False)
    assert await server.times() == {"ada/posts": 9}


async def test_two_servers_that_read_the_same_service_store_it_once(
    server: Server, database: Database, service: ConfigService, clock: FakeClock
):
    service.page_size = 2
    for number in range(9):
        service.set(f"user_{number}", posts=NINE)
    other = Server(database, service, clock)

    await asyncio.gather(server.poller.run_once(), other.poller.run_once())
    service.set("user_0", posts=TEN)
    await asyncio.gather(server.poll(), other.poll())
    await other.client.close()

    stored = await server.stored()
    assert {name: each.revision for name, each in stored.items()} == {
        f"user_{number}/posts": 1 if number else 2 for number in range(9)
    }
    assert server.poller.is_well
    assert other.poller.is_well


# Not well


async def test_while_the_service_is_away_everything_stays_and_it_is_told_once(
    server: Server, service: ConfigService, told: Lines
):
    service.set("ada", posts=NINE)
    await server.poll()
    await service.stop()

    health = [await server.poll() for _ in range(5)]
    await service.start()
    service.set("ada", posts=TEN)
    back = await server.poll()

    assert health == [True, True, True, False, False]
    assert back
    assert await server.times() == {"ada/posts": 10}
    _, away, changed, back_again = told()
    assert away["event"] == "config_source.away"
    assert away["error"].startswith("Error connecting to Config Database")
    assert away["age"] == INTERVAL.total_seconds()
    assert (changed["event"], back_again["event"]) == (
        "config_source.changed",
        "config_source.back",
    )


async def test_a_service_that_was_never_there_is_not_well(
    server: Server, service: ConfigService, told: Lines
):
    await service.stop()

    assert not await server.poll()
    assert not await server.poll()

    [line] = told()
    assert (line["event"], line["age"]) == ("config_source.away", None)


async def test_a_service_that_flaps_loses_no_change(server: Server, service: ConfigService):
    await server.poll()
    for number in range(6):
        service.set(f"user_{number}", posts=NINE)
        service.behaviours = [Told(status=400)] if number % 2 else []
        await server.poll()
    await server.poll()

    assert len(await server.times()) == 6


async def test_a_wrong_answer_changes_nothing_and_is_told(
    server: Server, service: ConfigService, told: Lines
):
    service.set("ada", posts=NINE)
    await server.poll()
    service.always = Told(body='{"changes": 5}')

    for _ in range(4):
        await server.poll()

    assert not server.poller.is_well
    assert await server.times() == {"ada/posts": 9}
    assert "$.changes: 5 is not a list." in told()[-1]["error"]


async def test_pages_that_lead_in_a_ring_end(server: Server, service: ConfigService, told: Lines):
    service.behaviours = [
        Told(body='{"changes": [], "last_id": 1}'),
        Told(body='{"configs": [], "next_page_token": "a"}'),
        Told(body='{"configs": [], "next_page_token": "b"}'),
        Told(body='{"configs": [], "next_page_token": "a"}'),
    ]

    assert not await server.poll()

    assert 'next_page_token is "a" again' in told()[-1]["error"]
    assert await server.sync.place() is None


async def test_one_broken_tenant_among_many_is_told_and_loses_nobody(
    server: Server, service: ConfigService, told: Lines
):
    service.set("ada", posts=NINE)
    service.set("bob", posts={"frequency": "sometimes"})
    await server.poll()
    service.set("cleo", posts={"frequency": "never"})
    service.set("dan", posts=NINE)

    assert await server.poll()

    assert await server.times() == {"ada/posts": 9, "dan/posts": 9}
    problems = [line for line in told() if line["event"] == "config_source.problems"]
    assert [line["problem_count"] for line in problems] == [1, 1]
    assert [line["problems"][0]["path"] for line in problems] == [
        "$[1].features.posts.frequency",
        "$.changes[0].features.posts.frequency",
    ]


async def test_overrides_that_no_template_knows_are_told_once_and_kept(
    database: Database, service: ConfigService, clock: FakeClock, told: Lines
):
    tone = DeclaredOverride(choices=("casual", "formal"))
    posts = make_template(template_id="tpl_posts", overrides={"tone": tone})
    server = Server(database, service, clock, templates=FakeTemplates(posts))
    await server.put_job("posts")
    service.set("ada", posts={**NINE, "template_overrides": {"colour": "red"}})
    service.set("bob", posts={**NINE, "template_overrides": {"tone": "formal"}})
    await server.poll()
    service.set("bob", posts={**NINE, "template_overrides": {"tone": "rude"}})
    await server.poll()
    service.set("cleo", posts=NINE)
    await server.poll()
    await server.client.close()

    assert (await server.stored())["ada/posts"].template_overrides == {"colour": "red"}
    lines = [line for line in told() if line["event"] == "config_source.overrides"]
    assert [line["notice_count"] for line in lines] == [1, 1]
    assert [(each["path"], each["reason"]) for line in lines for each in line["notices"]] == [
        ("users.ada.posts.template_overrides.colour", "UNKNOWN_OVERRIDE"),
        ("users.bob.posts.template_overrides.tone", "OVERRIDE_NOT_ALLOWED"),
    ]


async def test_a_page_of_many_users_is_stored_in_parts(server: Server, service: ConfigService):
    for number in range(1201):
        service.documents[f"user_{number:04}"] = {
            "tenant_id": f"user_{number:04}",
            "active": True,
            "features": {"posts": NINE},
        }

    await server.poll()

    groups, _ = await server.store.preference_groups.list(
        tenant_id=TENANT, feature_type="posts", with_empty=False, page_size=10, after=None
    )
    assert [group.member_count for group in groups] == [1201]
