"""The outbox at work: who is told what, when again, and what holds up whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from batchwork_server import failpoints
from batchwork_server.domain.batch import Batch, BatchState
from batchwork_server.domain.filters import NotificationFilter
from batchwork_server.domain.notification import (
    POLICY,
    Notification,
    NotificationState,
    NotificationTarget,
    NotificationTargets,
)
from batchwork_server.domain.selection import SelectedItem
from batchwork_server.domain.submission import RequestedOptions
from batchwork_server.engine import notifications
from batchwork_server.engine.notifications import Notifications
from batchwork_server.errors import InvalidArgument, ItemFailed, NotSent
from batchwork_server.logs import get_logger
from batchwork_server.metrics import Metrics
from batchwork_server.ports import Notifier
from batchwork_server.wakeups import Wakeups

from tests.engine.conftest import StartWorker, Worker
from tests.fakes import FakeClock, FakeNotifier, FakeProcessor

OPS = NotificationTarget(name="ops", is_default=True)
PAGER = NotificationTarget(name="pager", states=frozenset({BatchState.FAILED, BatchState.EXPIRED}))
LEDGER = NotificationTarget(name="ledger", states=frozenset(), deliveries=True)
BLUE = NotificationTarget(name="blue", tenants=frozenset({"blue"}))
TARGETS = NotificationTargets([OPS, PAGER, LEDGER, BLUE])
AWAY = NotSent("The target answered with 503.", again=True)
LONG_AFTER = timedelta(days=2)


@pytest.fixture
def log_of_outbox(
    logged: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> Callable[[], list[dict[str, Any]]]:
    """What it logs; a logger that has logged before the test would go on logging elsewhere."""
    monkeypatch.setattr(notifications, "log", get_logger(notifications.__name__))
    return logged


@dataclass
class Told:
    """A worker that is put together with an outbox."""

    worker: Worker
    outbox: Notifications
    notifiers: dict[str, FakeNotifier]
    clock: FakeClock
    meter: Metrics

    @property
    def ops(self) -> FakeNotifier:
        return self.notifiers["ops"]

    async def submit(self, *names: str, items: tuple[str, ...] = ("a",), **changes: Any) -> Batch:
        options = RequestedOptions(notification_targets=names)
        return await self.worker.submit(items, **{"options": options} | changes)

    async def finish(self, batch: Batch) -> Batch:
        return await self.worker.end_of(batch)

    async def send(self) -> None:
        """Sends everything that is due."""
        await self.outbox.run_once()
        await self.outbox.idle()

    async def told(self, batch: Batch) -> list[Notification]:
        matching = NotificationFilter(tenant_id=batch.tenant_id, batch_id=batch.batch_id)
        found, _ = await self.worker.store.notifications.list(matching, page_size=99, after=None)
        return list(found)

    async def states(self, batch: Batch) -> dict[str, NotificationState]:
        return {each.target: each.state for each in await self.told(batch)}

    def attempts(self, *states: str) -> list[float | None]:
        """Returns how many attempts are counted in each of these states."""
        name = "batchwork_notification_attempts_total"
        return [self.meter.registry.get_sample_value(name, {"state": state}) for state in states]


@asynccontextmanager
async def telling(
    start_worker: StartWorker,
    clock: FakeClock,
    *,
    targets: NotificationTargets = TARGETS,
    others: Mapping[str, Notifier] | None = None,
) -> AsyncIterator[Told]:
    """Starts a worker with an outbox.

    Args:
        others: What sends to some targets instead of a fake.
    """
    worker = await start_worker(FakeProcessor(), clock=clock, retry_limit=0, targets=targets)
    meter = Metrics()
    notifiers = {name: FakeNotifier() for name in ("ops", "pager", "ledger", "blue")}
    outbox = Notifications(
        store=worker.store,
        targets=targets,
        notifiers={**notifiers, **(others or {})},
        clock=clock,
        wakeups=worker.wakeups,
        meter=meter,
    )
    yield Told(worker, outbox, notifiers, clock, meter)
    await outbox.close(timedelta(0))


@pytest.fixture
async def told(start_worker: StartWorker, clock: FakeClock) -> AsyncIterator[Told]:
    async with telling(start_worker, clock) as put_together:
        yield put_together


async def test_the_end_of_a_batch_is_told_once(told):
    batch = await told.finish(await told.submit("ops", display_name="Nightly"))

    await told.send()
    await told.send()

    [message] = told.ops.sent
    assert message.type == "batch.completed"
    assert message.time == batch.end_time
    assert message.title == "Batch Nightly: succeeded"
    assert message.text.splitlines()[0] == f"Batch: {batch.batch_id}"
    assert message.data["batch_id"] == batch.batch_id
    assert message.data["counts"]["succeeded"] == 1
    assert await told.states(batch) == {"ops": NotificationState.SENT}


async def test_nobody_is_told_before_the_end(told):
    told.worker.work.gate = asyncio.Event()
    batch = await told.submit("ops")

    await told.send()

    assert told.ops.tried == []
    assert await told.states(batch) == {"ops": NotificationState.WAITING}
    told.worker.work.gate.set()
    await told.finish(batch)


async def test_the_end_of_a_batch_wakes_the_outbox(told):
    told.outbox.wake.clear()
    other = await told.finish(await told.worker.submit(["a"]))
    assert not told.outbox.wake.is_set()

    batch = await told.submit("ops")
    await told.finish(batch)
    async with asyncio.timeout(30):
        await told.outbox.wake.wait()

    assert other.request.options.notification_targets == ()


async def test_what_another_server_ended_is_found_by_looking(told):
    """No wake-up comes from there."""
    await told.send()
    batch = await told.finish(await told.submit("ops"))
    told.outbox._ended.clear()

    await told.send()
    assert told.ops.sent == []
    told.clock.advance(Notifications.INTERVAL)
    await told.send()

    assert [message.data["batch_id"] for message in told.ops.sent] == [batch.batch_id]


@pytest.mark.parametrize(
    "end, event, state",
    [
        ("fail", "batch.failed", "FAILED"),
        ("cancel", "batch.cancelled", "CANCELLED"),
        ("expire", "batch.expired", "EXPIRED"),
    ],
)
async def test_every_end_is_told_with_its_state(told, end, event, state):
    options = RequestedOptions(notification_targets=("ops",))
    if end == "fail":
        told.worker.work.on("a", ItemFailed("BROKEN", "It is broken."))
        batch = await told.submit("ops")
    else:
        batch = await told.worker.submit([], options=options, is_draft=True)
        if end == "cancel":
            await told.worker.cancel(batch)
        else:
            told.clock.advance(timedelta(hours=25))
            await told.worker.deadlines.run_once()
    await told.finish(batch)

    await told.send()

    [message] = told.ops.sent
    assert (message.type, message.data["state"]) == (event, state)


async def test_a_target_hears_only_of_the_ends_that_it_wants(told):
    told.worker.work.on("b", ItemFailed("BROKEN", "It is broken."))
    well = await told.finish(await told.submit("ops", "pager"))
    badly = await told.finish(await told.submit("ops", "pager", items=("b",)))

    await told.send()

    assert len(told.ops.sent) == 2
    assert [message.data["batch_id"] for message in told.notifiers["pager"].sent] == [
        badly.batch_id
    ]
    assert (await told.states(well))["pager"] is NotificationState.SKIPPED


async def test_notify_on_complete_tells_the_default_targets(told):
    batch = await told.submit(options=RequestedOptions(notify_on_complete=True))
    await told.finish(batch)

    await told.send()

    assert batch.request.options.notification_targets == ("ops",)
    assert len(told.ops.sent) == 1


@pytest.mark.parametrize(
    "options, path",
    [
        (
            RequestedOptions(notification_targets=("ops", "blue")),
            "options.notification_targets[1]",
        ),
        (RequestedOptions(notification_targets=("nobody",)), "options.notification_targets[0]"),
        (
            RequestedOptions(notify_on_complete=False, notification_targets=("ops",)),
            "options.notify_on_complete",
        ),
    ],
)
async def test_a_target_that_the_operator_does_not_allow_is_refused(told, options, path):
    with pytest.raises(InvalidArgument) as raised:
        await told.worker.submit(["a"], options=options)

    assert [violation.path for violation in raised.value.violations] == [path]


async def test_what_is_not_taken_is_sent_again_later_and_under_the_same_id(told):
    told.ops.refusals = [AWAY]
    batch = await told.finish(await told.submit("ops"))

    await told.send()
    [waiting] = await told.told(batch)
    told.clock.advance(timedelta(hours=1))
    await told.send()

    first, second = told.ops.tried
    assert first == second
    assert waiting.state is NotificationState.PENDING
    assert waiting.error == "The target answered with 503."
    assert await told.states(batch) == {"ops": NotificationState.SENT}


async def test_attempts_are_counted_by_what_they_left(told):
    told.ops.refusals = [AWAY, NotSent("The target answered with 410.", again=False)]
    told.worker.work.on("b", ItemFailed("BROKEN", "It is broken."))
    await told.finish(await told.submit("ops", "pager"))

    await told.send()
    told.clock.advance(timedelta(hours=1))
    await told.send()
    await told.finish(await told.submit("pager", items=("b",)))
    await told.send()

    assert told.attempts("SENT", "PENDING", "FAILED", "SKIPPED") == [1, 1, 1, 1]


async def test_a_target_says_when_to_come_back(told):
    delay = timedelta(hours=3)
    told.ops.refusals = [NotSent("Busy.", again=True, retry_after=delay)]
    batch = await told.finish(await told.submit("ops"))

    await told.send()

    [waiting] = await told.told(batch)
    assert waiting.next_attempt_time == told.clock.now() + delay


async def test_what_no_further_attempt_helps_is_given_up_at_once(told, log_of_outbox):
    told.ops.refusals = [NotSent("The target answered with 410.", again=False)]
    batch = await told.finish(await told.submit("ops"))

    await told.send()

    assert await told.states(batch) == {"ops": NotificationState.FAILED}
    [line] = [line for line in log_of_outbox() if line["event"] == "notification.failed"]
    assert (line["target"], line["problem"], line["attempts"]) == (
        "ops",
        "The target answered with 410.",
        1,
    )


async def test_what_only_the_operator_may_know_is_in_the_log_alone(told, log_of_outbox):
    told.ops.refusals = [NotSent("It is not public.", again=True, detail="address 10.0.0.1")]
    batch = await told.finish(await told.submit("ops"))

    await told.send()

    [waiting] = await told.told(batch)
    assert waiting.error == "It is not public."
    [line] = [line for line in log_of_outbox() if line["event"] == "notification.waiting"]
    assert (line["problem"], line["detail"]) == ("It is not public.", "address 10.0.0.1")


async def test_after_ten_attempts_it_is_given_up(told):
    told.ops.refusals = [AWAY] * 20
    batch = await told.finish(await told.submit("ops"))

    for _ in range(20):
        await told.send()
        told.clock.advance(LONG_AFTER)

    assert len(told.ops.tried) == POLICY.retry_limit + 1 == 10
    assert await told.states(batch) == {"ops": NotificationState.FAILED}


async def test_a_notifier_that_breaks_is_tried_like_one_that_refuses(told, log_of_outbox):
    """Such a message was tried at the end of each lease, for ever."""
    told.ops.refusals = [RuntimeError("https://hooks.example/token-of-the-path")] * 20
    batch = await told.finish(await told.submit("ops"))

    for _ in range(20):
        await told.send()
        told.clock.advance(LONG_AFTER)

    [failed] = await told.told(batch)
    assert len(told.ops.tried) == POLICY.retry_limit + 1
    assert failed.state is NotificationState.FAILED
    assert failed.error == "What sends to the target failed: RuntimeError."
    assert told.attempts("PENDING", "FAILED") == [9, 1]
    assert "token-of-the-path" not in str(log_of_outbox())


async def test_what_ends_the_server_each_time_is_given_up(told):
    """Nothing is ever written down of such an attempt, but that it began."""
    batch = await told.finish(await told.submit("ops"))
    failpoints.arm("notification.sent", "raise")

    for _ in range(20):
        await told.send()
        told.clock.advance(Notifications.LEASE)
    failpoints.disarm()

    assert len(told.ops.tried) == POLICY.retry_limit + 1
    assert await told.states(batch) == {"ops": NotificationState.FAILED}
    assert told.attempts("FAILED") == [1]


async def test_the_attempts_end_within_a_day(told):
    waits = sum((POLICY.backoff(retry=n, draw=1.0) for n in range(1, 10)), timedelta(0))

    assert timedelta(hours=20) < waits <= timedelta(hours=26)


async def test_a_target_that_hangs_holds_up_no_other(told):
    told.notifiers["ledger"].gate = asyncio.Event()
    pages = [await give(told, f"batch-{n}", "ann") for n in range(6)]
    batch = await told.finish(await told.submit("ops"))

    await told.outbox.run_once()
    async with asyncio.timeout(30):
        while not told.ops.sent:
            await asyncio.sleep(0)

    assert told.ops.sent[0].data["batch_id"] == batch.batch_id
    assert len(told.notifiers["ledger"].tried) <= Notifications.AT_ONCE_TO_A_TARGET < len(pages)
    told.notifiers["ledger"].gate.set()
    await told.outbox.idle()
    assert len(told.notifiers["ledger"].sent) == len(pages)


async def test_a_target_that_is_not_in_the_file_any_more_is_waited_for(told, clock):
    batch = await told.finish(await told.submit("ops"))
    restarted = Notifications(
        store=told.worker.store,
        targets=NotificationTargets([PAGER]),
        notifiers={"pager": FakeNotifier()},
        clock=clock,
        wakeups=Wakeups(),
    )

    await restarted.run_once()
    await restarted.idle()

    [waiting] = await told.told(batch)
    assert waiting.state is NotificationState.PENDING
    assert "'ops'" in waiting.error
    told.clock.advance(timedelta(minutes=2))
    await told.send()
    assert await told.states(batch) == {"ops": NotificationState.SENT}


async def test_what_was_sent_and_not_written_down_is_sent_again_under_the_same_id(
    told, log_of_outbox
):
    batch = await told.finish(await told.submit("ops"))
    failpoints.arm("notification.sent", "raise")

    await told.send()
    failpoints.disarm()
    assert "loop.failed" in {line["event"] for line in log_of_outbox()}
    told.clock.advance(Notifications.LEASE)
    await told.send()

    first, second = told.ops.sent
    assert first.message_id == second.message_id
    assert await told.states(batch) == {"ops": NotificationState.SENT}


async def test_a_batch_that_is_tried_again_is_told_of_again(told):
    told.worker.work.on("a", ItemFailed("BROKEN", "It is broken."))
    batch = await told.finish(await told.submit("ops"))
    await told.worker.retry(batch)
    await told.finish(batch)

    await told.send()

    assert [message.type for message in told.ops.sent] == ["batch.failed", "batch.completed"]
    assert [message.data["attempt_number"] for message in told.ops.sent] == [1, 2]


async def test_at_a_stop_what_hangs_is_left_to_the_next_server(told):
    told.ops.gate = asyncio.Event()
    batch = await told.finish(await told.submit("ops"))
    await told.outbox.run_once()
    await told.ops.called.wait()

    await told.outbox.close(timedelta(0))

    assert await told.states(batch) == {"ops": NotificationState.PENDING}


# Deliveries


async def give(told: Told, batch_id: str, *users: str, unknown: tuple[str, ...] = ()) -> Batch:
    """Makes a batch whose results users are given, and which the ledger hears of."""
    told.worker.users.add(*users)
    batch = await told.submit("ledger", batch_id=batch_id, recipient_ids=(*users, *unknown))
    return await told.finish(batch)


async def test_deliveries_tell_who_was_given_what(told):
    batch = await give(told, "batch-1", "ann", "bob", unknown=("zoe",))

    await told.send()

    [message] = told.notifiers["ledger"].sent
    assert message.type == "reference.delivered"
    assert message.data["batch_id"] == batch.batch_id
    assert message.data["references"] == [
        {"user_id": "ann", "state": "DELIVERED", "reason": ""},
        {"user_id": "bob", "state": "DELIVERED", "reason": ""},
        {"user_id": "zoe", "state": "FAILED", "reason": "USER_NOT_FOUND"},
    ]


async def test_many_deliveries_come_in_pages_each_with_an_id(told):
    users = [f"user-{n:04}" for n in range(2_500)]
    await give(told, "batch-1", *users)
    ledger = told.notifiers["ledger"]
    ledger.refusals = [AWAY]

    await told.send()
    told.clock.advance(timedelta(hours=1))
    await told.send()

    sent = [[each["user_id"] for each in message.data["references"]] for message in ledger.sent]
    assert [len(page) for page in sent] == [1000, 1000, 500]
    assert [user for page in sent for user in page] == users
    assert [message.data["page"] for message in ledger.sent] == [1, 2, 3]
    ids = [message.message_id for message in ledger.tried]
    assert (len(ids), len(set(ids))) == (4, 3), "the page that was refused kept its id"


async def give_own(told: Told, *users: str) -> Batch:
    """Makes a run with an item for each user, who is given that item."""
    told.worker.users.add(*users)
    items = tuple(SelectedItem(item_id=user, user_id=user, data_json="{}") for user in users)
    options = RequestedOptions(notification_targets=("ledger",))
    batch = await told.worker.submit([], items=items, options=options, delivers_own=True)
    return await told.finish(batch)


async def test_deliveries_of_own_items_tell_what_became_of_each(told):
    told.worker.work.on("bob", ItemFailed("BROKEN", "It is broken."))
    await give_own(told, "ann", "bob")

    await told.send()

    [message] = told.notifiers["ledger"].sent
    assert message.data["references"] == [
        {"user_id": "ann", "state": "DELIVERED", "reason": ""},
        {"user_id": "bob", "state": "FAILED", "reason": "BROKEN"},
    ]


async def test_deliveries_of_an_attempt_that_was_followed_are_left_to_the_next(told):
    """The items are those of the later attempt: they were told as PENDING, or as it left them."""
    told.worker.work.on("bob", ItemFailed("BROKEN", "It is broken."))
    ledger = told.notifiers["ledger"]
    ledger.refusals = [AWAY]
    batch = await give_own(told, "ann", "bob")
    await told.send()
    told.clock.advance(timedelta(hours=1))
    told.worker.work.gate = asyncio.Event()
    await told.worker.retry(batch)

    await told.send()

    assert len(ledger.tried) == 1, "the same id never comes with other content"
    told.worker.work.gate.set()
    await told.finish(batch)
    await told.send()
    later, earlier = await told.told(batch)
    assert (earlier.state, later.state) == (NotificationState.SKIPPED, NotificationState.SENT)
    [message] = ledger.sent
    assert message.data["attempt_number"] == 2
    assert [each["state"] for each in message.data["references"]] == ["DELIVERED", "DELIVERED"]


async def test_without_a_recipient_there_is_nothing_to_tell(told):
    batch = await told.finish(await told.submit("ledger"))

    await told.send()

    assert told.notifiers["ledger"].tried == []
    assert await told.states(batch) == {"ledger": NotificationState.SKIPPED}
