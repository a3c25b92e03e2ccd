"""Sends what the outbox holds: each notification at least once, or until its policy gives up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import ClassVar

from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Batch, BatchState
from batchwork_server.domain.filters import ReferenceFilter
from batchwork_server.domain.notification import (
    DELIVERIES_PAGE,
    POLICY,
    Delivery,
    Message,
    Notification,
    NotificationKind,
    NotificationState,
    NotificationTargets,
    delivery_message,
    end_message,
)
from batchwork_server.domain.reference import Reference
from batchwork_server.errors import NotSent, Unavailable
from batchwork_server.failpoints import reach
from batchwork_server.logs import get_logger
from batchwork_server.ports import Meter, Notifier
from batchwork_server.store.store import Store
from batchwork_server.wakeups import Wakeups

log = get_logger(__name__)

_LONGEST_DELAY = timedelta(days=1)
_BATCHES_AT_ONCE = 100
_OFTEN_ENOUGH = "It was tried often enough; what came of the last attempt is not known."


class _Skipped(Exception):
    """Nothing of a notification concerns its target."""


class Notifications:
    """Sends from the outbox, outside of every transaction.

    Each target has a task of its own while something is due to it, so that one that is slow or
    away holds up no other. What is sent and not written down, because the process died in
    between, is sent again with the same id.

    Attributes:
        wake: Set when a batch is over of which somebody is to be told.
    """

    INTERVAL: ClassVar = timedelta(seconds=5)
    LEASE: ClassVar = timedelta(minutes=3)
    """Longer than any notifier takes for one message."""
    AT_ONCE_TO_A_TARGET: ClassVar = 4
    TARGETS_AT_ONCE: ClassVar = 16

    def __init__(
        self,
        *,
        store: Store,
        targets: NotificationTargets,
        notifiers: Mapping[str, Notifier],
        clock: Clock,
        wakeups: Wakeups,
        meter: Meter | None = None,
    ) -> None:
        self._store = store
        self._targets = targets
        self._notifiers = notifiers
        self._clock = clock
        self._meter = meter
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(self.TARGETS_AT_ONCE)
        self._ended: set[int] = set()
        self._next_search = 0.0
        self.wake = asyncio.Event()
        wakeups.subscribe(self._on_batch)

    def _on_batch(self, batch: Batch) -> None:
        if batch.state.is_final and batch.request.options.notification_targets:
            self._ended.add(batch.key)
            self.wake.set()

    async def run_once(self) -> None:
        """Begins to send what is due; ``idle`` returns when that is done.

        Raises:
            StoreUnavailable: nothing is lost.
        """
        await self._arm()
        for target in await self._store.notifications.due_targets(now=self._clock.now()):
            if target not in self._tasks:
                task = asyncio.create_task(self._serve(target), name=f"notifications-{target}")
                self._tasks[target] = task
                task.add_done_callback(partial(self._served, target))

    async def idle(self) -> None:
        """Returns when nothing is being sent."""
        while self._tasks:
            await asyncio.wait(self._tasks.values())

    async def close(self, grace: timedelta) -> None:
        """Waits for what is being sent; what takes longer than ``grace`` is sent again later."""
        tasks = list(self._tasks.values())
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=grace.total_seconds())
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _arm(self) -> None:
        """Looks at batches that are over: those we heard of, and now and then all."""
        outbox, now = self._store.notifications, self._clock.now()
        while self._ended:
            await outbox.arm(self._ended.pop(), now=now)
        if self._clock.monotonic() >= self._next_search:
            while await outbox.arm_some(now=now, limit=_BATCHES_AT_ONCE) == _BATCHES_AT_ONCE:
                pass
            self._next_search = self._clock.monotonic() + self.INTERVAL.total_seconds()

    def _served(self, target: str, task: asyncio.Task[None]) -> None:
        del self._tasks[target]
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Unavailable):
            return  # the loop itself tells that the store is away
        if error is not None:
            log.error("loop.failed", loop=task.get_name(), exc_info=error)

    async def _serve(self, target: str) -> None:
        """Sends everything that is due to one target."""
        while True:
            async with self._room:
                taken = await self._store.notifications.take(
                    target,
                    now=self._clock.now(),
                    lease=self.LEASE,
                    limit=self.AT_ONCE_TO_A_TARGET,
                )
                if not taken:
                    return
                sending = (self._send(each) for each in taken)
                for failure in await asyncio.gather(*sending, return_exceptions=True):
                    if failure is not None:
                        raise failure

    async def _send(self, notification: Notification) -> None:
        try:
            if not POLICY.allows(attempts=notification.attempts - 1, reason=""):
                # Nothing was written down of the last attempt: it may be what ended the server.
                raise NotSent(_OFTEN_ENOUGH, again=False)
            message, last_user = await self._message(notification)
            await self._hand_over(message, target=notification.target)
        except _Skipped as skipped:
            await self._record(notification, NotificationState.SKIPPED, error=str(skipped))
        except NotSent as refusal:
            await self._refused(notification, refusal)
        else:
            reach("notification.sent")
            log.info("notification.sent", **_named(notification))
            await self._sent(notification, last_user)

    async def _hand_over(self, message: Message, *, target: str) -> None:
        """Sends a message; whatever goes wrong with it, it is not sent.

        Raises:
            NotSent: as the notifier says, or because the notifier itself is broken.
        """
        try:
            await self._notifiers[target].send(message)
        except NotSent:
            raise
        except Exception as error:
            # Its words may hold the URL, and with that a secret.
            kind = type(error).__name__
            raise NotSent(f"What sends to the target failed: {kind}.", again=True) from error

    async def _message(self, notification: Notification) -> tuple[Message, str]:
        """Returns what is to be sent, and the last user of a page that another one follows.

        Raises:
            NotSent: nobody of that name may be told now.
            _Skipped: nothing of it concerns the target.
        """
        name = notification.target
        target = self._targets.get(name, tenant_id=notification.tenant_id)
        if target is None:
            raise NotSent(
                f"The file of targets has no {name!r} for the tenant any more.", again=True
            )
        if notification.kind is NotificationKind.DELIVERIES:
            return await self._deliveries(notification)
        state = BatchState(notification.payload["state"])
        if state not in target.states:
            raise _Skipped(f"The target does not want to hear of batches that are {state}.")
        return end_message(notification), ""

    async def _deliveries(self, notification: Notification) -> tuple[Message, str]:
        matching = ReferenceFilter(tenant_id=notification.tenant_id, batch_id=notification.batch_id)
        sent = notification.sent_after
        references, following = await self._store.references.list(
            matching,
            page_size=DELIVERIES_PAGE,
            after=(sent, notification.batch_key) if sent else None,
        )
        if not references:
            raise _Skipped("Nobody is given a reference to the results.")
        # Read after the items, so that an item that was opened again shows in the batch as well.
        if references[0].batch.attempt_number != notification.attempt_number:
            raise _Skipped("The batch is tried again, and the end of that tells of everybody.")
        page = [_delivery(each) for each in references]
        return delivery_message(notification, page), following[0] if following else ""

    async def _sent(self, notification: Notification, last_user: str) -> None:
        if last_user:
            self._count(NotificationState.SENT)
            await self._store.notifications.record_page(
                notification, sent_after=last_user, now=self._clock.now()
            )
        else:
            await self._record(notification, NotificationState.SENT)

    async def _refused(self, notification: Notification, refusal: NotSent) -> None:
        facts = {**_named(notification), "problem": refusal.problem}
        if refusal.detail:
            facts["detail"] = refusal.detail
        if not refusal.again or not POLICY.allows(attempts=notification.attempts, reason=""):
            log.error("notification.failed", **facts)
            await self._record(notification, NotificationState.FAILED, error=refusal.problem)
            return
        delay = max(
            # Jitter keeps servers apart; nobody could gain by guessing it.
            POLICY.backoff(retry=notification.attempts, draw=random.random()),  # noqa: S311
            min(refusal.retry_after or timedelta(0), _LONGEST_DELAY),
        )
        again = self._clock.now() + delay
        log.warning("notification.waiting", **facts, until=again.isoformat())
        await self._record(
            notification, NotificationState.PENDING, error=refusal.problem, next_attempt_time=again
        )

    async def _record(
        self,
        notification: Notification,
        state: NotificationState,
        *,
        error: str = "",
        next_attempt_time: datetime | None = None,
    ) -> None:
        self._count(state)
        await self._store.notifications.record(
            notification,
            state=state,
            now=self._clock.now(),
            error=error,
            next_attempt_time=next_attempt_time,
        )

    def _count(self, state: NotificationState) -> None:
        if self._meter is not None:
            self._meter.notification_attempted(state)


def _delivery(reference: Reference) -> Delivery:
    return Delivery(
        user_id=reference.recipient.user_id, state=reference.state, reason=reference.reason
    )


def _named(notification: Notification) -> dict[str, object]:
    return {
        "target": notification.target,
        "kind": notification.kind,
        "batch_id": notification.batch_id,
        "tenant_id": notification.tenant_id,
        "attempts": notification.attempts,
        "message_id": notification.message_id,
    }
