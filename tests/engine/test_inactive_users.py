"""Nothing is done for a user who is not active, whatever they have set and for which features."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from batchwork_server.application.config_sync import ConfigSync
from batchwork_server.application.override_notices import OverrideNotices
from batchwork_server.application.preference_imports import PreferenceImports
from batchwork_server.domain.config_source import UserWishes
from batchwork_server.domain.preference import Wish
from batchwork_server.store.database import Database

from tests.engine.groups import FEATURE, GroupServer
from tests.factories import TENANT
from tests.fakes import START, FakeClock, FakeTemplates

TEN = START + timedelta(hours=1)  # START is nine o'clock
AT_TEN = {"frequency": "daily", "preferred_time": "10:00"}
DAY = timedelta(days=1)


@pytest.fixture
def server(database: Database, clock: FakeClock) -> GroupServer:
    return GroupServer(database, clock=clock)


async def say(server: GroupServer, user_id: str, *, active: bool | None, **features: Any) -> None:
    """Imports a document of a user."""
    imports = PreferenceImports(store=server.store, clock=server.clock, changed=lambda _id: None)
    document: dict[str, Any] = {"tenant_id": user_id, "features": features}
    if active is not None:
        document["active"] = active
    users = await imports.read(json.dumps([document]))
    await imports.import_preferences(users, tenant_id=TENANT)


def sync_of(server: GroupServer) -> ConfigSync:
    return ConfigSync(
        store=server.store,
        clock=server.clock,
        tenant_id=TENANT,
        source="test",
        changed=lambda _id: None,
        overrides=OverrideNotices(jobs=server.store.jobs, templates=FakeTemplates()),
    )


async def is_active(server: GroupServer, user_id: str) -> bool:
    found = await server.store.preferences.get(
        user_id=user_id, feature_type=FEATURE, tenant_id=TENANT
    )
    assert found is not None
    return found.active


@pytest.mark.parametrize("features", [{}, {"tips": AT_TEN}], ids=["none", "others"])
async def test_an_inactive_user_without_a_preference_is_not_served_as_a_silent_one(
    server: GroupServer, features: dict[str, Any]
):
    """That a user rests stood with their preferences alone: without one they were served."""
    await server.add_users("ada", "bob")
    await server.put_job(include_all_users=True, default_preferences=AT_TEN)

    await say(server, "bob", active=False, **features)
    await server.scheduler.run_once()
    await server.run_at(TEN)
    await say(server, "bob", active=True)
    await server.run_at(TEN + DAY)

    assert await server.fates() == [{"ada": ""}, {"ada": "", "bob": ""}]


async def test_a_config_database_says_so_of_one_without_features_too(server: GroupServer):
    await server.add_users("ada", "bob")
    await server.put_job(include_all_users=True, default_preferences=AT_TEN)
    sync = sync_of(server)

    await sync.apply([UserWishes(user_id="bob", wishes={}, active=False)], at=None)
    await server.scheduler.run_once()
    await server.run_at(TEN)
    counts = await sync.apply([UserWishes(user_id="bob", wishes={}, active=True)], at=None)
    await server.run_at(TEN + DAY)

    assert await server.fates() == [{"ada": ""}, {"ada": "", "bob": ""}]
    assert counts is not None
    assert counts.changed == 0


async def test_what_an_inactive_user_sets_later_changes_nothing_about_that(server: GroupServer):
    """A new feature of an inactive user was stored as that of an active one."""
    await server.add_users("ada", "bob", "cyd")
    await server.put_job()
    for user in ("ada", "bob", "cyd"):
        await say(server, user, active=False, tips=AT_TEN)

    await server.wish("ada", **AT_TEN)
    await say(server, "bob", active=None, **{FEATURE: AT_TEN})
    await say(server, "cyd", active=True, **{FEATURE: AT_TEN})
    await server.scheduler.run_once()
    await server.run_at(TEN)

    assert [await is_active(server, user) for user in ("ada", "bob", "cyd")] == [False, False, True]
    assert await server.fates() == [{"ada": "TENANT_INACTIVE", "bob": "TENANT_INACTIVE", "cyd": ""}]


async def test_who_is_active_again_is_so_for_every_feature(server: GroupServer):
    sync = sync_of(server)
    wishes = {FEATURE: Wish(), "tips": Wish()}
    await sync.apply([UserWishes(user_id="ada", wishes=wishes, active=False)], at=None)
    resting = await is_active(server, "ada")

    counts = await sync.apply([UserWishes(user_id="ada", wishes=wishes, active=True)], at=None)

    assert not resting
    assert await is_active(server, "ada")
    assert counts is not None
    assert counts.set == 2


async def test_of_two_tenants_one_says_nothing_about_the_users_of_the_other(server: GroupServer):
    async with server.store.transaction() as tx:
        await server.store.inactive_users.put(tx, {"ada": False}, tenant_id="other")

    assert await server.store.inactive_users.among(["ada"], tenant_id=TENANT) == frozenset()
    assert await server.store.inactive_users.among(["ada"], tenant_id="other") == {"ada"}
