"""Webhooks over real HTTP: what arrives, whom they do not reach, and what a refusal says."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import trustme
from batchwork_server.adapters.destinations import (
    NO_ADDRESS,
    NOT_PUBLIC,
    Address,
    Destinations,
)
from batchwork_server.adapters.webhooks import WebhookNotifier
from batchwork_server.errors import NotSent
from standardwebhooks.webhooks import Webhook

from tests.factories import make_message
from tests.fakes import START, FakeClock
from tests.webhook_receiver import SECRET, Answered, WebhookReceiver, webhook_receiver

LOCAL = ip_address("127.0.0.1")


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with webhook_receiver() as running:
        yield running


def notifier_of(
    url: str,
    clock: FakeClock,
    *,
    found: Sequence[Address] | None = None,
    allow_private: bool = True,
    timeout: timedelta = timedelta(seconds=15),
    **changes: Any,
) -> WebhookNotifier:
    """Returns what sends to a URL; ``found`` are the addresses of every name."""

    async def resolve(host: str, port: int) -> Sequence[Address]:
        assert found is not None
        return found

    destinations = (
        Destinations(allow_private=allow_private)
        if found is None
        else Destinations(allow_private=allow_private, resolve=resolve)
    )
    return WebhookNotifier(
        url=url, secret=SECRET, destinations=destinations, clock=clock, timeout=timeout, **changes
    )


async def refusal(notifier: WebhookNotifier) -> NotSent:
    with pytest.raises(NotSent) as raised:
        await notifier.send(make_message())
    await notifier.close()
    return raised.value


async def test_a_message_arrives_signed_as_standard_webhooks_says(receiver, clock):
    notifier = notifier_of(receiver.url, clock)

    await notifier.send(make_message(message_id="msg_1", data={"batch_id": "bat_1"}))
    await notifier.close()

    [request] = receiver.received
    assert request.json == {
        "type": "batch.completed",
        "timestamp": "2026-03-02T09:00:00Z",
        "data": {"batch_id": "bat_1"},
    }
    assert request.headers["content-type"] == "application/json"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert request.id == "msg_1"
    assert request.headers["webhook-timestamp"] == str(int(START.timestamp()))
    signature = request.headers["webhook-signature"]
    assert signature == request.signature_of(SECRET, timestamp=START)


async def test_who_has_the_secret_verifies_it(receiver, clock):
    now = datetime.now(UTC)
    clock.advance(now - START)
    notifier = notifier_of(receiver.url, clock)

    await notifier.send(make_message())
    await notifier.close()

    [request] = receiver.received
    assert Webhook(SECRET).verify(request.body, dict(request.headers)) == request.json


@pytest.mark.parametrize(
    "status, again",
    [
        *((status, True) for status in (301, 302, 307, 400, 401, 403, 404, 408, 422, 425, 429)),
        *((status, True) for status in (500, 502, 503)),
        (410, False),
    ],
)
async def test_every_answer_but_gone_is_worth_trying_again(receiver, clock, status, again):
    """A receiver that is being deployed may answer anything for a while, 401 and 404 included."""
    receiver.always = Answered(status=status)

    error = await refusal(notifier_of(receiver.url, clock))

    assert (error.again, error.problem) == (again, f"The target answered with {status}.")
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    "value, delay",
    [
        pytest.param("120", timedelta(seconds=120), id="seconds"),
        pytest.param(
            format_datetime(START + timedelta(hours=1), usegmt=True), timedelta(hours=1), id="date"
        ),
        pytest.param("soon", None, id="nonsense"),
    ],
)
async def test_the_target_says_when_to_come_back(receiver, clock, value, delay):
    receiver.always = Answered(status=429, headers={"retry-after": value})

    error = await refusal(notifier_of(receiver.url, clock))

    assert error.retry_after == delay


async def test_a_redirect_leads_nowhere(receiver, clock):
    async with webhook_receiver() as elsewhere:
        receiver.always = Answered(status=307, headers={"location": elsewhere.url})

        error = await refusal(notifier_of(receiver.url, clock))

        assert error.problem == "The target answered with 307."
        assert elsewhere.received == []


async def test_a_huge_answer_is_not_read(receiver, clock):
    receiver.always = Answered(status=200, headers={"content-length": str(10**12)}, body=b"x" * 999)
    notifier = notifier_of(receiver.url, clock)

    await notifier.send(make_message())
    await notifier.close()

    assert len(receiver.received) == 1


async def test_a_target_that_does_not_answer_is_given_up(receiver, clock):
    receiver.always = Answered(hold=asyncio.Event())

    error = await refusal(notifier_of(receiver.url, clock, timeout=timedelta(milliseconds=100)))

    assert (error.again, error.problem) == (True, "There was no answer within 0.1 s.")


async def test_a_target_that_is_down_or_breaks_off_is_tried_again(receiver, clock):
    receiver.always = Answered(cut=True)

    broken = await refusal(notifier_of(receiver.url, clock))
    await receiver.stop()
    down = await refusal(notifier_of(receiver.url, clock))

    assert (broken.again, down.again) == (True, True)
    assert down.problem == "The target accepts no connection."


async def test_proxies_of_the_environment_get_nothing(receiver, clock, monkeypatch):
    async with webhook_receiver() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        notifier = notifier_of(receiver.url, clock)

        await notifier.send(make_message())
        await notifier.close()

        assert (len(receiver.received), len(proxy.received)) == (1, 0)


# Where messages may go


async def test_an_address_that_is_not_of_the_internet_is_refused(clock):
    found = [ip_address("10.1.2.3")]

    error = await refusal(
        notifier_of("https://hooks.example/x", clock, found=found, allow_private=False)
    )

    assert not error.again
    assert "10.1.2.3" in error.detail


async def test_one_private_address_among_public_ones_refuses_all(clock):
    found = [ip_address("8.8.8.8"), LOCAL]

    error = await refusal(
        notifier_of("https://hooks.example/x", clock, found=found, allow_private=False)
    )

    assert (error.again, error.problem) == (False, NOT_PUBLIC)
    assert error.detail == "host hooks.example, address 127.0.0.1"


async def test_an_address_in_the_url_is_checked_like_any_other(receiver, clock):
    error = await refusal(notifier_of(receiver.url, clock, allow_private=False))

    assert error.problem == NOT_PUBLIC
    assert receiver.received == []


async def test_a_name_without_an_address_is_looked_up_again(clock):
    async def resolve(host: str, port: int) -> Sequence[Address]:
        raise OSError("nobody knows it")

    destinations = Destinations(allow_private=False, resolve=resolve)
    notifier = WebhookNotifier(
        url="https://hooks.example/x", secret=SECRET, destinations=destinations, clock=clock
    )

    error = await refusal(notifier)

    assert (error.again, error.problem) == (True, NO_ADDRESS)
    assert error.detail == "host hooks.example"


@pytest.fixture
async def encrypted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[WebhookReceiver]:
    """A receiver with a certificate for ``hooks.example``, of an authority that is trusted."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    receiver = WebhookReceiver()
    receiver.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("hooks.example").configure_cert(receiver.tls)
    receiver.tls.sni_callback = lambda _socket, name, _context: receiver.server_names.append(name)
    await receiver.start()
    yield receiver
    await receiver.stop()


async def test_the_connection_goes_to_the_address_that_was_checked(encrypted, clock):
    """A name that means another address a moment later changes nothing: it is asked once."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[Address]:
        asked.append(host)
        return [LOCAL]

    destinations = Destinations(allow_private=True, resolve=resolve)
    url = f"https://hooks.example:{encrypted.port}/x"
    notifier = WebhookNotifier(url=url, secret=SECRET, destinations=destinations, clock=clock)

    await notifier.send(make_message())
    await notifier.close()

    [request] = encrypted.received
    assert request.headers["host"] == f"hooks.example:{encrypted.port}"
    assert encrypted.server_names == ["hooks.example"]
    assert asked == ["hooks.example"]


async def test_a_certificate_for_another_name_is_refused(encrypted, clock):
    url = f"https://other.example:{encrypted.port}/x"

    error = await refusal(notifier_of(url, clock, found=[LOCAL]))

    assert error.problem == "The certificate of the target is not trusted, or not for its name."
    assert encrypted.received == []


async def test_the_next_address_is_tried_when_one_accepts_nothing(receiver, clock):
    found = [ip_address("127.0.0.2"), LOCAL]
    url = f"http://hooks.example:{receiver.port}/x"
    notifier = notifier_of(url, clock, found=found)

    await notifier.send(make_message())
    await notifier.close()

    assert len(receiver.received) == 1


@pytest.mark.parametrize("found", [[], [LOCAL]], ids=["nowhere", "inside"])
async def test_only_the_operator_is_told_where_a_target_is(clock, found):
    """The problem is shown to whose batch it is."""
    url = "https://hooks.example/token-of-the-path"

    error = await refusal(notifier_of(url, clock, found=found, allow_private=False))

    assert "hooks.example" in error.detail
    assert not any(place in error.problem for place in ("hooks.example", "127.0.0.1"))
    assert "token-of-the-path" not in error.detail


@contextmanager
def black_hole(address: str, port: int) -> Iterator[None]:
    """Has an address answer nothing, not even with a refusal: its queue of connections is full."""
    with ExitStack() as open_sockets:
        listening = open_sockets.enter_context(socket.socket())
        listening.bind((address, port))
        listening.listen(0)
        for _ in range(8):
            waiting = open_sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((address, port))
        yield


async def test_the_next_address_is_tried_when_one_does_not_even_refuse(receiver, clock):
    """It took the whole time of each of ten attempts, as IPv6 does where that leads nowhere."""
    notifier = notifier_of(
        f"http://hooks.example:{receiver.port}/x",
        clock,
        found=[ip_address("127.0.0.2"), LOCAL],
        connect_timeout=timedelta(milliseconds=100),
    )

    with black_hole("127.0.0.2", receiver.port):
        await notifier.send(make_message())
    await notifier.close()

    assert len(receiver.received) == 1


async def test_both_versions_of_ip_are_tried_in_turn(receiver, clock):
    """Else those of one version alone would use up the few that are tried."""
    dead = [ip_address(f"::ffff:127.0.0.{n}") for n in range(2, 9)]
    url = f"http://hooks.example:{receiver.port}/x"
    notifier = notifier_of(url, clock, found=[*dead, LOCAL])

    await notifier.send(make_message())
    await notifier.close()

    assert len(receiver.received) == 1


async def test_no_problem_names_the_path_or_the_secret(receiver, clock):
    problems = []
    for answer in (Answered(status=404), Answered(status=500), Answered(cut=True)):
        receiver.always = answer
        problems.append((await refusal(notifier_of(receiver.url, clock))).problem)
    await receiver.stop()
    problems.append((await refusal(notifier_of(receiver.url, clock))).problem)

    assert len(problems) == 4
    assert not any("token-of-the-path" in problem or SECRET in problem for problem in problems)
