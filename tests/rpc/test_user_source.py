"""A server whose users are somebody else's."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import stamina
from batchwork.v1.batch_service_pb2 import CreateBatchRequest
from batchwork.v1.item_pb2 import ItemInput
from batchwork.v1.validation_service_pb2 import (
    USER_VERDICT_INACTIVE,
    USER_VERDICT_NOT_FOUND,
    USER_VERDICT_UNKNOWN,
    USER_VERDICT_VALID,
    ValidateUsersRequest,
)
from batchwork_server.bootstrap import Serving, serving
from batchwork_server.config import Settings
from batchwork_server.errors import ConfigurationError
from batchwork_server.processors.registry import ProcessorRegistry
from batchwork_server.setting_kinds import Secret
from grpc_health.v1.health_pb2 import HealthCheckResponse, HealthListRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.http_service import API_KEY
from tests.rpc.api import Api, make_job, refused
from tests.user_service import UserService, user_service

OF_USERS = [ItemInput(item_id=name, user_id=name) for name in ("ada", "bob", "nobody")]


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    """Retries without waiting."""
    with stamina.set_testing(True, attempts=10, cap=True):
        yield


@pytest.fixture
async def people() -> AsyncIterator[UserService]:
    async with user_service() as running:
        running.add("ada")
        running.add("bob", active=False)
        yield running


@pytest.fixture
def asking(settings: Settings, people: UserService) -> Settings:
    """The settings of a server that asks the service."""
    return replace(settings, user_service_url=people.url, user_service_api_key=Secret(API_KEY))


@asynccontextmanager
async def running(
    settings: Settings, processors: ProcessorRegistry
) -> AsyncIterator[tuple[Serving, Api]]:
    async with (
        serving(settings, processors=processors) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        yield server, Api(channel)


async def verdicts(api: Api, *user_ids: str) -> list[int]:
    request = ValidateUsersRequest(user_ids=user_ids)
    return [each.verdict for each in (await api.validation.ValidateUsers(request)).results]


async def health(api: Api) -> Any:
    names = (await HealthStub(api.channel).List(HealthListRequest())).statuses
    return names["user-source"].status if "user-source" in names else None


async def test_users_are_those_of_the_service(asking, processors, people):
    async with running(asking, processors) as (_, api):
        told = await verdicts(api, "ada", "bob", "nobody")
        batch = await api.create_batch(items=OF_USERS)
        final = await api.finished(batch.batch_id)

    assert told == [USER_VERDICT_VALID, USER_VERDICT_INACTIVE, USER_VERDICT_NOT_FOUND]
    assert (final.counts.succeeded, final.counts.skipped) == (1, 2)
    assert set(people.keys) == {f"bearer {API_KEY}"}


async def test_while_the_service_is_away_no_batch_is_made_and_health_says_so(
    asking, processors, people
):
    async with running(asking, processors) as (server, api):
        before = await health(api)
        await people.stop()
        refusal = await refused(
            api.batches.CreateBatch(CreateBatchRequest(operation="echo", items=OF_USERS))
        )
        told = await verdicts(api, "ada")
        await server.application.user_source.run_once()
        is_well = server.application.user_source.is_well
        await people.start()
        batch = await api.create_batch(items=OF_USERS)

    assert before == HealthCheckResponse.SERVING
    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.UNAVAILABLE,
        "DEPENDENCY_UNAVAILABLE",
    )
    assert "RetryInfo" in str(refusal.details)
    assert told == [USER_VERDICT_UNKNOWN]
    assert not is_well
    assert batch.user_validation.valid == 1


async def test_a_server_starts_while_its_users_are_away(asking, processors, people):
    await people.stop()

    async with running(asking, processors) as (_, api):
        shown = await health(api)
        batch = await api.create_batch("a", "b")
        final = await api.finished(batch.batch_id)

    assert shown == HealthCheckResponse.NOT_SERVING
    assert final.counts.succeeded == 2


async def test_without_an_outside_source_there_is_no_such_health(server, api):
    assert await health(api) is None


async def test_jobs_are_imported_while_their_users_are_away(asking, processors, people):
    await people.stop()
    job = make_job(distribution={"users": ["ada"]})

    async with running(asking, processors) as (_, api):
        answer = await api.import_jobs(job)

    assert len(answer.changes) == 1


async def test_users_may_be_in_another_database(settings, processors, tmp_path: Path):
    connection = sqlite3.connect(tmp_path / "people.db")
    with connection:
        connection.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, mail TEXT)")
        connection.execute("INSERT INTO people VALUES (7, 'ada@example.com')")
    connection.close()
    elsewhere = replace(
        settings,
        users_database_url=Secret(f"sqlite:///{tmp_path / 'people.db'}"),
        users_table="people",
        users_id_column="id",
    )

    async with running(elsewhere, processors) as (_, api):
        told = await verdicts(api, "7", "8")
        shown = await health(api)
    with pytest.raises(ConfigurationError, match="BATCHWORK_USERS_ID_COLUMN"):
        async with running(replace(elsewhere, users_id_column="user_id"), processors):
            pass

    assert told == [USER_VERDICT_VALID, USER_VERDICT_NOT_FOUND]
    assert shown == HealthCheckResponse.SERVING
