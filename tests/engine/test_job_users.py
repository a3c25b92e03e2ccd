"""Whom a run on request of a preference-based job is for."""

from __future__ import annotations

import json

import pytest
from batchwork_server.domain.batch import Batch
from batchwork_server.domain.caller import Caller
from batchwork_server.domain.submission import Idempotency
from batchwork_server.store.database import Database

from tests.engine.groups import JOB, GroupServer
from tests.factories import TENANT
from tests.fakes import FakeClock

CALLER = Caller(tenant_id=TENANT, name="test")


@pytest.fixture
def server(database: Database, clock: FakeClock) -> GroupServer:
    return GroupServer(database, clock=clock)


async def run(server: GroupServer, *user_ids: str) -> Batch:
    return await server.batches.run_job(
        JOB, caller=CALLER, idempotency=Idempotency(), user_ids=frozenset(user_ids)
    )


async def fates(server: GroupServer, batch: Batch) -> dict[str, str]:
    return {item.item_id: item.skip_reason or "" for item in await server.items_of(batch)}


def warnings(batch: Batch) -> list[str]:
    return [notice.reason for notice in batch.request.notices]


async def test_who_rests_is_skipped_as_in_runs_of_groups(server: GroupServer):
    await server.add_users("ada", "ida")
    await server.put_job()
    for user in ("ada", "ida"):
        await server.wish(user)
    await server.set_active("ida", active=False)

    assert await fates(server, await run(server)) == {"ada": "", "ida": "TENANT_INACTIVE"}
    assert await fates(server, await run(server, "ida")) == {"ida": "TENANT_INACTIVE"}


async def test_who_rests_is_in_no_item_that_others_share(server: GroupServer):
    await server.add_users("ada", "ida")
    await server.put_job(type="object", preference_based=True)
    for user in ("ada", "ida"):
        await server.wish(user)
    await server.set_active("ida", active=False)

    batch = await run(server)

    [item] = await server.items_of(batch)
    assert json.loads(item.data_json)["user_ids"] == ["ada"]
    entries, _ = await server.store.contexts.entries(batch, after=-1, limit=10)
    assert {each.user_id: each.skip_reason for each in entries} == {
        "ada": "",
        "ida": "TENANT_INACTIVE",
    }


async def test_users_who_say_nothing_are_served_when_the_job_says_so(server: GroupServer):
    await server.add_users("ada", "bob", "off")
    await server.add_users("joe", active=False)
    await server.put_job(
        include_all_users=True,
        default_preferences={"template_overrides": {"tone": "dry"}},
    )
    await server.wish("ada", template_overrides={"tone": "warm"})
    await server.wish("off", enabled=False)

    batch = await run(server)

    tones = {
        item.item_id: json.loads(item.data_json)["template_overrides"]["tone"]
        for item in await server.items_of(batch)
    }
    assert tones == {"ada": "warm", "bob": "dry"}


async def test_a_run_for_some_users_serves_those_of_them_who_say_nothing(server: GroupServer):
    await server.add_users("ada", "bob", "eve", "off")
    await server.add_users("joe", active=False)
    await server.put_job(include_all_users=True)
    for user in ("ada", "eve"):
        await server.wish(user)
    await server.wish("off", enabled=False)

    batch = await run(server, "ada", "bob", "joe", "nobody", "off")
    of_nobody = await run(server, "off")

    assert await fates(server, batch) == {
        "ada": "",
        "bob": "",
        "joe": "USER_INACTIVE",
        "nobody": "USER_NOT_FOUND",
    }
    assert (of_nobody.counts.total, warnings(of_nobody)) == (0, ["NO_USERS"])


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="the job is for those with preferences"),
        pytest.param(
            {"include_all_users": True, "default_preferences": {"enabled": False}},
            id="the job says no",
        ),
    ],
)
async def test_users_who_say_nothing_are_left_alone_otherwise(server: GroupServer, fields):
    await server.add_users("ada", "bob")
    await server.put_job(**fields)
    await server.wish("ada")

    assert await fates(server, await run(server)) == {"ada": ""}
    assert warnings(await run(server, "bob")) == ["NO_USERS"]


async def test_the_tenants_default_counts_for_users_who_say_nothing(server: GroupServer):
    await server.add_users("ada", "bob")
    await server.put_job(include_all_users=True, default_preferences={"enabled": False})
    await server.wish("ada")

    await server.set_default(enabled=True)
    wanted = await fates(server, await run(server))
    await server.set_default(enabled=False)
    unwanted = await fates(server, await run(server))

    assert (wanted, unwanted) == ({"ada": "", "bob": ""}, {"ada": ""})


async def test_a_run_for_some_users_reads_nobody_elses_preference(
    server: GroupServer, monkeypatch: pytest.MonkeyPatch
):
    await server.add_users("ada", "bob")
    await server.put_job()
    for user in ("ada", "bob"):
        await server.wish(user)

    async def refuse(*_wanted, **_page):
        pytest.fail("It reads the preferences of everybody.")

    monkeypatch.setattr(server.store.preferences, "list", refuse)

    assert await fates(server, await run(server, "bob")) == {"bob": ""}
