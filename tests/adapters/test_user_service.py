"""A user service over HTTP, whatever it does."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from batchwork_server.adapters import http_source
from batchwork_server.adapters import user_service as user_service_adapter
from batchwork_server.adapters.http_source import Breaker
from batchwork_server.adapters.user_service import HttpUserService
from batchwork_server.domain.user import UserVerdict
from batchwork_server.errors import SourceUnavailable

from tests.fakes import FakeClock
from tests.http_service import API_KEY, Told
from tests.user_service import UserService, user_service

ATTEMPTS = 4


@pytest.fixture
async def people() -> AsyncIterator[UserService]:
    async with user_service() as running:
        yield running


def client_of(
    service: UserService, clock: FakeClock, *, timeout: timedelta = timedelta(seconds=10)
) -> HttpUserService:
    return HttpUserService(url=service.url, api_key=API_KEY, timeout=timeout, clock=clock)


@pytest.fixture
async def users(people: UserService, clock: FakeClock) -> AsyncIterator[HttpUserService]:
    """Asks the service."""
    client = client_of(people, clock)
    yield client
    await client.close()


async def refusal(users: HttpUserService) -> SourceUnavailable:
    with pytest.raises(SourceUnavailable) as raised:
        await users.verdicts(["ada"], tenant_id="default")
    assert raised.value.reason == "DEPENDENCY_UNAVAILABLE"
    return raised.value


async def test_the_request_carries_the_key_and_the_ids(people: UserService, users: HttpUserService):
    await users.verdicts(["ada", "bob", "ada"], tenant_id="default")

    assert people.requests == ["/users/validate"]
    assert people.keys == [f"bearer {API_KEY}"]
    assert people.asked_for == [["ada", "bob"]]


async def test_many_ids_go_in_several_requests(people: UserService, users: HttpUserService):
    people.add("user-11000")

    told = await users.verdicts([f"user-{n}" for n in range(12_000)], tenant_id="default")

    assert sorted(map(len, people.asked_for)) == [2_000, 5_000, 5_000]
    assert [user_id for user_id in told if told[user_id] is UserVerdict.VALID] == ["user-11000"]


async def test_what_may_pass_is_tried_again(people: UserService, users: HttpUserService):
    people.add("ada")
    people.behaviours = [Told(status=status) for status in (503, 429, 500)]

    told = await users.verdicts(["ada"], tenant_id="default")

    assert told == {"ada": UserVerdict.VALID}
    assert len(people.requests) == ATTEMPTS


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        pytest.param(401, "USER_SERVICE_API_KEY", id="no key"),
        pytest.param(403, "USER_SERVICE_API_KEY", id="a wrong key"),
        pytest.param(404, "USER_SERVICE_URL", id="nothing there"),
        pytest.param(410, "USER_SERVICE_URL", id="not any more"),
        pytest.param(302, "USER_SERVICE_URL", id="elsewhere"),
        pytest.param(500, "log of the service", id="its own fault"),
    ],
)
async def test_an_error_says_what_to_do_and_gives_no_key_away(
    people: UserService, users: HttpUserService, status: int, advice: str
):
    people.always = Told(status=status)

    error = await refusal(users)

    assert error.message.startswith("Error connecting to user service")
    assert f"POST {people.url}/users/validate was answered with {status}" in error.message
    assert advice in error.message
    assert API_KEY not in error.message


async def test_a_service_that_is_down_is_told_so_and_found_again(
    people: UserService, users: HttpUserService
):
    people.add("ada")
    await people.stop()

    error = await refusal(users)
    await people.start()
    told = await users.verdicts(["ada"], tenant_id="default")

    assert "Check that the service runs" in error.message
    assert told == {"ada": UserVerdict.VALID}


async def test_a_service_that_does_not_answer_in_time_is_away(
    people: UserService, clock: FakeClock
):
    people.always = Told(hold=asyncio.Event())
    impatient = client_of(people, clock, timeout=timedelta(milliseconds=50))

    error = await refusal(impatient)

    assert "was not answered within 0.05 s" in error.message
    await impatient.close()


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        pytest.param("", "no JSON", id="empty"),
        pytest.param("<html>", "no JSON", id="a web page"),
        pytest.param("[" * 100_000, "no JSON", id="too deep"),
        pytest.param("[]", r"\$\.users has to be a list", id="a list"),
        pytest.param('{"users": {}}', r"\$\.users has to be a list", id="no list"),
        pytest.param('{"users": ["ada"]}', r"\$\.users\[0\] has", id="no object"),
        pytest.param('{"users": [{"user_id": 5}]}', r"\[0\]\.user_id", id="a number"),
        pytest.param(
            '{"users": [{"user_id": "a"}, {"user_id": "ada", "active": 1}]}',
            r"\[1\]\.active",
            id="neither true nor false",
        ),
        pytest.param(
            '{"users": [{"user_id": "ada", "tenant_id": null}]}', r"\[0\]\.tenant_id", id="null"
        ),
    ],
)
async def test_an_answer_that_cannot_be_read_is_no_answer(
    people: UserService, users: HttpUserService, body: str, problem: str
):
    people.always = Told(body=body)

    error = await refusal(users)

    assert re.search(problem, error.message)
    assert "docs/user-service.md" in error.message


async def test_an_answer_that_is_too_large_is_given_up(
    people: UserService, users: HttpUserService, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(http_source, "MAX_ANSWER_BYTES", 1000)
    people.always = Told(body=json.dumps({"users": [], "more": "x" * 1000}))

    error = await refusal(users)

    assert "more than 1000 bytes" in error.message
    assert "docs/user-service.md" in error.message


async def test_after_several_failures_the_service_is_left_alone_for_a_while(
    people: UserService, users: HttpUserService, clock: FakeClock
):
    people.add("ada")
    people.always = Told(status=400)
    for _ in range(Breaker.FAILURES):
        await refusal(users)

    error = await refusal(users)
    people.always = None
    clock.advance(Breaker.PAUSE)
    told = await users.verdicts(["ada"], tenant_id="default")

    assert error.retry_after == Breaker.PAUSE
    assert told == {"ada": UserVerdict.VALID}
    assert len(people.requests) == Breaker.FAILURES + 1


async def test_whether_it_answers_is_asked_with_no_ids(people: UserService, users: HttpUserService):
    await users.ping()
    people.always = Told(status=403)

    with pytest.raises(SourceUnavailable):
        await users.ping()

    assert people.asked_for == []


async def test_the_answer_of_the_page_is_read(people: UserService, users: HttpUserService):
    page = Path(__file__).parents[2] / "docs" / "user-service.md"
    request, answer = re.findall(r"```json\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    people.behaviours = [Told(body=answer)]

    told = await users.verdicts(json.loads(request)["user_ids"], tenant_id="default")

    assert told == {
        "ada": UserVerdict.VALID,
        "bob": UserVerdict.INACTIVE,
        "eve": UserVerdict.WRONG_TENANT,
        "nobody": UserVerdict.NOT_FOUND,
    }


async def test_answers_are_read_beside_the_event_loop(
    people: UserService, users: HttpUserService, monkeypatch: pytest.MonkeyPatch
):
    people.add("ada")
    read = user_service_adapter._verdicts
    threads = []

    def noted(*arguments: Any, **named: Any) -> Any:
        threads.append(threading.current_thread())
        return read(*arguments, **named)

    monkeypatch.setattr(user_service_adapter, "_verdicts", noted)

    assert await users.verdicts(["ada"], tenant_id="default") == {"ada": UserVerdict.VALID}
    assert threads
    assert threading.main_thread() not in threads
