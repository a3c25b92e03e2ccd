"""Fixtures for every test: the clock, and databases of one's own."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from batchwork_server.logs import configure_logs, flush_logs
from batchwork_server.store.database import Database, open_database

from tests.console import log_to_console
from tests.fakes import FakeClock
from tests.postgres import PostgresServer
from tests.sqlite import create_database

_TEMPLATE = "template_batchwork"
_numbers = itertools.count(1)


@pytest.fixture(scope="session", autouse=True)
def console() -> None:
    log_to_console()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def logged() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Returns what has been logged so far, line by line."""
    out = io.StringIO()
    configure_logs(level="debug", stream=out)

    def lines() -> list[dict[str, Any]]:
        flush_logs()
        return [json.loads(line) for line in out.getvalue().splitlines()]

    yield lines
    configure_logs(level="error", stream=io.StringIO())
    log_to_console()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL for the whole run, or for each worker of one; do not stop it."""
    # What a test leaves is not to be analyzed, or not, by how long other tests take.
    with PostgresServer(settings={"autovacuum": "off"}) as server:
        yield server


@dataclass(frozen=True)
class Template:
    """A database with our schema, to be copied, which is quicker than migrating.

    Attributes:
        condition: As ``empty_database`` tells it.
        emptied: Copies that are as good as new. A row costs less to delete than a copy to make.
    """

    name: str
    condition: str
    emptied: list[str]


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> Template:
    asyncio.run(_migrate(postgres.create_database(_TEMPLATE)))
    return Template(_TEMPLATE, postgres.empty_database(_TEMPLATE), [])


async def _migrate(url: str) -> None:
    database = await open_database(url)
    await database.close()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite database of the test's own, with our schema."""
    return create_database(tmp_path / "batchwork.db")


@pytest.fixture
def new_postgresql_url(postgres: PostgresServer, postgres_template: Template) -> Iterator[str]:
    """A PostgreSQL database of the test's own, with our schema, that nobody had before."""
    name = f"test_{next(_numbers)}"
    yield postgres.create_database(name, template=postgres_template.name)
    postgres.drop_database(name)


@pytest.fixture
def postgresql_url(postgres: PostgresServer, postgres_template: Template) -> Iterator[str]:
    """A PostgreSQL database of the test's own, with our schema, empty."""
    emptied = postgres_template.emptied
    if emptied:
        name = emptied.pop()
    else:
        name = f"test_{next(_numbers)}"
        postgres.create_database(name, template=postgres_template.name)
    yield postgres.url(name)
    if postgres.empty_database(name) == postgres_template.condition:
        emptied.append(name)
    else:
        postgres.drop_database(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Runs the test once on each database."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Runs the test once on each database, which is open and empty."""
    database = await open_database(database_url, synchronous="NORMAL")  # no power is lost here
    yield database
    await database.close()
