"""What every notifier promises, the fake included; and what is special about Apprise."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from apprise import NotifyBase
from batchwork_server.adapters.apprise_notifier import MOST_AT_ONCE, AppriseNotifier
from batchwork_server.adapters.destinations import Destinations
from batchwork_server.adapters.notifiers import Notifiers, open_notifiers
from batchwork_server.errors import ConfigurationError, NotSent
from batchwork_server.ports import Notifier

from tests.factories import make_message
from tests.fakes import FakeClock, FakeNotifier
from tests.mail_server import MailServer, mail_server
from tests.webhook_receiver import SECRET, Answered, WebhookReceiver, webhook_receiver


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with webhook_receiver() as running:
        yield running


@pytest.fixture
async def mail() -> AsyncIterator[MailServer]:
    async with mail_server() as running:
        yield running


def opened(folder: Path, *targets: dict[str, Any], **fields: Any) -> Notifiers:
    path = folder / "targets.json"
    path.write_text(json.dumps({"targets": targets, "allow_private_addresses": True} | fields))
    return open_notifiers(path, clock=FakeClock(), allow_clear_text=False)


@dataclass
class Subject:
    """A notifier, and its other end."""

    notifier: Notifier
    arrived: Callable[[], list[str]]
    refuse: Callable[[], None]
    go_away: Callable[[], Awaitable[None]]


def _fake() -> Subject:
    fake = FakeNotifier()

    def refuse() -> None:
        fake.refusals.append(NotSent("It said no.", again=True))

    async def go_away() -> None:
        refuse()

    return Subject(fake, lambda: [message.title for message in fake.sent], refuse, go_away)


def _webhook(folder: Path, receiver: WebhookReceiver) -> Subject:
    entry = {"name": "ops", "url": receiver.url, "secret": SECRET}

    def refuse() -> None:
        receiver.always = Answered(status=503)

    taken = opened(folder, entry).by_name["ops"]
    return Subject(
        taken,
        lambda: [f"Batch {each.json['data']['batch_id']}: succeeded" for each in receiver.received],
        refuse,
        receiver.stop,
    )


def _mail(folder: Path, mail: MailServer) -> Subject:
    def refuse() -> None:
        mail.refusal = "451 not now"

    taken = opened(folder, {"name": "ops", "url": mail.url}).by_name["ops"]
    return Subject(taken, lambda: [each["subject"] for each in mail.mails], refuse, mail.stop)


@pytest.fixture(params=["fake", "webhook", "mail"])
async def subject(
    request: pytest.FixtureRequest, tmp_path: Path, receiver: WebhookReceiver, mail: MailServer
) -> AsyncIterator[Subject]:
    subjects = {
        "fake": _fake,
        "webhook": lambda: _webhook(tmp_path, receiver),
        "mail": lambda: _mail(tmp_path, mail),
    }
    subject = subjects[request.param]()
    yield subject
    await subject.notifier.close()


async def test_when_it_returns_the_target_has_the_message(subject):
    await subject.notifier.send(make_message())

    assert subject.arrived() == ["Batch bat_test_1: succeeded"]


async def test_what_the_target_refuses_is_not_sent(subject):
    subject.refuse()

    with pytest.raises(NotSent) as raised:
        await subject.notifier.send(make_message())

    assert raised.value.again


async def test_a_target_that_is_away_may_come_back(subject):
    await subject.go_away()

    with pytest.raises(NotSent) as raised:
        await subject.notifier.send(make_message())

    assert raised.value.again
    assert subject.arrived() == []


# Apprise


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
    destinations = Destinations(allow_private=False)
    return AppriseNotifier(service, destinations=destinations, timeout=timeout)


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


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("gibberish://token-of-the-path", id="unknown"),
        pytest.param("mailto://me:token-of-the-path@mail.example?to=ops@example.com", id="mail"),
        pytest.param("json://chat.example/token-of-the-path", id="HTTP"),
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
    ],
)
async def test_a_service_that_encrypts_is_accepted(tmp_path, url):
    notifiers = opened(tmp_path, {"name": "chat", "url": url}, allow_private_addresses=False)

    assert isinstance(notifiers.by_name["chat"], AppriseNotifier)
    await notifiers.close()


async def test_the_library_logs_nothing(tmp_path, mail, caplog):
    await mail.stop()
    notifiers = opened(tmp_path, {"name": "ops", "url": mail.url})

    with caplog.at_level(logging.DEBUG), pytest.raises(NotSent):
        await notifiers.by_name["ops"].send(make_message())
    await notifiers.close()

    assert [record for record in caplog.records if record.name.startswith("apprise")] == []
