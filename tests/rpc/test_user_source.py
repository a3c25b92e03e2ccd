"""A server whose users are somebody else's."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import stamina
from batchwork.v1.batch_pb2 import BATCH_STATE_PAUSED, BatchOptions
from batchwork.v1.batch_service_pb2 import CreateBatchRequest, GetBatchRequest
from batchwork.v1.item_pb2 import ItemInput
from batchwork.v1.job_service_pb2 import ExportJobsRequest, GetJobRequest, RunJobRequest
from batchwork.v1.policy_pb2 import USERS_AWAY_ASSUME_VALID, USERS_AWAY_DEFER
from batchwork.v1.validation_service_pb2 import (
    USER_VERDICT_INACTIVE,
    USER_VERDICT_NOT_FOUND,
    USER_VERDICT_UNKNOWN,
    USER_VERDICT_VALID,
    ValidateUsersRequest,
)
from batchwork_client import context_document
from batchwork_server.bootstrap import Serving, serving
from batchwork_server.config import Settings
from batchwork_server.domain.selection import LoadedItem
from batchwork_server.errors import ConfigurationError
from batchwork_server.processors.registry import ProcessorRegistry
from batchwork_server.setting_kinds import Secret
from grpc_health.v1.health_pb2 import HealthCheckResponse, HealthListRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.adapters.test_user_sources import execute_in_postgresql
from tests.fakes import START
from tests.http_service import API_KEY
from tests.rpc.api import Api, make_job, refused
from tests.rpc.test_get_context import CATEGORIES, USERS, context_of, counts_in
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


async def test_users_are_assumed_to_be_valid_where_the_settings_say_so(asking, processors, people):
    await people.stop()
    lenient = replace(asking, users_away="assume_valid")

    async with running(lenient, processors) as (_, api):
        batch = await api.create_batch(items=OF_USERS)
        final = await api.finished(batch.batch_id)

    found = final.user_validation
    assert (found.total, found.valid, found.invalid, found.unknown) == (3, 0, 0, 3)
    assert final.counts.succeeded == 3
    assert final.options.users_away == USERS_AWAY_ASSUME_VALID


async def test_who_could_not_be_looked_up_is_unknown_in_contexts(asking, processors, people):
    """They were in no count, or were counted as valid."""
    await people.stop()
    lenient = replace(asking, users_away="assume_valid")
    by_categories = {"data_source_type": "categories", "processing_method": "batch"}

    async with running(lenient, processors) as (_, api):
        users = await api.create_batch(items=OF_USERS, batch_metadata=USERS)
        things = await api.create_batch(items=OF_USERS, batch_metadata=by_categories)
        waiting = await api.create_batch(
            items=OF_USERS, options=BatchOptions(users_away=USERS_AWAY_DEFER)
        )
        of_batches = [await context_of(api, batch.batch_id) for batch in (users, things, waiting)]
        of_user = await context_of(api, users.batch_id, user_id=OF_USERS[0].user_id)
        document = context_document(of_batches[0])["results"]

    assert [counts_in(context) for context in of_batches] == [(3, 0, 0, 3)] * 3
    assert counts_in(of_user) == (1, 0, 0, 1)
    assert list(of_user.items.valid_users) == [OF_USERS[0].user_id]
    assert document["validation"] == {"total": 3, "valid": 0, "invalid": 0, "unknown": 3}


async def test_a_request_may_be_deferred_until_the_service_is_back(asking, processors, people):
    await people.stop()

    async with running(asking, processors) as (server, api):
        deferred = await api.create_batch(
            items=OF_USERS, options=BatchOptions(users_away=USERS_AWAY_DEFER)
        )
        got = await api.batches.GetBatch(GetBatchRequest(batch_id=deferred.batch_id))
        await people.start()
        await server.application.deferred.run_once()
        final = await api.finished(deferred.batch_id)

    assert (deferred.state, deferred.state_reason) == (BATCH_STATE_PAUSED, "USERS_UNAVAILABLE")
    assert [wait.reason for wait in got.batch.wait_reasons] == ["USERS_UNAVAILABLE"]
    found = final.user_validation
    assert (found.total, found.valid, found.invalid, found.unknown) == (3, 1, 2, 0)
    assert (final.counts.succeeded, final.counts.skipped) == (1, 2)


async def test_batches_are_deferred_where_the_settings_say_so(asking, processors, people):
    await people.stop()
    patient = replace(asking, users_away="defer")

    async with running(patient, processors) as (server, api):
        deferred = await api.create_batch(items=OF_USERS)
        waiting = await context_of(api, deferred.batch_id)
        await people.start()
        await server.application.deferred.run_once()
        final = await api.finished(deferred.batch_id)
        context = await context_of(api, deferred.batch_id)

    assert (deferred.state, deferred.state_reason) == (BATCH_STATE_PAUSED, "USERS_UNAVAILABLE")
    assert counts_in(waiting) == (3, 0, 0, 3)
    assert counts_in(context) == (3, 1, 2, 0)
    assert (final.counts.succeeded, final.counts.skipped) == (1, 2)


async def test_things_of_a_deferred_batch_by_categories_are_counted_when_it_begins(
    asking, processors, people
):
    await people.stop()
    patient = replace(asking, users_away="defer")

    async with running(patient, processors) as (server, api):
        deferred = await api.create_batch(
            items=[*OF_USERS, ItemInput(item_id="of nobody")], batch_metadata=CATEGORIES
        )
        waiting = await context_of(api, deferred.batch_id)
        await people.start()
        await server.application.deferred.run_once()
        await api.finished(deferred.batch_id)
        context = await context_of(api, deferred.batch_id)

    assert counts_in(waiting) == (4, 1, 0, 3)
    assert counts_in(context) == (4, 2, 2, 0)


async def test_a_server_asks_a_second_postgresql(settings, processors, new_postgresql_url):
    for statement in (
        "CREATE TABLE members (login text PRIMARY KEY, company text, enabled boolean)",
        "INSERT INTO members VALUES ('ada', 'default', true), ('bob', 'default', false),"
        " ('eve', 'other', true)",
    ):
        await execute_in_postgresql(new_postgresql_url, statement)
    elsewhere = replace(
        settings,
        users_database_url=Secret(new_postgresql_url),
        users_table="members",
        users_id_column="login",
        users_tenant_column="company",
        users_active_column="enabled",
    )
    items = [*OF_USERS, ItemInput(item_id="eve", user_id="eve")]

    async with running(elsewhere, processors) as (_, api):
        batch = await api.create_batch(items=items, batch_metadata=USERS)
        final = await api.finished(batch.batch_id)
        context = await context_of(api, batch.batch_id)
        shown = await health(api)

    assert (final.counts.succeeded, final.counts.skipped) == (1, 3)
    assert counts_in(context) == (4, 1, 3, 0)
    assert list(context.items.valid_users) == ["ada"]
    assert list(context.items.invalid_users) == ["bob", "nobody", "eve"]
    assert shown == HealthCheckResponse.SERVING


async def test_a_job_says_what_becomes_of_its_runs(asking, processors, people):
    await people.stop()

    async with running(asking, processors) as (server, api):
        await load_category(server)
        await api.import_jobs(
            make_job("strict", data_source="users", users_away="fail"),
            make_job("lenient", data_source="users", users_away="assume_valid"),
        )
        stored = (await api.jobs.GetJob(GetJobRequest(job_id="lenient"))).job
        refusal = await refused(api.jobs.RunJob(RunJobRequest(job_id="strict")))
        batch = (await api.jobs.RunJob(RunJobRequest(job_id="lenient"))).batch
        exported = json.loads((await api.jobs.ExportJobs(ExportJobsRequest())).jobs_json)

    assert stored.users_away == USERS_AWAY_ASSUME_VALID
    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert batch.user_validation.unknown == 1
    assert [job["users_away"] for job in exported["batch_processing_jobs"]] == [
        "assume_valid",
        "fail",
    ]


async def load_category(server: Serving) -> None:
    store = server.application.store
    async with store.transaction() as tx:
        item = LoadedItem(item_id="ada", data_json="{}", user_id="ada")
        await store.categories.load(
            tx, category="posts", tenant_id="default", items=[item], now=START
        )
