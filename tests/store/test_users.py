"""What is known of users, on every source: the databases, and the fake."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from batchwork_server.domain.user import UserVerdict
from batchwork_server.ports import UserRepository
from batchwork_server.store.database import Database, open_database
from batchwork_server.store.users import IDS_PER_STATEMENT, SqlUsers

from tests.factories import TENANT
from tests.fakes import START, FakeUsers


class Source:
    """A source of users, and how a test puts users into it."""

    def __init__(self, repository: UserRepository, database: Database | None) -> None:
        self.repository = repository
        self._database = database

    async def load(self, *users: tuple[str, bool], tenant_id: str = TENANT) -> None:
        if isinstance(self.repository, FakeUsers):
            for user_id, active in users:
                self.repository.add(user_id, tenant_id=tenant_id, active=active)
            return
        assert self._database is not None
        assert isinstance(self.repository, SqlUsers)
        async with self._database.transaction() as tx:
            await self.repository.load(tx, tenant_id=tenant_id, users=users, now=START)

    async def verdicts(self, *user_ids: str) -> dict[str, UserVerdict]:
        return dict(await self.repository.verdicts(user_ids, tenant_id=TENANT))


@pytest.fixture(params=["fake", "sqlite", "postgresql"])
def source_url(request: pytest.FixtureRequest) -> str | None:
    if request.param == "fake":
        return None
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def source(source_url: str | None) -> AsyncIterator[Source]:
    """Runs the test on the fake and on each database."""
    if source_url is None:
        yield Source(FakeUsers(), None)
        return
    database = await open_database(source_url)
    yield Source(SqlUsers(database), database)
    await database.close()


async def test_each_user_gets_a_verdict(source):
    await source.load(("ann", True), ("bob", False), ("it's größe", True))
    await source.load(("cleo", True), ("ann", False), ("bob", True), tenant_id="other")

    verdicts = await source.verdicts("ann", "bob", "cleo", "dora", "it's größe")

    assert verdicts == {
        "ann": UserVerdict.VALID,
        "bob": UserVerdict.INACTIVE,
        "cleo": UserVerdict.WRONG_TENANT,
        "dora": UserVerdict.NOT_FOUND,
        "it's größe": UserVerdict.VALID,
    }


async def test_id_that_comes_twice_is_answered_once(source):
    await source.load(("ann", True))

    assert await source.verdicts("ann", "ann") == {"ann": UserVerdict.VALID}


async def test_no_id_is_no_verdict(source):
    assert await source.verdicts() == {}


async def test_id_that_no_database_can_hold_is_not_found(source):
    await source.load(("ann", True))

    verdicts = await source.verdicts("nul\x00", "half \ud800", "ann")

    assert verdicts == {
        "nul\x00": UserVerdict.NOT_FOUND,
        "half \ud800": UserVerdict.NOT_FOUND,
        "ann": UserVerdict.VALID,
    }


async def test_user_that_comes_again_is_updated(source):
    await source.load(("ann", True))

    await source.load(("ann", True), ("ann", False))

    assert await source.verdicts("ann") == {"ann": UserVerdict.INACTIVE}


async def test_more_ids_than_one_statement_takes(source):
    known = [f"user-{number}" for number in range(IDS_PER_STATEMENT + 1)]
    await source.load(*((user_id, True) for user_id in known))

    verdicts = await source.verdicts(*known, "stranger")

    assert verdicts.pop("stranger") is UserVerdict.NOT_FOUND
    assert list(verdicts) == known
    assert set(verdicts.values()) == {UserVerdict.VALID}
