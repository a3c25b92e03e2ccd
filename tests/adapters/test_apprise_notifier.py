"""Apprise: which of its services may be used, what it may reach, and what hangs in it."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from apprise import NotifyBase
from apprise.manager_plugins import NotificationManager
from batchwork_server.adapters.apprise_notifier import (
    CLEAR_TEXT,
    MOST_AT_ONCE,
    AppriseNotifier,
    clear_text_problem,
)
from batchwork_server.adapters.destinations import NOT_PUBLIC
from batchwork_server.errors import ConfigurationError, NotSent
from batchwork_server.ports import Notifier

from tests.adapters.test_notifiers import opened
from tests.factories import make_message
from tests.mail_server import MailServer, mail_server
from tests.webhook_receiver import Answered, WebhookReceiver, webhook_receiver


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with webhook_receiver() as running:
        yield running


@pytest.fixture
async def mail() -> AsyncIterator[MailServer]:
    async with mail_server() as running:
        yield running


async def test_a_mail_tells_of_a_batch_in_words(tmp_path, mail):
    notifiers = opened(tmp_path, {"name": "ops", "url": mail.url})

    await notifiers.by_name["ops"].send(
        make_message(title="Batch Nightly: failed", text="Batch: bat_1\nState: failed\n")
    )
    await notifiers.close()

    [sent] = mail.mails
    assert sent["subject"] == "Batch Nightly: failed"
    assert mail.recipients == [["ops@example.com"]]
    body = sent.get_body(("plain",))
    assert body is not None
    assert "State: failed" in body.get_content()


async def test_other_services_are_called_by_their_urls(tmp_path, receiver):
    url = f"json://127.0.0.1:{receiver.port}/hook"
    notifiers = opened(tmp_path, {"name": "chat", "url": url})

    await notifiers.by_name["chat"].send(make_message(title="Batch Nightly: failed"))
    await notifiers.close()

    [request] = receiver.received
    assert request.json["title"] == "Batch Nightly: failed"


class Service(NotifyBase):
    """A service of the library.

    Attributes:
        behave: What it does with a message.
        threads: That it was called in, in order.
    """

    def __init__(self, behave: Callable[[], bool]) -> None:
        super().__init__(schema="stub")
        self.behave = behave
        self.threads: list[threading.Thread] = []

    def send(self, *_words: Any, **_more: Any) -> bool:
        self.threads.append(threading.current_thread())
        return self.behave()


def notifier_of(service: NotifyBase, *, timeout: timedelta = timedelta(seconds=60)) -> Notifier:
    return AppriseNotifier(service, allow_private=False, timeout=timeout)


async def test_what_hangs_is_given_up_and_holds_up_no_other_service():
    """All services shared eight threads: two that hung took them all."""
    going_on = threading.Event()
    hanging = Service(lambda: going_on.wait(timeout=30))
    others = [notifier_of(Service(lambda: True)) for _ in range(3)]
    stuck = notifier_of(hanging, timeout=timedelta(milliseconds=100))

    sending = [stuck.send(make_message()) for _ in range(MOST_AT_ONCE)]
    errors = await asyncio.gather(*sending, return_exceptions=True)
    with pytest.raises(NotSent) as raised:
        await stuck.send(make_message())
    for other in others:
        await other.send(make_message())

    assert {str(error) for error in errors} == {"It was not sent within 0.1 s."}
    assert raised.value.again
    assert raised.value.problem == "The messages before this one still hang."
    assert len(hanging.threads) == MOST_AT_ONCE
    assert all(thread.daemon for thread in hanging.threads), "they would keep the process alive"
    going_on.set()


async def test_a_service_that_goes_on_after_it_hung_is_used_again():
    going_on = threading.Event()
    service = Service(lambda: going_on.wait(timeout=30))
    stuck = notifier_of(service, timeout=timedelta(milliseconds=100))
    for _ in range(MOST_AT_ONCE):
        with pytest.raises(NotSent):
            await stuck.send(make_message())

    going_on.set()
    for thread in service.threads:
        thread.join()

    await notifier_of(service).send(make_message())
    await stuck.send(make_message())


async def test_many_messages_find_room_as_soon_as_others_are_sent():
    notifier = notifier_of(Service(lambda: True))

    for _ in range(100):
        await asyncio.gather(*(notifier.send(make_message()) for _ in range(MOST_AT_ONCE)))


@pytest.mark.parametrize("error", [ValueError("token-of-the-path"), SystemExit(1)])
async def test_an_error_of_the_library_is_told_without_its_words(error):
    def fail() -> bool:
        raise error

    with pytest.raises(NotSent) as raised:
        await notifier_of(Service(fail)).send(make_message())

    assert raised.value.again
    assert raised.value.problem == f"Apprise failed: {type(error).__name__}."


async def test_services_do_not_follow_redirects(tmp_path, receiver):
    async with webhook_receiver() as elsewhere:
        receiver.always = Answered(status=307, headers={"location": elsewhere.url})
        url = f"json://127.0.0.1:{receiver.port}/hook"
        notifiers = opened(tmp_path, {"name": "chat", "url": url})

        with pytest.raises(NotSent):
            await notifiers.by_name["chat"].send(make_message())
        await notifiers.close()

        assert elsewhere.received == []


async def test_a_service_at_a_private_address_is_not_called(tmp_path, receiver):
    url = f"jsons://127.0.0.1:{receiver.port}/hook"
    notifiers = opened(tmp_path, {"name": "chat", "url": url}, allow_private_addresses=False)

    with pytest.raises(NotSent) as raised:
        await notifiers.by_name["chat"].send(make_message())
    await notifiers.close()

    assert not raised.value.again
    assert "127.0.0.1" in raised.value.detail
    assert receiver.received == []


async def test_a_name_that_comes_to_mean_a_private_address_is_not_called(
    tmp_path, receiver, monkeypatch
):
    """Whoever looks it up before does not know what it means to the library a moment later."""

    def look_up(_host: str, port: int, *_more: Any, **_options: Any) -> list[Any]:
        by_library = threading.current_thread().name.startswith("apprise")
        meaning = "127.0.0.1" if by_library else "8.8.8.8"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (meaning, port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    url = f"json://chat.example:{receiver.port}/hook"
    notifiers = opened(
        tmp_path, {"name": "chat", "url": url}, clear_text=True, allow_private_addresses=False
    )

    with pytest.raises(NotSent) as raised:
        await notifiers.by_name["chat"].send(make_message())

    assert (raised.value.again, raised.value.problem) == (False, NOT_PUBLIC)
    assert raised.value.detail == "address 127.0.0.1"
    assert receiver.received == []


async def test_a_proxy_of_the_environment_is_reached_only_at_an_address_that_may_be(
    tmp_path, receiver, monkeypatch
):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{receiver.port}")
    url = "json://chat.example/hook"
    fields = {"clear_text": True, "allow_private_addresses": False}
    refusing = opened(tmp_path, {"name": "chat", "url": url}, **fields).by_name["chat"]
    allowing = opened(tmp_path, {"name": "chat", "url": url}, clear_text=True).by_name["chat"]

    with pytest.raises(NotSent) as raised:
        await refusing.send(make_message())
    before = list(receiver.received)
    await allowing.send(make_message())

    assert raised.value.problem == NOT_PUBLIC
    assert before == []
    assert [request.path for request in receiver.received] == ["http://chat.example/hook"]


async def test_mail_is_not_handed_to_a_private_address(tmp_path, mail):
    notifiers = opened(
        tmp_path,
        {"name": "ops", "url": mail.url},
        clear_text=True,
        allow_private_addresses=False,
    )

    with pytest.raises(NotSent) as raised:
        await notifiers.by_name["ops"].send(make_message())

    assert raised.value.problem == NOT_PUBLIC
    assert mail.mails == []


async def test_other_threads_reach_what_they_want_meanwhile(receiver):
    reached: list[int] = []

    def knock() -> None:
        with socket.create_connection(("127.0.0.1", receiver.port)):
            reached.append(receiver.port)

    def send() -> bool:
        elsewhere = threading.Thread(target=knock)
        elsewhere.start()
        elsewhere.join()
        return True

    await notifier_of(Service(send)).send(make_message())

    assert reached == [receiver.port]


@pytest.mark.parametrize("place", ["localhost", "127.0.0.1", "::1", "fe80::1%lo"])
async def test_datagrams_go_to_public_addresses_only(place):
    family = socket.AF_INET6 if ":" in place else socket.AF_INET

    def send() -> bool:
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            return sender.sendto(b"x", (place, 9)) > 0

    with pytest.raises(NotSent) as raised:
        await notifier_of(Service(send)).send(make_message())

    assert (raised.value.problem, raised.value.detail) == (NOT_PUBLIC, f"address {place}")


async def test_a_second_address_that_is_public_is_enough():
    """The library goes on to the next one by itself."""

    def send() -> bool:
        with pytest.raises(OSError, match="not a public address"):
            socket.create_connection(("127.0.0.1", 9))
        return True

    await notifier_of(Service(send)).send(make_message())


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("gibberish://token-of-the-path", id="unknown"),
        pytest.param("mailto://me:token-of-the-path@mail.example?to=ops@example.com", id="mail"),
        pytest.param("json://chat.example/token-of-the-path", id="HTTP"),
        pytest.param(
            "mailtos://me:token-of-the-path@mail.example?to=ops@example.com&mode=insecure",
            id="mail that says so",
        ),
        pytest.param("dapnet://me:token-of-the-path@DF1ABC", id="a host of its own"),
    ],
)
def test_a_service_that_is_unknown_or_does_not_encrypt_is_refused(tmp_path, url):
    with pytest.raises(ConfigurationError) as raised:
        opened(tmp_path, {"name": "chat", "url": url})

    assert "$.targets[0].url: " in raised.value.message
    assert "token-of-the-path" not in raised.value.message


@pytest.mark.parametrize(
    "url",
    [
        "mailtos://me:secret@mail.example?to=ops@example.com",
        "jsons://chat.example/x",
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#general",
        "mailto://me:secret@mail.example?to=ops@example.com&mode=starttls",
        "mailgun://me@mg.example.com/key-0123456789abcdef/ops@example.com",
        "sparkpost://me@mg.example.com/0123456789abcdef/ops@example.com",
        "smtp2go://me@mg.example.com/0123456789abcdef/ops@example.com",
        "sendpulse://me@example.com/client/secret/ops@example.com",
        "ntfys://topic",
    ],
)
async def test_a_service_that_encrypts_is_accepted(tmp_path, url):
    notifiers = opened(tmp_path, {"name": "chat", "url": url}, allow_private_addresses=False)

    assert isinstance(notifiers.by_name["chat"], AppriseNotifier)
    await notifiers.close()


def schemas_of(protocol: str | Sequence[str] | None) -> tuple[str, ...]:
    return (protocol,) if isinstance(protocol, str) else tuple(protocol or ())


PLUGINS = {plugin.__name__: plugin for plugin in NotificationManager().plugins()}


def problem_with(plugin: type[NotifyBase], schema: str) -> str:
    """Returns what is wrong with a service of which only the schema and a host are known."""
    bare: Any = type(plugin.__name__, (plugin,), {"__del__": lambda _self: None})
    service: NotifyBase = bare.__new__(bare)
    NotifyBase.__init__(service, schema=schema, host="chat.example")
    return clear_text_problem(service, allow_private=True, allow_clear_text=False)


@pytest.mark.parametrize("plugin", PLUGINS.values(), ids=list(PLUGINS))
def test_every_service_is_accepted_in_its_form_that_encrypts_and_in_no_other(plugin):
    """Mailgun and others were refused: their only schema does not end in an s."""
    plain, encrypted = schemas_of(plugin.protocol), schemas_of(plugin.secure_protocol)
    refused = {schema for schema in (*plain, *encrypted) if problem_with(plugin, schema)}

    assert refused & set(encrypted) == CLEAR_TEXT & set(encrypted)
    if encrypted or "{host}" in str(plugin.templates):
        assert set(plain) <= refused


@pytest.mark.parametrize("plugin", PLUGINS.values(), ids=list(PLUGINS))
def test_no_service_that_is_taken_for_encrypted_has_a_url_without_tls(plugin):
    schemas = {*schemas_of(plugin.protocol), *schemas_of(plugin.secure_protocol)}

    assert schemas & CLEAR_TEXT or not str(getattr(plugin, "notify_url", "")).startswith("http://")


async def test_the_library_logs_nothing(tmp_path, mail, caplog):
    await mail.stop()
    notifiers = opened(tmp_path, {"name": "ops", "url": mail.url})

    with caplog.at_level(logging.DEBUG), pytest.raises(NotSent):
        await notifiers.by_name["ops"].send(make_message())
    await notifiers.close()

    assert [record for record in caplog.records if record.name.startswith("apprise")] == []
