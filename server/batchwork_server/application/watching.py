"""Watching a batch: a snapshot, then every change, and a last message that is sure to come.

The event table is the source; memory only spares looks at it. Each watched batch has one topic
that reads its new events once for all its watchers and keeps the newest ones. A watcher that is
slow finds its events gone from there, and reads the table by itself: nothing is lost, and memory
stays bounded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Batch, Counts
from batchwork_server.domain.item import Item
from batchwork_server.errors import (
    NotFound,
    QuotaExceeded,
    ResumeTokenExpired,
    ShuttingDown,
    Unavailable,
)
from batchwork_server.logs import get_logger
from batchwork_server.store.store import Event, Store
from batchwork_server.wakeups import Wakeups

log = get_logger(__name__)

HEARTBEAT = timedelta(seconds=15)
"""How long a stream is silent before it says that it is alive."""

LONGEST_SILENCE = timedelta(seconds=1)
"""How long a change can go unseen that nobody announced."""

_SHORTEST_LOOK = timedelta(milliseconds=50)  # between two looks at the table
_KEPT_EVENTS = 256
_PAGE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumePoint:
    """After which message a watch goes on.

    Attributes:
        sequence: Of the last event that was shown.
        item_index: When the event's items were not all shown, the last one that was; else -1.
    """

    sequence: int
    item_index: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchMessage:
    """One message of a watch; ``kind`` is a name of the contract's ``BatchEventKind``."""

    kind: str
    sequence: int
    event_time: datetime
    event_type: str
    resume: ResumePoint
    batch: Batch | None = None
    counts: Counts | None = None
    item: Item | None = None


class Watching:
    """The use case behind ``WatchBatch``.

    Args:
        max_watchers: How many streams this server holds at once.
    """

    def __init__(self, *, store: Store, clock: Clock, wakeups: Wakeups, max_watchers: int) -> None:
        self._store = store
        self._clock = clock
        self._max_watchers = max_watchers
        self._topics: dict[int, _Topic] = {}
        self._watchers = 0
        self._closing = False
        wakeups.subscribe(self._on_batch)

    @property
    def watchers(self) -> int:
        """How many streams there are."""
        return self._watchers

    def _on_batch(self, batch: Batch) -> None:
        topic = self._topics.get(batch.key)
        if topic is not None:
            topic.announce(is_urgent=batch.state.is_final)

    def close(self) -> None:
        """Tells every watcher that the server is going away, and ends their streams."""
        self._closing = True
        for topic in self._topics.values():
            topic.wake()

    async def watch(
        self,
        batch: Batch,
        *,
        resume: ResumePoint | None,
        include_items: bool,
        only_failed: bool,
        min_interval: timedelta,
    ) -> AsyncGenerator[WatchMessage, None]:
        """Yields what happens to a batch, until END.

        Without ``resume`` it starts with a snapshot, read after the topic was joined, so that
        nothing falls between the two.

        Raises:
            QuotaExceeded: there are too many watchers.
            ResumeTokenExpired: the events after ``resume`` are not kept any more.
            ShuttingDown: after GOING_AWAY.
        """
        with self._join(batch.key) as topic:
            current = await self._current(batch)
            if resume is not None and resume.sequence > current.sequence:
                raise ResumeTokenExpired(
                    "The resume token is newer than the batch; start again without one."
                )
            watcher = _Watcher(
                batch=current,
                store=self._store,
                clock=self._clock,
                topic=topic,
                at=resume or ResumePoint(sequence=current.sequence),
                include_items=include_items,
                only_failed=only_failed,
                min_interval=min_interval,
            )
            if resume is None:
                yield watcher.snapshot()
            if current.state.is_final and watcher.at.sequence >= current.sequence:
                yield watcher.end(current, current.update_time, watcher.at.sequence)
                return
            while not self._closing:
                for message in await watcher.next_messages():
                    yield message
                    if message.kind == "END":
                        return
            yield watcher.going_away()
            raise ShuttingDown("The server shuts down; watch again with the resume token.")

    @contextmanager
    def _join(self, batch_key: int) -> Iterator[_Topic]:
        if self._closing:
            raise ShuttingDown("The server shuts down; watch again, here or elsewhere.")
        if self._watchers >= self._max_watchers:
            raise QuotaExceeded(
                f"This server has {self._watchers} watchers, and no room for more.",
                reason="QUOTA_WATCHERS",
                subject="watchers",
                retry_after=timedelta(seconds=5),
            )
        topic = self._topics.get(batch_key)
        if topic is None:
            topic = _Topic(batch_key, store=self._store, clock=self._clock)
            self._topics[batch_key] = topic
        self._watchers += 1
        topic.watchers += 1
        try:
            yield topic
        finally:
            self._watchers -= 1
            topic.watchers -= 1
            if not topic.watchers:
                self._topics.pop(batch_key, None)
                topic.close()

    async def _current(self, batch: Batch) -> Batch:
        current = await self._store.batches.get_by_key(batch.key)
        if current is None:
            raise NotFound("batch", batch.batch_id)
        return current


class _Topic:
    """The newest events of one batch, read once for all its watchers."""

    def __init__(self, batch_key: int, *, store: Store, clock: Clock) -> None:
        self._batch_key = batch_key
        self._store = store
        self._clock = clock
        self._events: deque[Event] = deque(maxlen=_KEPT_EVENTS)
        self._last = 0
        self._announced = asyncio.Event()
        self._urgent = asyncio.Event()
        self._news = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self.watchers = 0

    def announce(self, *, is_urgent: bool) -> None:
        """Says that there may be new events; for the last one nobody is to wait."""
        self._announced.set()
        if is_urgent:
            self._urgent.set()

    def wake(self) -> None:
        """Wakes every watcher, whether there is something new or not."""
        self._news.set()
        self._news = asyncio.Event()

    def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()

    def follow(self, after: int) -> None:
        """Begins to read, once; events up to ``after`` are not wanted."""
        if self._reader is None:
            self._last = after
            self._reader = asyncio.create_task(self._read(), name=f"watch-{self._batch_key}")

    @property
    def news(self) -> asyncio.Event:
        """Set when something new has come; a new one stands here after that."""
        return self._news

    def after(self, sequence: int) -> list[Event] | None:
        """Returns the events after ``sequence``; None when the first of them is not kept here."""
        if sequence >= self._last:
            return []
        if not self._events or self._events[0].sequence > sequence + 1:
            return None
        return [event for event in self._events if event.sequence > sequence]

    async def _read(self) -> None:
        while True:
            self._announced.clear()
            self._urgent.clear()
            try:
                found = await self._store.batches.events(
                    self._batch_key, after=self._last, limit=_PAGE
                )
            except Unavailable as error:
                log.warning("watch.waiting", reason=error.reason, error=error.message)
                found = ()
            if found:
                self._events.extend(found)
                self._last = found[-1].sequence
                self.wake()
            if len(found) < _PAGE:
                await self._clock.wait(self._announced, LONGEST_SILENCE)
                await self._clock.wait(self._urgent, _SHORTEST_LOOK)


class _Watcher:
    """One stream: where it is, and what it has to say next."""

    def __init__(
        self,
        *,
        batch: Batch,
        store: Store,
        clock: Clock,
        topic: _Topic,
        at: ResumePoint,
        include_items: bool,
        only_failed: bool,
        min_interval: timedelta,
    ) -> None:
        self._batch = batch
        self._store = store
        self._clock = clock
        self._topic = topic
        self._include_items = include_items
        self._only_failed = only_failed
        self._min_interval = min_interval.total_seconds()
        self._pending: Event | None = None
        self._progress_at = clock.monotonic() - self._min_interval
        self._spoke_at = clock.monotonic()
        self._seen = at.sequence
        self.at = at
        # An event whose items were shown in part is read again for the rest of them.
        if at.item_index >= 0:
            self._seen -= 1
        topic.follow(self._seen)

    def snapshot(self) -> WatchMessage:
        return self._message("SNAPSHOT", batch=self._batch, event_type="batch:snapshot")

    def going_away(self) -> WatchMessage:
        return self._message("GOING_AWAY", event_type="server:going_away")

    def end(self, batch: Batch, event_time: datetime, sequence: int) -> WatchMessage:
        self.at = ResumePoint(sequence=sequence)
        return WatchMessage(
            kind="END",
            sequence=sequence,
            event_time=event_time,
            event_type=f"batch:{_END_NAMES.get(batch.state, 'completed')}",
            resume=self.at,
            batch=batch,
        )

    async def next_messages(self) -> Sequence[WatchMessage]:
        """Waits until there is something to say; returns nothing after an idle wake-up."""
        news = self._topic.news
        found = await self._next_events()
        messages: list[WatchMessage] = []
        for event in found:
            messages += await self._tell(event)
        messages += self._due_progress()
        if messages:
            self._spoke_at = self._clock.monotonic()
            return messages
        if found:
            return ()
        await self._clock.wait(news, self._patience())
        if self._clock.monotonic() - self._spoke_at >= HEARTBEAT.total_seconds():
            self._spoke_at = self._clock.monotonic()
            return (self._message("HEARTBEAT", event_type="watch:heartbeat"),)
        return ()

    async def _next_events(self) -> Sequence[Event]:
        events = self._topic.after(self._seen)
        if events is None:
            events = list(
                await self._store.batches.events(self._batch.key, after=self._seen, limit=_PAGE)
            )
            if events and events[0].sequence != self._seen + 1:
                raise ResumeTokenExpired(
                    "The events after the resume token are not kept any more; start again "
                    "without one."
                )
        return events[:_PAGE]

    async def _tell(self, event: Event) -> list[WatchMessage]:
        self._seen = event.sequence
        if event.kind == "STATE_CHANGED":
            messages = self._flush_progress()
            if event.state.is_final:
                final = await self._store.batches.get_by_key(self._batch.key)
                if final is not None and final.state.is_final:
                    return [*messages, self.end(final, event.event_time, event.sequence)]
            return [*messages, self._changed(event)]
        messages = await self._items(event) if self._include_items else []
        self._pending = event
        return messages

    def _changed(self, event: Event) -> WatchMessage:
        self.at = ResumePoint(sequence=event.sequence)
        batch = replace(
            self._batch,
            state=event.state,
            counts=event.counts,
            sequence=event.sequence,
            update_time=event.event_time,
        )
        return WatchMessage(
            kind="STATE_CHANGED",
            sequence=event.sequence,
            event_time=event.event_time,
            event_type=event.event_type,
            resume=self.at,
            batch=batch,
        )

    async def _items(self, event: Event) -> list[WatchMessage]:
        """Returns a message for each item that became final with the event."""
        found = await self._store.batches.finished_items(
            self._batch, event.finished, only_failed=self._only_failed
        )
        shown = self.at.item_index if self.at.sequence == event.sequence else -1
        messages = []
        for item in found:
            if item.index <= shown:
                continue
            self.at = ResumePoint(sequence=event.sequence, item_index=item.index)
            messages.append(
                WatchMessage(
                    kind="ITEM_FINISHED",
                    sequence=event.sequence,
                    event_time=event.event_time,
                    event_type="batch:item_finished",
                    resume=self.at,
                    item=item,
                )
            )
        return messages

    def _due_progress(self) -> list[WatchMessage]:
        if self._clock.monotonic() - self._progress_at < self._min_interval:
            return []
        return self._flush_progress()

    def _flush_progress(self) -> list[WatchMessage]:
        """Returns the newest counts that were held back, if there are any."""
        event, self._pending = self._pending, None
        if event is None:
            return []
        self._progress_at = self._clock.monotonic()
        self.at = ResumePoint(sequence=event.sequence)
        return [
            WatchMessage(
                kind="PROGRESS",
                sequence=event.sequence,
                event_time=event.event_time,
                event_type=event.event_type,
                resume=self.at,
                counts=event.counts,
            )
        ]

    def _patience(self) -> timedelta:
        """How long there is nothing to say, if nothing happens."""
        now = self._clock.monotonic()
        seconds = self._spoke_at + HEARTBEAT.total_seconds() - now
        if self._pending is not None:
            seconds = min(seconds, self._progress_at + self._min_interval - now)
        return timedelta(seconds=max(0.001, seconds))

    def _message(self, kind: str, *, event_type: str, batch: Batch | None = None) -> WatchMessage:
        return WatchMessage(
            kind=kind,
            sequence=self.at.sequence,
            event_time=self._clock.now(),
            event_type=event_type,
            resume=self.at,
            batch=batch,
        )


_END_NAMES = {
    "FAILED": "failed",
    "CANCELLED": "cancelled",
    "EXPIRED": "expired",
}
