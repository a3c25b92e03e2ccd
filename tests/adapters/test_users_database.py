"""Users in another database, whatever its table looks like and whether or not it is there."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from batchwork_server.adapters import users_database
from batchwork_server.adapters.users_database import UsersDatabase, UsersTable
from batchwork_server.domain.user import UserVerdict
from batchwork_server.errors import ConfigurationError, SourceUnavailable
from batchwork_server.store.location import parse_url

from tests.adapters.test_user_sources import execute_in_postgresql, execute_in_sqlite

VALID, INACTIVE, NOT_FOUND = UserVerdict.VALID, UserVerdict.INACTIVE, UserVerdict.NOT_FOUND
ADA = "6f0c3b1e-6d0c-4a43-9a61-5d1f4c1f0a01"
BOB = "6f0c3b1e-6d0c-4a43-9a61-5d1f4c1f0a02"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """Where a database is that is not ours."""
    if request.param == "sqlite":
        return f"sqlite:///{request.getfixturevalue('tmp_path') / 'people.db'}"
    address: str = request.getfixturevalue("new_postgresql_url")
    return address


async def execute(url: str, *statements: str) -> None:
    for statement in statements:
        if url.startswith("sqlite"):
            execute_in_sqlite(Path(url.removeprefix("sqlite:///")), statement)
        else:
            await execute_in_postgresql(url, statement)


async def verdicts(url: str, table: UsersTable, *user_ids: str) -> list[UserVerdict]:
    users = UsersDatabase(parse_url(url), table)
    try:
        told = await users.verdicts(user_ids, tenant_id="default")
    finally:
        await users.close()
    return [told[user_id] for user_id in user_ids]


async def refusal(url: str, table: UsersTable) -> str:
    users = UsersDatabase(parse_url(url), table)
    with pytest.raises(ConfigurationError) as raised:
        await users.ping()
    await users.close()
    return raised.value.message


async def test_without_further_columns_everybody_is_active_in_every_tenant(url):
    await execute(
        url,
        "CREATE TABLE members (user_id text PRIMARY KEY)",
        "INSERT INTO members VALUES ('ann')",
    )

    assert await verdicts(url, UsersTable(name="members"), "ann", "bob") == [VALID, NOT_FOUND]


async def test_ids_that_are_numbers_are_compared_as_text(url):
    await execute(
        url,
        "CREATE TABLE members (id bigint PRIMARY KEY)",
        "INSERT INTO members VALUES (42), (-7), (9223372036854775807)",
    )
    asked = ("42", "042", "-7", "9223372036854775807", "9223372036854775808", "4e1", "ann", " 42")

    told = await verdicts(url, UsersTable(name="members", id_column="id"), *asked)

    assert [user_id for user_id, verdict in zip(asked, told, strict=True) if verdict is VALID] == [
        "42",
        "-7",
        "9223372036854775807",
    ]


async def test_ids_that_are_uuids_are_compared_as_text(new_postgresql_url):
    await execute(
        new_postgresql_url,
        "CREATE TABLE members (id uuid PRIMARY KEY)",
        f"INSERT INTO members VALUES ('{ADA}')",
    )
    table = UsersTable(name="members", id_column="id")

    told = await verdicts(new_postgresql_url, table, ADA, BOB, ADA.upper(), "ann")

    assert told == [VALID, NOT_FOUND, NOT_FOUND, NOT_FOUND]


async def test_ids_of_any_other_type_are_compared_as_text(new_postgresql_url):
    await execute(
        new_postgresql_url,
        "CREATE TABLE members (id numeric(9, 2))",
        "INSERT INTO members VALUES (1.5)",
    )

    told = await verdicts(
        new_postgresql_url, UsersTable(name="members", id_column="id"), "1.50", "1.5"
    )

    assert told == [VALID, NOT_FOUND]


@pytest.mark.parametrize(
    ("kind", "active", "inactive"),
    [
        pytest.param("boolean", "true", "false", id="yes or no"),
        pytest.param("integer", "1", "0", id="a number"),
        pytest.param("text", "'Active'", "'disabled'", id="a word"),
        pytest.param("boolean", "true", "NULL", id="nothing"),
    ],
)
async def test_who_is_active_may_be_told_in_several_ways(url, kind, active, inactive):
    await execute(
        url,
        f"CREATE TABLE members (user_id text PRIMARY KEY, state {kind})",
        f"INSERT INTO members VALUES ('ann', {active}), ('bob', {inactive})",
    )

    told = await verdicts(url, UsersTable(name="members", active_column="state"), "ann", "bob")

    assert told == [VALID, INACTIVE]


async def test_names_may_be_words_of_sql(url):
    await execute(
        url,
        'CREATE TABLE "order" ("user" text PRIMARY KEY, "Group" text)',
        """INSERT INTO "order" VALUES ('ann', 'default')""",
    )

    table = UsersTable(name="order", id_column="user", tenant_column="Group")

    assert await verdicts(url, table, "ann", "bob") == [VALID, NOT_FOUND]


async def test_a_table_may_be_in_a_schema(new_postgresql_url):
    await execute(
        new_postgresql_url,
        "CREATE SCHEMA crm",
        "CREATE TABLE crm.system_users (user_id text)",
        "INSERT INTO crm.system_users VALUES ('ann'), ('ann')",
    )

    told = await verdicts(new_postgresql_url, UsersTable(name="crm.system_users"), "ann", "bob")

    assert told == [VALID, NOT_FOUND]


async def test_thousands_of_ids_are_found_by_the_index(new_postgresql_url):
    """PostgreSQL preferred to read a whole table when the users were joined with it at once."""
    await execute(
        new_postgresql_url,
        "CREATE TABLE members (id bigint PRIMARY KEY, name text)",
        "INSERT INTO members SELECT n, 'x' FROM generate_series(1, 200000) AS n",
        "ANALYZE members",
    )
    users = UsersDatabase(parse_url(new_postgresql_url), UsersTable(name="members", id_column="id"))
    await users.ping()
    assert users._lookup is not None
    statement = users._lookup._statement.text.replace(":user_ids", "$1")
    connection = await asyncpg.connect(new_postgresql_url)

    plan = await connection.fetch(f"EXPLAIN {statement}", [str(n) for n in range(5000)])

    assert any("members_pkey" in row[0] for row in plan)
    await connection.close()
    await users.close()


# What is not there


async def test_a_table_that_is_not_there_is_named_with_its_setting(url):
    await execute(url, "CREATE TABLE members (user_id text)")

    message = await refusal(url, UsersTable(name="people"))

    assert message.startswith("BATCHWORK_USERS_TABLE: there is no table 'people'")


async def test_every_column_that_is_not_there_is_named_with_its_setting(url):
    await execute(url, "CREATE TABLE members (user_id text, mail text)")

    message = await refusal(
        url, UsersTable(name="members", tenant_column="account", active_column="state")
    )

    assert "BATCHWORK_USERS_TENANT_COLUMN" in message
    assert "BATCHWORK_USERS_ACTIVE_COLUMN" in message
    assert "BATCHWORK_USERS_ID_COLUMN" not in message
    assert "there is mail, user_id" in message


async def test_a_database_that_is_away_is_told_without_its_password():
    url = "postgresql://batchwork:secret@127.0.0.1:1/people"
    users = UsersDatabase(parse_url(url), UsersTable())

    with pytest.raises(SourceUnavailable) as raised:
        await users.verdicts(["ann"], tenant_id="default")

    assert "BATCHWORK_USERS_DATABASE_URL" in raised.value.message
    assert "secret" not in raised.value.message
    await users.close()


async def test_a_file_that_is_not_there_is_not_made(tmp_path):
    file = tmp_path / "people.db"
    users = UsersDatabase(parse_url(f"sqlite:///{file}"), UsersTable())

    with pytest.raises(SourceUnavailable):
        await users.ping()

    assert not file.exists()
    await users.close()


async def test_a_database_that_comes_and_goes_is_found_again(new_postgresql_url, postgres):
    await execute(
        new_postgresql_url,
        "CREATE TABLE members (user_id text)",
        "INSERT INTO members VALUES ('ann')",
    )
    users = UsersDatabase(parse_url(new_postgresql_url), UsersTable(name="members"))
    await users.verdicts(["ann"], tenant_id="default")

    postgres.drop_connections(new_postgresql_url.split("/")[3].partition("?")[0])

    assert await users.verdicts(["ann"], tenant_id="default") == {"ann": VALID}
    await users.close()


async def test_who_waits_for_a_connection_is_not_told_that_the_database_is_away(
    tmp_path, monkeypatch
):
    """Under load invalid users were processed, as the database counted as away."""
    monkeypatch.setattr(users_database, "CONNECT_TIMEOUT", timedelta(0))
    url = f"sqlite:///{tmp_path / 'people.db'}"
    await execute(url, "CREATE TABLE members (user_id text)")
    users = UsersDatabase(parse_url(url), UsersTable(name="members"))
    begun, gate = threading.Semaphore(0), threading.Event()

    def hold(_connection: object) -> None:
        begun.release()
        gate.wait()

    holding = [asyncio.create_task(users._ask(hold)) for _ in range(3)]
    for _ in holding:
        await asyncio.to_thread(begun.acquire)
    waiting = [asyncio.create_task(users.verdicts(["ann"], tenant_id="default")) for _ in range(20)]
    for _ in range(10):
        await asyncio.sleep(0)
    gate.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    await asyncio.gather(*holding)

    assert answers == [{"ann": NOT_FOUND}] * 20
    await users.close()


async def test_a_table_that_vanishes_is_a_source_that_is_away(url):
    await execute(url, "CREATE TABLE members (user_id text)")
    users = UsersDatabase(parse_url(url), UsersTable(name="members"))
    await users.ping()
    await execute(url, "DROP TABLE members")

    for _ in range(2):
        with pytest.raises(SourceUnavailable, match="members"):
            await users.verdicts(["ann"], tenant_id="default")

    await users.close()


async def test_nothing_can_be_changed_in_it(url):
    await execute(url, "CREATE TABLE members (user_id text)")
    users = UsersDatabase(parse_url(url), UsersTable(name="members"))

    with pytest.raises(SourceUnavailable, match=r"read-?only"):
        await users._ask(
            lambda connection: connection.exec_driver_sql("INSERT INTO members VALUES ('eve')")
        )

    await users.close()


async def test_parameters_that_nothing_reads_are_refused():
    with pytest.raises(ConfigurationError, match="colour"):
        UsersDatabase(parse_url("postgresql://localhost/people?colour=red"), UsersTable())
