"""StreamValidateUsers answers each message in its turn, however many come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
import pytest
from batchwork.v1.validation_service_pb2 import (
    USER_VERDICT_INACTIVE,
    USER_VERDICT_MALFORMED,
    USER_VERDICT_NOT_FOUND,
    USER_VERDICT_UNKNOWN,
    USER_VERDICT_VALID,
    USER_VERDICT_WRONG_TENANT,
    StreamValidateUsersRequest,
    StreamValidateUsersResponse,
)
from batchwork_client import connect
from batchwork_server.errors import StoreUnavailable

from tests.fakes import START
from tests.rpc.api import ADA, BOB, as_caller, refused, told_until_refused


def asking(*user_ids: str, include_valid: bool = False) -> StreamValidateUsersRequest:
    return StreamValidateUsersRequest(user_ids=user_ids, include_valid=include_valid)


async def load(server: Any, *users: tuple[str, bool], tenant_id: str = "default") -> None:
    store = server.application.store
    async with store.transaction() as tx:
        await store.users.load(tx, tenant_id=tenant_id, users=users, now=START)


async def answers(
    api: Any, requests: Iterable[StreamValidateUsersRequest], **options: Any
) -> list[StreamValidateUsersResponse]:
    return [each async for each in api.validation.StreamValidateUsers(iter(requests), **options)]


def verdicts(answer: StreamValidateUsersResponse) -> list[tuple[str, int]]:
    return [(result.user_id, result.verdict) for result in answer.results]


async def test_each_message_is_answered_with_those_who_are_not_valid(api, server):
    await load(server, ("ada", True), ("bob", False))
    await load(server, ("eve", True), tenant_id="other")

    first, second = await answers(
        api, [asking("nobody", "ada", "bob", "eve"), asking("", "ada", "a\0", "ada")]
    )

    assert verdicts(first) == [
        ("nobody", USER_VERDICT_NOT_FOUND),
        ("bob", USER_VERDICT_INACTIVE),
        ("eve", USER_VERDICT_WRONG_TENANT),
    ]
    assert verdicts(second) == [("", USER_VERDICT_MALFORMED), ("a\0", USER_VERDICT_MALFORMED)]
    assert (first.totals.total, first.totals.valid, first.totals.invalid) == (4, 1, 3)
    assert (second.totals.total, second.totals.valid, second.totals.invalid) == (4, 2, 2)


async def test_the_last_answer_counts_all_ids(api, server):
    await load(server, ("ada", True), ("bob", False))

    told = await answers(api, [asking("ada", "bob"), asking("x"), asking("ada", "", "ada")])

    totals = told[-1].running_totals
    assert [each.running_totals.total for each in told] == [2, 3, 6]
    assert (totals.valid, totals.invalid, totals.unknown) == (3, 3, 0)
    assert (totals.not_found, totals.inactive, totals.malformed) == (1, 1, 1)


async def test_a_message_may_ask_for_valid_users_too(api, server):
    await load(server, ("ada", True))

    first, second = await answers(
        api, [asking("ada", "bob", "ada", include_valid=True), asking("ada")]
    )

    assert verdicts(first) == [
        ("ada", USER_VERDICT_VALID),
        ("bob", USER_VERDICT_NOT_FOUND),
        ("ada", USER_VERDICT_VALID),
    ]
    assert not second.results


async def test_an_answer_does_not_wait_for_the_next_message(api):
    call = api.validation.StreamValidateUsers()

    await call.write(asking("a"))
    first = await call.read()
    await call.write(asking("b"))
    second = await call.read()
    await call.done_writing()

    assert [verdicts(each)[0][0] for each in (first, second)] == ["a", "b"]
    assert await call.read() is grpc.aio.EOF


async def test_no_message_is_no_answer(api):
    assert await answers(api, []) == []


@pytest.mark.parametrize("count", [pytest.param(0, id="none"), pytest.param(10_001, id="too many")])
async def test_a_message_with_the_wrong_number_of_ids_ends_the_stream_after_the_others(api, count):
    requests = [asking("ada"), asking("bob"), asking(*["x"] * count)]

    told, refusal = await told_until_refused(api.validation.StreamValidateUsers(iter(requests)))

    assert len(told) == 2
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == ["user_ids"]


async def test_a_source_that_is_away_for_a_while_does_not_end_the_stream(
    api, server, monkeypatch: pytest.MonkeyPatch
):
    await load(server, ("ada", True))
    users = server.application.validation.users._users
    known, away = users.verdicts, True

    async def verdicts_or_none(user_ids: Any, *, tenant_id: str) -> Any:
        if away:
            raise StoreUnavailable("The database does not answer.")
        return await known(user_ids, tenant_id=tenant_id)

    monkeypatch.setattr(users, "verdicts", verdicts_or_none)
    call = api.validation.StreamValidateUsers()
    await call.write(asking("ada", ""))
    first = await call.read()
    away = False
    await call.write(asking("ada"))
    second = await call.read()
    await call.done_writing()

    assert verdicts(first) == [("ada", USER_VERDICT_UNKNOWN), ("", USER_VERDICT_MALFORMED)]
    assert (first.totals.valid, first.totals.invalid, first.totals.unknown) == (0, 1, 1)
    assert second.running_totals.valid == 1


async def test_each_caller_asks_for_users_of_their_own_tenant(guarded, guarded_server):
    await load(guarded_server, ("ada", True), tenant_id="blue")

    of_blue = await answers(guarded, [asking("ada")], metadata=as_caller(ADA))
    of_green = await answers(guarded, [asking("ada")], metadata=as_caller(BOB))
    nobody = await refused(guarded.validation.StreamValidateUsers(iter([asking("ada")])))

    assert of_blue[0].totals.valid == 1
    assert verdicts(of_green[0]) == [("ada", USER_VERDICT_WRONG_TENANT)]
    assert nobody.code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_server_that_shuts_down_ends_the_stream_with_the_next_message(api, server):
    call = api.validation.StreamValidateUsers()
    await call.write(asking("ada"))
    await call.read()

    server.application.validation.users.close()
    await call.write(asking("bob"))
    refusal = await refused(call.read())

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")


async def test_few_messages_are_read_before_their_answers_are(api, server, monkeypatch):
    """Memory holds a few messages, because the next ones wait on the line."""
    users = server.application.validation.users._users
    asked, go_on = 0, asyncio.Event()

    async def slowly(user_ids: Any, *, tenant_id: str) -> Any:
        nonlocal asked
        asked += 1
        await go_on.wait()
        return {}

    monkeypatch.setattr(users, "verdicts", slowly)
    call = api.validation.StreamValidateUsers(iter([asking(f"u{n}") for n in range(50)]))
    reading = asyncio.ensure_future(call.read())
    async with asyncio.timeout(30):
        while asked < 3:
            await asyncio.sleep(0)
    held = asked
    go_on.set()
    await reading
    rest = [await call.read() for _ in range(49)]

    assert held == 3
    assert await call.read() is grpc.aio.EOF
    assert grpc.aio.EOF not in rest


# The client package


async def test_the_client_takes_any_number_of_ids(server):
    ids = [f"u{number}" for number in range(25_000)]
    await load(server, *((user_id, True) for user_id in ids[:-1]))

    async with connect(f"127.0.0.1:{server.port}") as client:
        stream = client.validation.stream_validate_users(iter(ids))
        told = [answer async for answer in stream]

    assert [answer.totals.total for answer in told] == [10_000, 10_000, 5_000]
    assert verdicts(told[-1]) == [("u24999", USER_VERDICT_NOT_FOUND)]
    assert told[-1].running_totals.valid == 24_999


async def test_the_client_takes_ids_as_they_come(server):
    await load(server, ("ada", True))

    async def coming() -> AsyncIterator[str]:
        for user_id in ("ada", "bob"):
            yield user_id

    async with connect(f"127.0.0.1:{server.port}") as client:
        stream = client.validation.stream_validate_users(coming(), include_valid=True)
        (told,) = [answer async for answer in stream]

    assert verdicts(told) == [("ada", USER_VERDICT_VALID), ("bob", USER_VERDICT_NOT_FOUND)]


async def test_an_error_of_the_callers_own_ids_reaches_the_caller(server):
    def broken() -> Iterable[str]:
        yield "ada"
        raise LookupError("The file ended.")

    async with connect(f"127.0.0.1:{server.port}") as client:
        with pytest.raises(LookupError, match="The file ended"):
            async for _ in client.validation.stream_validate_users(broken()):
                pass


async def test_a_caller_who_has_seen_enough_leaves_nothing_behind(server):
    async with connect(f"127.0.0.1:{server.port}") as client:
        stream = client.validation.stream_validate_users(f"u{n}" for n in range(100_000))
        first = await anext(stream)
        await stream.aclose()
        again = await client.validation.validate_users(["ada"])

    assert first.totals.total == 10_000
    assert again.totals.total == 1
