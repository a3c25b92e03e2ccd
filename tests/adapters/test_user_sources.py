"""What is known of users, on every source of them: the same questions, the same answers."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from batchwork_server.adapters.user_service import HttpUserService
from batchwork_server.adapters.users_database import UsersDatabase, UsersTable
from batchwork_server.domain.user import UserVerdict
from batchwork_server.ports import UserRepository
from batchwork_server.store.database import open_database
from batchwork_server.store.location import parse_url
from batchwork_server.store.users import SqlUsers

from tests.fakes import START, FakeClock, FakeUsers
from tests.http_service import API_KEY
from tests.user_service import user_service

TABLE = UsersTable(name="people", tenant_column="account", active_column="is_active")

CREATE = """
    CREATE TABLE people (
        user_id varchar(200), account varchar(64), is_active boolean, name text,
        PRIMARY KEY (user_id, account)
    )
"""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source of users, and how a test puts users into it."""

    repository: UserRepository
    add: Callable[[str, str, bool], Awaitable[None]]

    async def verdicts(self, *user_ids: str) -> dict[str, UserVerdict]:
        return dict(await self.repository.verdicts(user_ids, tenant_id="default"))


async def fake(request: pytest.FixtureRequest) -> AsyncIterator[Source]:
    users = FakeUsers()

    async def add(user_id: str, tenant_id: str, active: bool) -> None:
        users.add(user_id, tenant_id=tenant_id, active=active)

    yield Source(repository=users, add=add)


async def embedded(url: str) -> AsyncIterator[Source]:
    database = await open_database(url)
    users = SqlUsers(database)

    async def add(user_id: str, tenant_id: str, active: bool) -> None:
        async with database.transaction() as tx:
            await users.load(tx, tenant_id=tenant_id, users=[(user_id, active)], now=START)

    yield Source(repository=users, add=add)
    await database.close()


async def other_sqlite(path: Path) -> AsyncIterator[Source]:
    execute_in_sqlite(path, CREATE)
    users = UsersDatabase(parse_url(f"sqlite:///{path}"), TABLE)

    async def add(user_id: str, tenant_id: str, active: bool) -> None:
        execute_in_sqlite(path, INSERT, (user_id, tenant_id, active))

    yield Source(repository=users, add=add)
    await users.close()


async def other_postgresql(url: str) -> AsyncIterator[Source]:
    await execute_in_postgresql(url, CREATE)
    users = UsersDatabase(parse_url(url), TABLE)

    async def add(user_id: str, tenant_id: str, active: bool) -> None:
        statement = "INSERT INTO people (user_id, account, is_active) VALUES ($1, $2, $3)"
        await execute_in_postgresql(url, statement, user_id, tenant_id, active)

    yield Source(repository=users, add=add)
    await users.close()


async def over_http(_request: pytest.FixtureRequest) -> AsyncIterator[Source]:
    async with user_service() as service:
        users = HttpUserService(
            url=service.url, api_key=API_KEY, timeout=timedelta(seconds=10), clock=FakeClock()
        )

        async def add(user_id: str, tenant_id: str, active: bool) -> None:
            service.add(user_id, tenant_id=tenant_id, active=active)

        yield Source(repository=users, add=add)
        await users.close()


INSERT = "INSERT INTO people (user_id, account, is_active) VALUES (?, ?, ?)"


def execute_in_sqlite(path: Path, statement: str, values: tuple[object, ...] = ()) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement, values)
    connection.close()


async def execute_in_postgresql(url: str, statement: str, *values: object) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement, *values)
    await connection.close()


SOURCES = {
    "fake": lambda request: fake(request),
    "embedded SQLite": lambda request: embedded(request.getfixturevalue("sqlite_url")),
    "embedded PostgreSQL": lambda request: embedded(request.getfixturevalue("postgresql_url")),
    "other SQLite": lambda request: other_sqlite(
        request.getfixturevalue("tmp_path") / "it's 100% mine.db"
    ),
    "other PostgreSQL": lambda request: other_postgresql(
        request.getfixturevalue("new_postgresql_url")
    ),
    "HTTP": lambda request: over_http(request),
}


@pytest.fixture(params=list(SOURCES))
def opening(request: pytest.FixtureRequest) -> AsyncIterator[Source]:
    return SOURCES[request.param](request)


@pytest.fixture
async def source(opening: AsyncIterator[Source]) -> AsyncIterator[Source]:
    """Runs the test on each source."""
    async for opened in opening:
        yield opened


async def test_each_user_gets_a_verdict(source):
    await source.add("ann", "default", True)
    await source.add("bob", "default", False)
    await source.add("cleo", "other", True)
    await source.add("it's größe", "default", True)

    verdicts = await source.verdicts("ann", "bob", "cleo", "dora", "it's größe")

    assert verdicts == {
        "ann": UserVerdict.VALID,
        "bob": UserVerdict.INACTIVE,
        "cleo": UserVerdict.WRONG_TENANT,
        "dora": UserVerdict.NOT_FOUND,
        "it's größe": UserVerdict.VALID,
    }


async def test_a_user_of_several_tenants_counts_as_they_are_in_the_own_one(source):
    for user_id, here, there in (("ann", True, False), ("bob", False, True)):
        await source.add(user_id, "default", here)
        await source.add(user_id, "other", there)

    verdicts = await source.verdicts("ann", "bob")

    assert verdicts == {"ann": UserVerdict.VALID, "bob": UserVerdict.INACTIVE}


async def test_id_that_comes_twice_is_answered_once(source):
    await source.add("ann", "default", True)

    assert await source.verdicts("ann", "ann") == {"ann": UserVerdict.VALID}


async def test_ids_are_told_apart_by_their_letters(source):
    await source.add("ann", "default", True)

    assert await source.verdicts("Ann", "ann ") == {
        "Ann": UserVerdict.NOT_FOUND,
        "ann ": UserVerdict.NOT_FOUND,
    }


async def test_no_id_is_no_verdict(source):
    assert await source.verdicts() == {}


async def test_id_that_no_database_can_hold_is_not_found(source):
    await source.add("ann", "default", True)

    verdicts = await source.verdicts("nul\x00", "ann")

    assert verdicts == {"nul\x00": UserVerdict.NOT_FOUND, "ann": UserVerdict.VALID}


async def test_more_ids_than_one_question_takes(source):
    await source.add("user-7", "default", True)
    await source.add("user-12000", "default", True)
    ids = [f"user-{number}" for number in range(12_345)]

    verdicts = await source.verdicts(*ids)

    assert list(verdicts) == ids
    valid = [user_id for user_id in ids if verdicts[user_id] is UserVerdict.VALID]
    assert valid == ["user-7", "user-12000"]


async def test_many_ask_at_once(source):
    await source.add("ann", "default", True)

    told = await asyncio.gather(*(source.verdicts("ann", f"x{n}") for n in range(20)))

    assert all(verdicts["ann"] is UserVerdict.VALID for verdicts in told)
