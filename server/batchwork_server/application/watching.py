"""Watching a batch: a snapshot, then every change, and a last message that is sure to come.

The event table is the source; memory only spares looks at it. One feed reads the new events of all
batches; each watched batch has one topic that keeps its newest ones for all its watchers. A watcher
that is slow finds its events gone from there, and one that comes with an old token never saw them
there: both read the table by themselves. Nothing is lost, and memory stays bounded.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice

from batchwork_server.application.event_feed import EventFeed, FedEvent
from batchwork_server.application.told import (
    GOING_AWAY_TYPE,
    HEARTBEAT,
    HEARTBEAT_TYPE,
    SNAPSHOT_TYPE,
    FeedMessage,
    FeedPoint,
    ResumePoint,
    WatchMessage,
)
from batchwork_server.application.watchers import Watchers
from batchwork_server.application.watching_many import ManyWatcher
from batchwork_server.clock import Clock
from batchwork_server.domain import event_types
from batchwork_server.domain.batch import Batch, Counts
from batchwork_server.domain.filters import BatchFilter
from batchwork_server.domain.item import Item
from batchwork_server.errors import NotFound, ResumeTokenExpired, ShuttingDown
from batchwork_server.store.store import Event, Store
from batchwork_server.wakeups import Wakeups

_KEPT_EVENTS = 256
_PAGE = 256
_KEPT_ITEMS = 2


class Watching:
    """The use cases behind ``WatchBatch`` and ``WatchBatches``.

    Args:
        watchers: Counts the streams, and those of others.
    """

    def __init__(self, *, store: Store, clock: Clock, wakeups: Wakeups, watchers: Watchers) -> None:
        self._store = store
        self._clock = clock
        self._watchers = watchers
        self._feed = EventFeed(store=store, clock=clock, wakeups=wakeups)
        self._topics: dict[int, _Topic] = {}
        self._closing = False

    def close(self) -> None:
        """Tells every watcher that the server is going away, and ends their streams."""
        self._closing = True
        self._feed.wake_all()

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
        async with self._admitted():
            with self._joined(batch.key) as topic:
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
                    yield watcher.end_at_once()
                    return
                while not self._closing:
                    self._feed.raise_when_broken()
                    for message in await watcher.next_messages():
                        yield message
                        if message.kind == "END":
                            return
                yield watcher.going_away()
                raise _shutting_down()

    async def watch_many(
        self,
        matching: BatchFilter,
        *,
        resume: FeedPoint | None,
        min_interval: timedelta,
        with_progress: bool,
    ) -> AsyncGenerator[FeedMessage, None]:
        """Yields what happens to all batches that match, until the caller leaves.

        Without ``resume`` it starts with a snapshot of each one that is not over.

        Raises:
            QuotaExceeded: there are too many watchers.
            ResumeTokenExpired: the events after ``resume`` are not kept any more.
            ShuttingDown: after GOING_AWAY.
        """
        async with self._admitted():
            watcher = ManyWatcher(
                matching,
                store=self._store,
                feed=self._feed,
                clock=self._clock,
                min_interval=min_interval,
                with_progress=with_progress,
            )
            with watcher.listening():
                if resume is not None:
                    await watcher.resume(resume)
                async with aclosing(watcher.snapshots()) as snapshots:
                    async for snapshot in snapshots:
                        yield snapshot
                while not self._closing:
                    self._feed.raise_when_broken()
                    for message in await watcher.next_messages():
                        yield message
                yield watcher.going_away()
                raise _shutting_down()

    @asynccontextmanager
    async def _admitted(self) -> AsyncIterator[None]:
        """Counts a watcher, and keeps the feed running for it."""
        if self._closing:
            raise _shutting_down()
        with self._watchers.admitted():
            async with self._feed.running():
                yield

    @contextmanager
    def _joined(self, batch_key: int) -> Iterator[_Topic]:
        topic = self._topics.get(batch_key)
        if topic is None:
            topic = self._topics[batch_key] = _Topic()
            self._feed.batch_listeners[batch_key] = topic
        topic.watchers += 1
        try:
            yield topic
        finally:
            topic.watchers -= 1
            if not topic.watchers:
                del self._topics[batch_key]
                del self._feed.batch_listeners[batch_key]

    async def _current(self, batch: Batch) -> Batch:
        current = await self._store.batches.get_by_key(batch.key)
        if current is None:
            raise NotFound("batch", batch.batch_id)
        return current


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("The server shuts down; watch again, here or elsewhere.")


class _Topic:
    """The newest events of one batch, for all its watchers."""

    def __init__(self) -> None:
        self._events: deque[FedEvent] = deque(maxlen=_KEPT_EVENTS)
        self._items: OrderedDict[tuple[int, bool], asyncio.Task[Sequence[Item]]] = OrderedDict()
        self._news = asyncio.Event()
        self.watchers = 0

    @property
    def newest(self) -> int:
        return self._events[-1].sequence if self._events else 0

    def hear(self, event: FedEvent) -> None:
        if self._events:
            newest = self._events[-1].sequence
            if event.sequence <= newest:
                return
            if event.sequence > newest + 1:
                self._events.clear()  # whoever has not seen what is missing reads the table
        self._events.append(event)

    def wake(self) -> None:
        """Wakes every watcher, whether there is something new or not."""
        self._news.set()
        self._news = asyncio.Event()

    @property
    def news(self) -> asyncio.Event:
        """Set when something new has come; a new one stands here after that."""
        return self._news

    def after(self, sequence: int) -> Sequence[FedEvent] | None:
        """Returns the events after ``sequence``; None when the first of them is not kept here."""
        if not self._events or sequence >= self._events[-1].sequence:
            return ()
        skipped = sequence + 1 - self._events[0].sequence
        if skipped < 0:
            return None
        return list(islice(self._events, skipped, skipped + _PAGE))

    async def finished_items(
        self, batch: Batch, event: Event, *, only_failed: bool, store: Store
    ) -> Sequence[Item]:
        """Returns the items of an event that are final, read once for those who ask together."""
        name = (event.sequence, only_failed)
        reading = self._items.get(name)
        if reading is None or (reading.done() and (reading.cancelled() or reading.exception())):
            reading = self._items[name] = asyncio.create_task(
                _finished_items(batch, event, only_failed=only_failed, store=store)
            )
            if len(self._items) > _KEPT_ITEMS:
                self._items.popitem(last=False)
        return await asyncio.shield(reading)


async def _finished_items(
    batch: Batch, event: Event, *, only_failed: bool, store: Store
) -> Sequence[Item]:
    return await store.batches.finished_items(batch, event.finished, only_failed=only_failed)


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
        self._feature = batch.request.feature_type
        self._store = store
        self._clock = clock
        self._topic = topic
        self._include_items = include_items
        self._only_failed = only_failed
        self._min_interval = min_interval.total_seconds()
        self._pending: Event | None = None
        self._progress_at = clock.monotonic() - self._min_interval
        self._spoke_at = clock.monotonic()
        # An event whose items were shown in part is read again for the rest of them.
        self._seen = at.sequence - 1 if at.item_index >= 0 else at.sequence
        self._heard_from = batch.sequence  # what came later is sure to have gone to the topic
        self.at = at

    def snapshot(self) -> WatchMessage:
        return self._message("SNAPSHOT", event_type=SNAPSHOT_TYPE, batch=self._batch)

    def going_away(self) -> WatchMessage:
        return self._message("GOING_AWAY", event_type=GOING_AWAY_TYPE)

    def end_at_once(self) -> WatchMessage:
        """Ends the watch of a batch that was over, and told, before."""
        return self._about(
            "END",
            sequence=self.at.sequence,
            event_time=self._batch.update_time,
            event_type=event_types.of_state(self._batch.state, feature_type=self._feature),
            batch=self._batch,
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
            return (self._message("HEARTBEAT", event_type=HEARTBEAT_TYPE),)
        return ()

    async def _next_events(self) -> Sequence[FedEvent]:
        heard = self._topic.after(self._seen)
        if heard or (heard is not None and self._seen >= self._heard_from):
            return heard
        found = await self._store.events.of_batch(self._batch.key, after=self._seen, limit=_PAGE)
        if not found:
            raise NotFound("batch", self._batch.batch_id)  # deleted meanwhile
        if found[0].sequence != self._seen + 1:
            raise ResumeTokenExpired(
                "The events after the resume token are not kept any more; start again without one."
            )
        return [
            FedEvent(unread, before=unread.place, after=unread.place, store=self._store)
            for unread in found
        ]

    async def _tell(self, fed: FedEvent) -> list[WatchMessage]:
        event = fed.event
        self._seen = event.sequence
        if event.kind == "PROGRESS":
            messages = await self._items(event) if self._include_items else []
            self._pending = event
            return messages
        messages = self._flush_progress()
        self.at = ResumePoint(sequence=event.sequence)
        if event.kind == "VALIDATION":
            found = await fed.newest_batch() or self._batch  # a draft finds more with each page
            fact = self._fact(event, "VALIDATION")
            return [*messages, fact.with_validation(found.request)]
        if event.kind == "DELIVERY":
            return [*messages, replace(self._fact(event, "DELIVERY"), delivery=event.delivery)]
        batch = await fed.batch(self._batch)
        if event.state.is_final and await self._is_over(fed):
            return [*messages, self._fact(event, "END", batch=batch)]
        return [*messages, self._fact(event, "STATE_CHANGED", batch=batch)]

    async def _is_over(self, fed: FedEvent) -> bool:
        """Tells whether nothing came after the end: not even another attempt at the batch."""
        newest = await fed.newest_batch()
        return newest is None or newest.sequence <= fed.sequence

    async def _items(self, event: Event) -> list[WatchMessage]:
        """Returns a message for each item that became final with the event."""
        found = await self._topic.finished_items(
            self._batch, event, only_failed=self._only_failed, store=self._store
        )
        shown = self.at.item_index if self.at.sequence == event.sequence else -1
        messages = []
        for item in found:
            if item.index <= shown:
                continue
            self.at = ResumePoint(sequence=event.sequence, item_index=item.index)
            messages.append(
                self._about(
                    "ITEM_FINISHED",
                    sequence=event.sequence,
                    event_time=event.event_time,
                    event_type=event_types.of_item(item.state, feature_type=self._feature),
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
        return [self._fact(event, "PROGRESS", counts=event.counts)]

    def _patience(self) -> timedelta:
        """How long there is nothing to say, if nothing happens."""
        now = self._clock.monotonic()
        seconds = self._spoke_at + HEARTBEAT.total_seconds() - now
        if self._pending is not None:
            seconds = min(seconds, self._progress_at + self._min_interval - now)
        return timedelta(seconds=max(0.001, seconds))

    def _message(self, kind: str, *, event_type: str, batch: Batch | None = None) -> WatchMessage:
        """Makes a message about this moment."""
        return self._about(
            kind,
            sequence=self.at.sequence,
            event_time=self._clock.now(),
            event_type=event_type,
            batch=batch,
        )

    def _fact(
        self,
        event: Event,
        kind: str,
        *,
        batch: Batch | None = None,
        counts: Counts | None = None,
    ) -> WatchMessage:
        """Makes a message about an event."""
        return self._about(
            kind,
            sequence=event.sequence,
            event_time=event.event_time,
            event_type=event.event_type,
            batch=batch,
            counts=counts,
        )

    def _about(
        self,
        kind: str,
        *,
        sequence: int,
        event_time: datetime,
        event_type: str,
        batch: Batch | None = None,
        counts: Counts | None = None,
        item: Item | None = None,
    ) -> WatchMessage:
        return WatchMessage(
            kind=kind,
            sequence=sequence,
            event_time=event_time,
            event_type=event_type,
            batch_id=self._batch.batch_id,
            tenant_id=self._batch.tenant_id,
            batch=batch,
            counts=counts,
            item=item,
            resume=self.at,
        )
