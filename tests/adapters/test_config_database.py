"""The Config Database over HTTP, whatever the service at the other end does."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import ssl
from collections.abc import Iterator
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
import stamina
import trustme
from batchwork_server.adapters import http_source
from batchwork_server.adapters.config_database import HttpConfigDatabase
from batchwork_server.adapters.http_source import Breaker
from batchwork_server.domain.config_source import UserWishes
from batchwork_server.errors import SourceUnavailable

from tests.adapters.conftest import TTL, client_of
from tests.config_service import KEY, ConfigService
from tests.fakes import FakeClock
from tests.http_service import API_KEY, Told

DAILY = {"frequency": "daily", "preferred_time": "09:00"}
ATTEMPTS = 4


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """How long the client waited before each retry, if its time were ours."""
    waited: list[float] = []

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("stamina._core._smart_sleep", wait)
    with stamina.set_testing(False):
        yield waited


async def refusal(source: HttpConfigDatabase) -> SourceUnavailable:
    """Returns why all users could not be read."""
    with pytest.raises(SourceUnavailable) as raised:
        await source.all_users()
    assert raised.value.reason == "DEPENDENCY_UNAVAILABLE"
    return raised.value


async def test_every_request_carries_the_key(service: ConfigService, source: HttpConfigDatabase):
    await source.all_users()
    await source.user("ada")

    assert service.keys == [f"bearer {API_KEY}"] * 2
    assert service.requests == [
        f"/config/configs/{KEY}/all-tenants",
        f"/tenants/ada/configs/{KEY}",
    ]


@pytest.mark.parametrize(
    "user_id, path",
    [
        pytest.param("a/../b?c#d", "a%2F..%2Fb%3Fc%23d", id="separators"),
        pytest.param("..", "%2E%2E", id="dots"),
        pytest.param("Zoë", "Zo%C3%AB", id="beyond ASCII"),
    ],
)
async def test_the_id_of_a_user_stays_one_segment(
    service: ConfigService, source: HttpConfigDatabase, user_id: str, path: str
):
    service.set(user_id, posts=DAILY)

    answer = await source.user(user_id)

    assert service.requests == [f"/tenants/{path}/configs/{KEY}"]
    assert answer.value is not None


# Not well, and well again


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_what_may_pass_is_tried_again(
    service: ConfigService, source: HttpConfigDatabase, status: int
):
    service.set("ada", posts=DAILY)
    service.behaviours = [Told(status=status)] * (ATTEMPTS - 1)

    page = await source.all_users()

    assert [user.user_id for user in page.users] == ["ada"]
    assert len(service.requests) == ATTEMPTS


@pytest.mark.parametrize("status", [400, 401, 403, 405, 301, 302, 201, 204])
async def test_what_does_not_pass_is_not_tried_again(
    service: ConfigService, source: HttpConfigDatabase, status: int
):
    service.always = Told(status=status, headers={"location": service.url})

    error = await refusal(source)

    assert len(service.requests) == 1
    assert f"answered with {status}" in error.message


@pytest.mark.parametrize(
    "status, advice",
    [
        pytest.param(401, "CONFIG_SERVICE_API_KEY", id="no key"),
        pytest.param(403, "CONFIG_SERVICE_API_KEY", id="a wrong key"),
        pytest.param(404, "CONFIG_PREFERENCES_KEY", id="nothing there"),
        pytest.param(302, "CONFIG_SERVICE_URL", id="elsewhere"),
        pytest.param(500, "log of the service", id="its own fault"),
    ],
)
async def test_an_error_says_what_was_asked_and_what_to_do_and_gives_no_key_away(
    service: ConfigService, source: HttpConfigDatabase, status: int, advice: str
):
    service.always = Told(status=status)

    error = await refusal(source)

    assert error.message.startswith("Error connecting to Config Database")
    assert f"{service.url}/config/configs/{KEY}/all-tenants" in error.message
    assert advice in error.message
    assert API_KEY not in error.message


async def test_a_service_that_is_down_is_told_so_and_found_again(
    service: ConfigService, source: HttpConfigDatabase
):
    await service.stop()

    error = await refusal(source)
    await service.start()
    page = await source.all_users()

    assert error.message.startswith("Error connecting to Config Database")
    assert "Check that the service runs" in error.message
    assert page.users == []


async def test_a_service_that_does_not_answer_in_time_is_away(
    service: ConfigService, clock: FakeClock, pauses: list[float]
):
    service.always = Told(hold=asyncio.Event())
    impatient = client_of(service, clock, timeout=timedelta(milliseconds=50))

    error = await refusal(impatient)

    assert "was not answered within 0.05 s" in error.message
    # Not what the service saw: a machine that is slow gives an attempt up before it arrives.
    assert len(pauses) == ATTEMPTS - 1
    await impatient.close()


async def test_an_answer_that_is_cut_off_is_asked_for_again(
    service: ConfigService, source: HttpConfigDatabase
):
    service.behaviours = [Told(body="[", cut=True)]

    page = await source.all_users()

    assert page.users == []
    assert len(service.requests) == 2


async def test_the_service_may_say_when_to_come_back(
    service: ConfigService, source: HttpConfigDatabase, pauses: list[float], clock: FakeClock
):
    later = format_datetime(clock.now() + timedelta(seconds=9), usegmt=True)
    service.behaviours = [
        Told(status=429, headers={"retry-after": "7"}),
        Told(status=503, headers={"retry-after": later}),
        Told(status=503, headers={"retry-after": "soon"}),
    ]

    await source.all_users()

    assert pauses[:2] == [7, 9]
    assert 0 < pauses[2] < 5


async def test_who_is_told_to_come_back_much_later_does_not_wait(
    service: ConfigService, source: HttpConfigDatabase, pauses: list[float]
):
    service.always = Told(status=429, headers={"retry-after": "600"})

    error = await refusal(source)

    assert (len(service.requests), pauses) == (1, [])
    assert error.retry_after == timedelta(seconds=600)


async def test_a_service_that_nobody_vouches_for_does_not_get_the_key(clock: FakeClock):
    service = ConfigService()
    service.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(service.tls)
    await service.start()
    source = client_of(service, clock)

    error = await refusal(source)
    await source.close()
    await service.stop()

    assert "certificate" in error.message
    assert service.keys == []


# The breaker


async def test_a_service_that_keeps_failing_is_left_alone_for_a_while(
    service: ConfigService, source: HttpConfigDatabase, clock: FakeClock
):
    service.always = Told(status=400)
    for _ in range(Breaker.FAILURES):
        await refusal(source)
    asked = len(service.requests)

    error = await refusal(source)
    clock.advance(Breaker.PAUSE - timedelta(seconds=1))
    later = await refusal(source)

    assert len(service.requests) == asked
    assert "answered with 400" in error.message
    assert (error.retry_after, later.retry_after) == (Breaker.PAUSE, timedelta(seconds=1))


async def test_after_the_pause_one_call_finds_out_for_all(
    service: ConfigService, source: HttpConfigDatabase, clock: FakeClock
):
    service.always = Told(status=400)
    for _ in range(Breaker.FAILURES):
        await refusal(source)
    clock.advance(Breaker.PAUSE)
    hold = asyncio.Event()
    service.always = None
    service.behaviours = [Told(body="[]", hold=hold)]
    service.asked.clear()

    trial = asyncio.create_task(source.all_users())
    await service.asked.wait()
    asked = len(service.requests)
    await refusal(source)
    held_back = len(service.requests) - asked
    hold.set()
    await trial
    await source.all_users()

    assert held_back == 0
    assert len(service.requests) == asked + 1


async def test_failures_that_are_not_in_a_row_do_not_count(
    service: ConfigService, source: HttpConfigDatabase
):
    for _ in range(Breaker.FAILURES):
        service.behaviours = [Told(status=400)]
        await refusal(source)
        await source.all_users()

    assert len(service.requests) == 2 * Breaker.FAILURES


# Wrong, huge, empty


@pytest.mark.parametrize(
    "body, problem",
    [
        pytest.param("", "not JSON", id="empty"),
        pytest.param("<html>", "not JSON", id="a page for people"),
        pytest.param("5", "$: 5 is not an object", id="a number"),
        pytest.param('{"configs": 5}', "$.configs: 5 is not a list", id="no list"),
        pytest.param("{}", "$.configs: null is not a list", id="an empty object"),
        pytest.param('{"configs": [], "next_page_token": 5}', "$.next_page_token: 5", id="token"),
        pytest.param(b"\xff", "not UTF-8", id="no text"),
        pytest.param("[" * 100_000, "nested", id="deep"),
    ],
)
async def test_a_wrong_answer_says_what_is_wrong_and_where(
    service: ConfigService, source: HttpConfigDatabase, body: str | bytes, problem: str
):
    service.always = Told(body=body)

    error = await refusal(source)

    assert problem in error.message
    assert f"{service.url}/config/configs/{KEY}/all-tenants" in error.message
    assert len(service.requests) == 1


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "not declared"])
async def test_a_huge_answer_is_given_up_while_it_is_read(
    service: ConfigService,
    source: HttpConfigDatabase,
    monkeypatch: pytest.MonkeyPatch,
    declared: bool,
):
    monkeypatch.setattr(http_source, "MAX_ANSWER_BYTES", 1000)
    headers = {} if declared else {"content-length": ""}
    service.always = Told(body="[" + " " * 5000 + "]", headers=headers)

    error = await refusal(source)

    assert "more than 1000 bytes" in error.message
    assert len(service.requests) == 1


async def test_a_compressed_answer_is_refused(service: ConfigService, source: HttpConfigDatabase):
    service.always = Told(body=gzip.compress(b"[]"), headers={"content-encoding": "gzip"})

    error = await refusal(source)

    assert "compressed" in error.message


async def test_one_broken_tenant_among_many_does_not_lose_the_others(
    service: ConfigService, source: HttpConfigDatabase
):
    service.set("ada", posts=DAILY)
    service.set("bob", posts={"frequency": "sometimes"})
    service.set("eve", posts=DAILY)

    page = await source.all_users()

    assert [user.user_id for user in page.users] == ["ada", "eve"]
    assert [problem.path for problem in page.problems] == ["$[1].features.posts.frequency"]


async def test_the_document_of_somebody_else_is_no_answer(
    service: ConfigService, source: HttpConfigDatabase
):
    service.always = Told(body=json.dumps({"tenant_id": "bob", "features": {}}))

    with pytest.raises(SourceUnavailable, match='document of "bob", not of "ada"'):
        await source.user("ada")


@pytest.mark.parametrize(
    "answer, path",
    [
        pytest.param({"changes": [{"tenant_id": "a"}]}, r"\$\.changes\[0\]\.id", id="no id"),
        pytest.param({"changes": [{"id": 1}]}, r"\$\.changes\[0\]\.tenant_id", id="nobody"),
        pytest.param({"changes": [5]}, r"\$\.changes\[0\]", id="a number"),
        pytest.param({}, r"\$\.changes", id="no changes"),
        pytest.param(
            {"changes": [], "last_id": "4", "has_more": True}, r"\$\.has_more", id="no way on"
        ),
    ],
)
async def test_changes_that_could_be_lost_are_no_answer(
    service: ConfigService, source: HttpConfigDatabase, answer: dict[str, object], path: str
):
    service.always = Told(body=json.dumps(answer))

    with pytest.raises(SourceUnavailable, match=path):
        await source.changes("4")


@pytest.mark.parametrize(
    "answer, path",
    [
        pytest.param({"groups": [{}]}, r"\$\.groups\[0\]\.tenant_count", id="no count"),
        pytest.param(
            {"groups": [{"tenant_count": -1}]}, r"\$\.groups\[0\]\.tenant_count", id="below zero"
        ),
        pytest.param({"groups": [5]}, r"\$\.groups\[0\]", id="a number"),
        pytest.param(
            {"groups": [{"tenant_count": 1, "frequency": "x"}]},
            r"\$\.groups\[0\]\.frequency",
            id="no schedule",
        ),
        pytest.param({}, r"\$\.groups", id="no groups"),
    ],
)
async def test_groups_are_all_right_or_no_answer(
    service: ConfigService, source: HttpConfigDatabase, answer: dict[str, object], path: str
):
    service.always = Told(body=json.dumps(answer))

    with pytest.raises(SourceUnavailable, match=path):
        await source.groups("posts")


@pytest.mark.parametrize("body", ['{"changes": []}', '{"last_id": true}', '{"last_id": "a\\nb"}'])
async def test_without_the_newest_id_there_is_no_beginning(
    service: ConfigService, source: HttpConfigDatabase, body: str
):
    service.always = Told(body=body)

    with pytest.raises(SourceUnavailable, match=r"\$\.last_id"):
        await source.newest_change()


async def test_a_change_of_another_key_counts_and_tells_nothing(
    service: ConfigService, source: HttpConfigDatabase
):
    change = {"id": 9, "tenant_id": "ada", "config_key": "colours", "config_value": {"a": 1}}
    service.always = Told(body=json.dumps({"changes": [change]}))

    changes = await source.changes("8")

    assert changes is not None
    assert (changes.users, changes.problems, changes.last_id) == ([], [], "9")


async def test_users_of_one_account_are_told_apart_by_their_own_ids(
    service: ConfigService, source: HttpConfigDatabase
):
    changes = [
        {"id": number, "tenant_id": "acme", "user_id": user_id, "features": {"posts": DAILY}}
        for number, user_id in enumerate(("ada", "bob"), start=1)
    ]
    service.behaviours = [Told(body=json.dumps({"changes": changes}))]

    told = await source.changes("0")

    assert told is not None
    assert [user.user_id for user in told.users] == ["ada", "bob"]


async def test_a_change_that_says_only_who_changed_is_looked_up(
    service: ConfigService, source: HttpConfigDatabase
):
    service.set("ada", tells=False, posts=DAILY)
    service.set("bob", tells=False, posts={"frequency": "sometimes"})
    service.set("eve", tells=False, posts=DAILY)
    del service.documents["eve"]

    changes = await source.changes("0")

    assert changes is not None
    assert {user.user_id: list(user.wishes) for user in changes.users} == {
        "ada": ["posts"],
        "eve": [],
    }
    assert [problem.path for problem in changes.problems] == ["tenants/bob"]
    assert changes.last_id == "3"


async def test_a_change_whose_user_cannot_be_looked_up_is_asked_for_again(
    service: ConfigService, source: HttpConfigDatabase
):
    service.set("ada", tells=False, posts=DAILY)
    told = Told(body=json.dumps({"changes": service.changes}))
    service.behaviours = [told, Told(status=403)]

    with pytest.raises(SourceUnavailable, match="CONFIG_SERVICE_API_KEY"):
        await source.changes("0")


# The cache


async def test_one_user_is_asked_for_once_until_the_answer_is_old(
    service: ConfigService, source: HttpConfigDatabase, clock: FakeClock
):
    service.set("ada", posts=DAILY)
    await source.user("ada")
    clock.advance(TTL - timedelta(seconds=1))

    kept = await source.user("ada")
    clock.advance(timedelta(seconds=1))
    fresh = await source.user("ada")

    assert len(service.requests) == 2
    assert (kept.age, kept.is_stale) == (TTL - timedelta(seconds=1), False)
    assert (fresh.age, fresh.is_stale) == (timedelta(0), False)


async def test_who_asks_at_the_same_time_waits_for_the_same_answer(
    service: ConfigService, source: HttpConfigDatabase
):
    service.set("ada", posts=DAILY)

    answers = await asyncio.gather(*(source.user("ada") for _ in range(50)))

    assert len(service.requests) == 1
    assert {answer.value.user_id for answer in answers if answer.value} == {"ada"}


async def test_who_gives_up_does_not_end_the_flight_for_the_others(
    service: ConfigService, source: HttpConfigDatabase
):
    hold = asyncio.Event()
    service.behaviours = [Told(body='{"active": true, "features": {}}', hold=hold)]
    first = asyncio.create_task(source.user("ada"))
    second = asyncio.create_task(source.user("ada"))
    await service.asked.wait()

    first.cancel()
    hold.set()

    assert (await second).value == UserWishes(user_id="ada")


async def test_who_wants_a_younger_answer_has_it_asked_for(
    service: ConfigService, source: HttpConfigDatabase, clock: FakeClock
):
    service.set("ada", posts=DAILY)
    await source.user("ada")
    clock.advance(timedelta(seconds=10))

    young_enough = await source.user("ada", max_age=timedelta(seconds=11))
    asked = await source.user("ada", max_age=timedelta(seconds=10))

    assert young_enough.age == timedelta(seconds=10)
    assert asked.age == timedelta(0)
    assert len(service.requests) == 2


async def test_a_service_that_tells_no_groups_is_not_away(
    service: ConfigService, source: HttpConfigDatabase
):
    service.has_groups = False

    assert (await source.groups("posts")).value is None


async def test_while_the_service_is_away_the_old_answer_is_told_with_its_age(
    service: ConfigService, source: HttpConfigDatabase, clock: FakeClock
):
    service.set("ada", posts=DAILY)
    known = await source.user("ada")
    groups = await source.groups("posts")
    await service.stop()
    clock.advance(TTL + timedelta(seconds=5))

    user = await source.user("ada")
    stale_groups = await source.groups("posts")

    assert (user.value, user.is_stale) == (known.value, True)
    assert user.age == TTL + timedelta(seconds=5)
    assert (stale_groups.value, stale_groups.is_stale) == (groups.value, True)
    with pytest.raises(SourceUnavailable):
        await source.user("bob")


async def test_a_change_is_seen_although_an_older_answer_is_kept(
    service: ConfigService, source: HttpConfigDatabase
):
    service.set("ada", posts=DAILY)
    await source.user("ada")
    service.set("ada", tips=DAILY)

    await source.changes("1")
    user = (await source.user("ada")).value

    assert user is not None
    assert list(user.wishes) == ["tips"]


def examples() -> list[str]:
    """Returns the JSON of the page that says what a service answers."""
    page = Path(__file__).parents[2] / "docs" / "config-service.md"
    return re.findall(r"```json\n(.*?)```", page.read_text("utf-8"), re.DOTALL)


async def test_the_answers_of_the_page_are_read(service: ConfigService, source: HttpConfigDatabase):
    documents, page, groups, changes = examples()
    service.behaviours = [Told(body=line) for line in documents.splitlines()]
    service.behaviours += [Told(body=body) for body in (page, groups, changes)]
    service.set("eve", posts=DAILY)

    users = [(await source.user("ada")).value, await source._read_user("ada")]
    all_users = await source.all_users()
    counted = (await source.groups("posts")).value
    changed = await source.changes("7")

    assert [list(user.wishes) for user in users if user is not None] == [["posts"], ["posts"]]
    assert (len(all_users.users), all_users.next_page_token) == (1, "2")
    assert [group.user_count for group in counted] == [12, 3]
    assert changed is not None
    assert sorted(user.user_id for user in changed.users) == ["ada", "bob", "eve"]
    assert changed.last_id == "10"
