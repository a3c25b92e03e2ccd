"""What every notifier promises, the fake included."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from batchwork_server.adapters.notifiers import Notifiers, open_notifiers
from batchwork_server.errors import NotSent
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


def opened(
    folder: Path, *targets: dict[str, Any], clear_text: bool = False, **fields: Any
) -> Notifiers:
    path = folder / "targets.json"
    path.write_text(json.dumps({"targets": targets, "allow_private_addresses": True} | fields))
    return open_notifiers(path, clock=FakeClock(), allow_clear_text=clear_text)


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
