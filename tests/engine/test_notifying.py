"""The outbox with what is around it: real notifiers, transactions, and other servers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import pytest
from apprise import NotifyBase
from batchwork_server.adapters.apprise_notifier import MOST_AT_ONCE, AppriseNotifier
from batchwork_server.adapters.destinations import Destinations
from batchwork_server.adapters.webhooks import WebhookNotifier
from batchwork_server.domain.notification import (
    Message,
    NotificationState,
    NotificationTarget,
    NotificationTargets,
)
from batchwork_server.engine.notifications import Notifications
from batchwork_server.store.database import Database, open_database
from batchwork_server.store.sql_store import SqlStore
from batchwork_server.wakeups import Wakeups

from tests.engine.test_notifications import TARGETS, Told, give, telling
from tests.fakes import FakeNotifier
from tests.webhook_receiver import SECRET, Answered, webhook_receiver

SOON = timedelta(milliseconds=100)
EVERYBODY = NotificationTargets(
    [NotificationTarget(name=name) for name in ("ops", "hook", "chat", "broken")]
)
Opens = Callable[[Database], AbstractAsyncContextManager[Any]]

_held: ContextVar[str] = ContextVar("held", default="")


@pytest.fixture
async def told(start_worker, clock) -> AsyncIterator[Told]:
    async with telling(start_worker, clock) as put_together:
        yield put_together


class Service(NotifyBase):
    """A service of Apprise that hangs until it may go on."""

    def __init__(self) -> None:
        super().__init__(schema="stub")
        self.going_on = threading.Event()
        self.titles: list[str] = []

    def send(self, body: str, title: str = "", *_kind: Any, **_more: Any) -> bool:
        self.titles.append(title)
        return self.going_on.wait(timeout=30)


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.going_on.set()


def marked(opens: Opens, kind: str, opened: list[str]) -> Opens:
    """Notes what is opened, and lets whatever is called inside of it know."""

    @asynccontextmanager
    async def open_it(database: Database) -> AsyncIterator[Any]:
        async with opens(database) as connection:
            opened.append(kind)
            token = _held.set(kind)
            try:
                yield connection
            finally:
                _held.reset(token)

    return open_it


class Holding(FakeNotifier):
    """Keeps what of the database was held at each message."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[str] = []

    async def send(self, message: Message) -> None:
        self.held.append(_held.get())
        await super().send(message)


async def test_nothing_is_sent_from_inside_a_transaction(start_worker, clock, monkeypatch):
    """It would hold a connection, and on SQLite everybody else, for as long as a target takes."""
    opened: list[str] = []
    for kind in ("transaction", "reading"):
        monkeypatch.setattr(Database, kind, marked(getattr(Database, kind), kind, opened))
    ops, ledger = Holding(), Holding()
    async with telling(start_worker, clock, others={"ops": ops, "ledger": ledger}) as told:
        await told.finish(await told.submit("ops"))
        await give(told, "batch-1", *(f"user-{n:04}" for n in range(1_500)))

        await told.send()

    assert {"transaction", "reading"} <= set(opened)
    assert (ops.held, ledger.held) == ([""], ["", ""])


async def test_a_webhook_that_hangs_is_tried_again(start_worker, clock):
    async with webhook_receiver() as receiver:
        receiver.always = Answered(hold=asyncio.Event())
        hook = WebhookNotifier(
            url=receiver.url,
            secret=SECRET,
            destinations=Destinations(allow_private=True),
            clock=clock,
            timeout=timedelta(milliseconds=500),
        )
        async with telling(start_worker, clock, targets=EVERYBODY, others={"hook": hook}) as told:
            batch = await told.finish(await told.submit("hook", "ops"))

            await told.send()
            waiting = await told.states(batch)
            receiver.always = None
            clock.advance(timedelta(hours=1))
            await told.send()
            await hook.close()

            assert waiting == {"hook": NotificationState.PENDING, "ops": NotificationState.SENT}
            assert (await told.states(batch))["hook"] is NotificationState.SENT
            assert len({request.id for request in receiver.received}) == 1


async def test_a_service_that_hangs_gets_no_more_and_holds_up_no_other(
    start_worker, clock, service
):
    chat = AppriseNotifier(service, allow_private=False, timeout=SOON)
    async with telling(start_worker, clock, targets=EVERYBODY, others={"chat": chat}) as told:
        batches = [
            await told.finish(await told.submit("chat", "ops", batch_id=f"batch-{n}"))
            for n in range(MOST_AT_ONCE + 2)
        ]

        await told.send()

        errors = [each.error for batch in batches for each in await told.told(batch)]
        assert len(told.ops.sent) == len(batches)
        assert len(service.titles) == MOST_AT_ONCE
        assert errors.count("It was not sent within 0.1 s.") == MOST_AT_ONCE
        assert errors.count("The messages before this one still hang.") == 2


async def test_what_a_notifier_raises_stops_nobody_else(start_worker, clock, service):
    service.going_on.set()
    chat = AppriseNotifier(service, allow_private=False)
    async with telling(start_worker, clock, targets=EVERYBODY, others={"chat": chat}) as told:
        told.ops.refusals = [KeyError("a plug-in"), ExceptionGroup("of it", [OSError()])]
        first = await told.finish(await told.submit("ops", "chat", batch_id="first"))
        second = await told.finish(await told.submit("ops", "chat", batch_id="second"))
        third = await told.finish(await told.submit("ops", batch_id="third"))

        await told.send()

        states = [(await told.states(batch))["ops"] for batch in (first, second, third)]
        assert states.count(NotificationState.PENDING) == 2
        assert states.count(NotificationState.SENT) == 1
        assert len(service.titles) == 2


@asynccontextmanager
async def another_server(told: Told, database_url: str) -> AsyncIterator[tuple[Any, FakeNotifier]]:
    """Starts a second outbox; on PostgreSQL with connections of its own, as on another machine."""
    database = await open_database(database_url) if "postgresql" in database_url else None
    notifier = FakeNotifier()
    outbox = Notifications(
        store=SqlStore(database) if database else told.worker.store,
        targets=TARGETS,
        notifiers={"ops": notifier},
        clock=told.clock,
        wakeups=Wakeups(),
    )
    yield outbox, notifier
    await outbox.close(timedelta(0))
    if database is not None:
        await database.close()


async def test_two_servers_share_what_is_due_and_tell_each_thing_once(told, database_url):
    """Both hold some at the same time, and what one holds the other never gets."""
    for n in range(12):
        await told.finish(await told.submit("ops", batch_id=f"batch-{n}"))
    async with another_server(told, database_url) as (other, theirs):
        for notifier in (told.ops, theirs):
            notifier.gate = asyncio.Event()

        await asyncio.gather(told.outbox.run_once(), other.run_once())
        async with asyncio.timeout(30):
            await asyncio.gather(told.ops.called.wait(), theirs.called.wait())
        for notifier in (told.ops, theirs):
            notifier.gate.set()
        await asyncio.gather(told.outbox.idle(), other.idle())

        tried = [message.message_id for message in (*told.ops.tried, *theirs.tried)]
        assert len(tried) == len(set(tried)) == 12


async def test_what_a_server_left_unfinished_another_one_sends_when_its_lease_is_over(
    told, database_url
):
    batch = await told.finish(await told.submit("ops"))
    told.ops.gate = asyncio.Event()
    await told.outbox.run_once()
    await told.ops.called.wait()
    async with another_server(told, database_url) as (other, theirs):
        await told.outbox.close(timedelta(0))

        await other.run_once()
        await other.idle()
        too_early = list(theirs.tried)
        told.clock.advance(Notifications.LEASE)
        await other.run_once()
        await other.idle()

        assert too_early == []
        assert [message.message_id for message in theirs.sent] == [
            message.message_id for message in told.ops.tried
        ]
        assert await told.states(batch) == {"ops": NotificationState.SENT}
