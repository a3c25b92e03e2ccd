"""What a Config Database tells, over HTTP and from our own tables."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import time, timedelta
from typing import Any, Protocol

import pytest
from batchwork_server.adapters.config_database import HttpConfigDatabase
from batchwork_server.application.config_sync import ConfigSync
from batchwork_server.application.override_notices import OverrideNotices
from batchwork_server.domain.config_source import UserWishes, WishGroup, WishPage
from batchwork_server.domain.preference import Wish, parse_wish
from batchwork_server.domain.schedule import Daily, Schedule
from batchwork_server.ports import ConfigDatabase
from batchwork_server.store.database import Database, open_database
from batchwork_server.store.sql_store import SqlStore

from tests import own_config_database as module
from tests.config_service import KEY, ConfigService, config_service
from tests.factories import TENANT
from tests.fakes import FakeClock, FakeTemplates
from tests.http_service import API_KEY
from tests.own_config_database import SqlConfigDatabase

DAILY = {"frequency": "daily", "preferred_time": "09:00"}
ZONED = {**DAILY, "time_zone": "Europe/Berlin", "template_overrides": {"tone": "casual"}}
OFF = {"enabled": False}
NINE = Schedule(cadence=Daily(at=time(9)))


class Source(Protocol):
    """A source of preferences, and how a test changes what it has."""

    database: ConfigDatabase

    async def set(self, user_id: str, *, active: bool = True, **features: Any) -> None:
        """Sets all that a user wishes."""
        ...

    async def delete(self, user_id: str) -> None: ...

    async def forget(self) -> None:
        """Forgets every change so far."""
        ...


class HttpSource:
    """A service, read over HTTP."""

    def __init__(self, service: ConfigService, database: ConfigDatabase) -> None:
        self.database = database
        self._service = service

    async def set(self, user_id: str, *, active: bool = True, **features: Any) -> None:
        self._service.set(user_id, **features)
        self._service.set_active(user_id, active=active)

    async def delete(self, user_id: str) -> None:
        self._service.delete(user_id)

    async def forget(self) -> None:
        self._service.forget()


class SqlSource:
    """Our own tables."""

    def __init__(self, database: Database, clock: FakeClock, tenant_id: str = TENANT) -> None:
        self.database: ConfigDatabase = SqlConfigDatabase(database, tenant_id=tenant_id)
        self._store = SqlStore(database)
        self._clock = clock
        self._sync = ConfigSync(
            store=self._store,
            clock=clock,
            tenant_id=tenant_id,
            source="test",
            changed=lambda _tenant_id: None,
            overrides=OverrideNotices(jobs=self._store.jobs, templates=FakeTemplates()),
        )

    async def set(self, user_id: str, *, active: bool = True, **features: Any) -> None:
        wishes = {name: wish_of(document) for name, document in features.items()}
        await self._sync.apply([UserWishes(user_id=user_id, wishes=wishes, active=active)], at=None)

    async def delete(self, user_id: str) -> None:
        await self._sync.apply([UserWishes(user_id=user_id)], at=None)

    async def forget(self) -> None:
        self._clock.advance(timedelta(seconds=1))
        changes = self._store.preference_changes
        while await changes.forget(before=self._clock.now(), limit=1000):
            pass


def wish_of(document: dict[str, Any]) -> Wish:
    wish, violations = parse_wish(document, path="$")
    assert wish is not None, violations
    return wish


@pytest.fixture(params=["http", "sqlite", "postgresql"])
def place(request: pytest.FixtureRequest) -> str:
    if request.param == "http":
        return "http"
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def source(
    place: str, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Source]:
    """Runs the test over HTTP and on each database; two users make a page."""
    if place != "http":
        monkeypatch.setattr(module, "_USERS_AT_ONCE", 2)
        monkeypatch.setattr(module, "_CHANGES_AT_ONCE", 2)
        database = await open_database(place)
        yield SqlSource(database, clock)
        await database.close()
        return
    async with config_service() as service:
        service.page_size = service.changes_size = 2
        client = HttpConfigDatabase(
            url=service.url,
            api_key=API_KEY,
            config_key=KEY,
            timeout=timedelta(seconds=10),
            cache_ttl=timedelta(0),
            clock=clock,
        )
        yield HttpSource(service, client)
        await client.close()


async def pages_of(source: Source) -> list[WishPage]:
    pages = [await source.database.all_users()]
    while pages[-1].next_page_token:
        pages.append(await source.database.all_users(page_token=pages[-1].next_page_token))
    return pages


async def changed_since(source: Source, since_id: str) -> dict[str, UserWishes]:
    """Returns who changed, page by page, and what each wishes at last."""
    users: dict[str, UserWishes] = {}
    more = True
    while more:
        changes = await source.database.changes(since_id)
        assert changes is not None
        assert changes.problems == () or changes.problems == []
        users |= {user.user_id: user for user in changes.users}
        since_id, more = changes.last_id, changes.more_follow
    return users


async def test_all_users_come_page_by_page_with_all_they_wish(source: Source):
    for name in ("ada", "bob", "cleo", "dan", "eve"):
        await source.set(name, posts=DAILY)
    await source.set("cleo", posts=ZONED, tips=OFF)

    pages = await pages_of(source)

    users = [user for page in pages for user in page.users]
    assert [user.user_id for user in users] == ["ada", "bob", "cleo", "dan", "eve"]
    assert [len(page.users) for page in pages] == [2, 2, 1]
    assert users[2].wishes == {"posts": wish_of(ZONED), "tips": wish_of(OFF)}


async def test_a_source_without_users_has_one_empty_page(source: Source):
    [page] = await pages_of(source)

    assert list(page.users) == []


async def test_one_user_is_found_and_a_stranger_is_none(source: Source):
    await source.set("ada", posts=ZONED)

    ada = await source.database.user("ada")
    stranger = await source.database.user("bob")

    assert ada.value == UserWishes(user_id="ada", wishes={"posts": wish_of(ZONED)})
    assert (ada.age, ada.is_stale) == (timedelta(0), False)
    assert stranger.value is None


async def test_an_inactive_user_is_told_as_one(source: Source):
    await source.set("ada", active=False, posts=DAILY)

    ada = (await source.database.user("ada")).value
    [page] = await pages_of(source)

    assert ada is not None
    assert not ada.active
    assert [user.active for user in page.users] == [False]


async def test_groups_count_who_wishes_the_same_schedule(source: Source):
    await source.set("ada", posts=DAILY)
    await source.set("bob", posts=DAILY, tips=ZONED)
    await source.set("cleo", posts={"enabled": True})
    await source.set("dan", posts={**DAILY, "enabled": False})

    groups = (await source.database.groups("posts")).value
    none = (await source.database.groups("nothing")).value

    assert groups is not None
    assert sorted(groups, key=lambda group: group.user_count) == [
        WishGroup(feature_type="posts", schedule=None, user_count=1),
        WishGroup(feature_type="posts", schedule=NINE, user_count=2),
    ]
    assert none == []


async def test_changes_tell_everybody_who_changed_since_and_nobody_else(source: Source):
    await source.set("ada", posts=DAILY)
    since = await source.database.newest_change()
    for name in ("bob", "cleo", "dan"):
        await source.set(name, posts=DAILY)
    await source.set("bob", tips=OFF)
    await source.delete("dan")

    users = await changed_since(source, since)

    assert users == {
        "bob": UserWishes(user_id="bob", wishes={"tips": wish_of(OFF)}),
        "cleo": UserWishes(user_id="cleo", wishes={"posts": wish_of(DAILY)}),
        "dan": UserWishes(user_id="dan"),
    }


async def test_nothing_has_changed_since_the_newest_change(source: Source):
    await source.set("ada", posts=DAILY)
    newest = await source.database.newest_change()

    changes = await source.database.changes(newest)

    assert changes is not None
    assert (list(changes.users), changes.last_id, changes.more_follow) == ([], newest, False)


async def test_changes_of_a_source_that_is_new_begin_somewhere(source: Source):
    since = await source.database.newest_change()
    await source.set("ada", posts=DAILY)

    assert list(await changed_since(source, since)) == ["ada"]


async def test_an_id_that_is_too_old_is_not_known_any_more(source: Source):
    since = await source.database.newest_change()
    await source.set("ada", posts=DAILY)
    newest = await source.database.newest_change()
    await source.forget()

    assert await source.database.changes(since) is None
    assert await source.database.changes(newest) is not None


@pytest.mark.parametrize("since_id", ["no number", "-1", "99999999999999999999", "7"])
async def test_our_own_changes_do_not_know_ids_of_others(
    sqlite_url: str, clock: FakeClock, since_id: str
):
    database = await open_database(sqlite_url)
    source = SqlSource(database, clock)
    await source.set("ada", posts=DAILY)

    assert await source.database.changes(since_id) is None
    await database.close()


async def test_our_own_tables_tell_of_one_tenant_only(database: Database, clock: FakeClock):
    mine, other = SqlSource(database, clock), SqlSource(database, clock, tenant_id="other")
    await other.set("ada", posts=DAILY)

    assert (await mine.database.user("ada")).value is None
    assert [list(page.users) for page in await pages_of(mine)] == [[]]
    assert (await mine.database.groups("posts")).value == []
    assert await mine.database.newest_change() == "0"
