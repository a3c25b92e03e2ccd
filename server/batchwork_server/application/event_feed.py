"""One look at the event table for everybody who watches on this server.

The feed reads the new events of all batches, once, and hands them out in memory. It runs while
somebody watches. Two kinds of readers listen to it: topics, which want the events of one batch,
and those who want them all, in an order after which a watch can be resumed.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Protocol

from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Batch
from batchwork_server.domain.feed_place import FeedPlace
from batchwork_server.errors import Unavailable
from batchwork_server.logs import WaitingLog, get_logger
from batchwork_server.store.store import Event, Store, UnreadEvent
from batchwork_server.wakeups import Wakeups

log = get_logger(__name__)

LONGEST_SILENCE = timedelta(seconds=1)
"""How long a change can go unseen that nobody announced."""

PAGE = 512
"""How many events are read at once."""

_SHORTEST_LOOK = timedelta(milliseconds=50)  # between two looks at the table
_LOOK_PER_WATCHER = timedelta(microseconds=250)  # each look wakes them all
_SLOWEST_LOOK = timedelta(milliseconds=500)
_KNOWN_BATCHES = 512


class FedEvent:
    """An event as it is handed to everybody: whatever it takes is read once for all of them.

    Attributes:
        place: Where it stands.
        before: A watch that is resumed after this place is told this event, and all that follow.
        after: A watch that is resumed after this place is told all that follow this event.
    """

    def __init__(
        self, unread: UnreadEvent, *, before: FeedPlace, after: FeedPlace, store: Store
    ) -> None:
        self._unread = unread
        self._store = store
        self._event: Event | None = None
        self._batch: asyncio.Task[Batch | None] | None = None
        self.before = before
        self.after = after

    @property
    def place(self) -> FeedPlace:
        return self._unread.place

    @property
    def batch_key(self) -> int:
        return self._unread.batch_key

    @property
    def sequence(self) -> int:
        return self._unread.sequence

    @property
    def is_cut_off(self) -> bool:
        """Tells whether the event before it in its batch is not kept any more."""
        return self._unread.is_cut_off

    @property
    def event(self) -> Event:
        if self._event is None:
            self._event = self._store.events.read(self._unread)
        return self._event

    async def batch(self, known: Batch) -> Batch:
        """Returns the batch as the event left it.

        When more has happened to it since, or it is deleted, that is put together from what is
        known of it and what the event tells.
        """
        return _left_by(self.event, await self.newest_batch() or known)

    async def newest_batch(self) -> Batch | None:
        """Returns the batch as it is now, read once for all; none when it is deleted."""
        if self._batch is None or _has_failed(self._batch):
            self._batch = asyncio.create_task(self._read_batch())
        return await asyncio.shield(self._batch)

    async def _read_batch(self) -> Batch | None:
        return await self._store.batches.get_by_key(self.batch_key)


def _has_failed(reading: asyncio.Task[Batch | None]) -> bool:
    return reading.done() and (reading.cancelled() or reading.exception() is not None)


def _left_by(event: Event, batch: Batch) -> Batch:
    if batch.sequence == event.sequence:
        return batch
    return replace(
        batch,
        state=event.state,
        counts=event.counts,
        sequence=event.sequence,
        update_time=event.event_time,
        end_time=event.event_time if event.state.is_final else None,
        state_reason=event.state_reason,
        state_message=batch.state_message if batch.state_reason == event.state_reason else "",
        resume_time=None,
    )


@dataclass(slots=True)
class _Place:
    """A place whose event was handed out, or not yet."""

    place: FeedPlace
    is_out: bool = False


class Ordering:
    """Puts settled events into the order of their batches, and tells where it is safe to resume.

    Transactions of PostgreSQL that overlap can leave the events of one batch at places in the wrong
    order. One that stands before its predecessor is held until that has come. Meanwhile others go
    on, and whoever resumes then starts before the one that is held.
    """

    def __init__(self, place: FeedPlace) -> None:
        self._safe = place
        self._open: deque[_Place] = deque()
        self._held: dict[tuple[int, int], tuple[UnreadEvent, _Place]] = {}

    @property
    def safe(self) -> FeedPlace:
        """Every event up to here was handed out."""
        return self._safe

    @property
    def holds_something(self) -> bool:
        """Tells whether an event waits for its predecessor."""
        return bool(self._held)

    def put(
        self, events: Iterable[UnreadEvent]
    ) -> Iterator[tuple[UnreadEvent, FeedPlace, FeedPlace]]:
        """Yields the events that are in order, each with the safe place before and after it."""
        for event in events:
            here = _Place(event.place)
            self._open.append(here)
            if event.is_early or (event.batch_key, event.sequence - 1) in self._held:
                self._held[event.batch_key, event.sequence] = (event, here)
                continue
            yield self._hand_out(event, here)
            while waiting := self._held.pop((event.batch_key, event.sequence + 1), None):
                event, here = waiting
                yield self._hand_out(event, here)

    def _hand_out(
        self, event: UnreadEvent, here: _Place
    ) -> tuple[UnreadEvent, FeedPlace, FeedPlace]:
        before = self._safe
        here.is_out = True
        while self._open and self._open[0].is_out:
            self._safe = self._open.popleft().place
        return event, before, self._safe


class TableReader:
    """Reads the events of all batches from the table, for the feed or for one slow watcher."""

    def __init__(self, store: Store, place: FeedPlace) -> None:
        self._store = store
        self._place = place
        self._ordering = Ordering(place)

    @property
    def place(self) -> FeedPlace:
        """After this place it goes on to read."""
        return self._place

    @property
    def safe(self) -> FeedPlace:
        return self._ordering.safe

    @property
    def holds_something(self) -> bool:
        """Tells whether an event was read and not handed out, as another is to come first."""
        return self._ordering.holds_something

    async def look(self) -> Look:
        """Reads the next page."""
        found = await self._store.events.after(self._place, limit=PAGE)
        settled = [event for event in found if event.is_settled]
        if settled:
            self._place = settled[-1].place
        return Look(
            events=[
                FedEvent(event, before=before, after=after, store=self._store)
                for event, before, after in self._ordering.put(settled)
            ],
            unsettled=found[len(settled) :],
            is_full=len(settled) == PAGE,
            is_blocked=len(settled) < len(found) == PAGE,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look at the table found.

    Attributes:
        events: In the order in which they are to be told.
        unsettled: Events before which another one may still come.
        is_full: There may be more at once.
        is_blocked: There may be more behind those that are not settled, and nobody can tell when
            those will be: a transaction goes on that is older than they are.
    """

    events: Sequence[FedEvent]
    unsettled: Sequence[UnreadEvent] = field(default=())
    is_full: bool = False
    is_blocked: bool = False


class Listener(Protocol):
    """Somebody who wants the events of all batches."""

    def hear(self, events: Sequence[FedEvent]) -> None:
        """Takes what is new; it must not block."""
        ...

    def wake(self) -> None:
        """Looks up: the feed ends, or the server does."""
        ...


class BatchListener(Protocol):
    """Somebody who wants the events of one batch."""

    @property
    def newest(self) -> int:
        """The sequence of the newest event that was heard; 0 when there was none."""
        ...

    def hear(self, event: FedEvent) -> None:
        """Takes an event that may have come before, or may come before another one is there."""
        ...

    def wake(self) -> None:
        """Looks up: something was heard, the feed ends, or the server does."""
        ...


class EventFeed:
    """Reads the new events of all batches while somebody listens.

    It looks when a batch was announced, at once when that is over and else at most every 50 ms,
    and once a second without that. With more than 200 watchers it looks less often, every 250 ms
    for a thousand and never less than twice a second: waking them would take the time of the work.

    Attributes:
        batch_listeners: By the key of the batch.
        listeners: Who wants all events.
    """

    def __init__(self, *, store: Store, clock: Clock, wakeups: Wakeups) -> None:
        self._store = store
        self._clock = clock
        self._changed = asyncio.Event()
        self._urgent = asyncio.Event()
        self._starting = asyncio.Lock()
        self._users = 0
        self._table: TableReader | None = None
        self._task: asyncio.Task[None] | None = None
        self._known: OrderedDict[int, Batch] = OrderedDict()
        self.batch_listeners: dict[int, BatchListener] = {}
        self.listeners: set[Listener] = set()
        self._waiting = WaitingLog(log, "watch", monotonic=clock.monotonic)
        wakeups.subscribe(self._announce)

    @property
    def safe(self) -> FeedPlace:
        """Whoever listens has heard every event up to here."""
        if self._table is None:
            raise RuntimeError("the feed runs only while somebody uses it")
        return self._table.safe

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keeps the feed running; what is written from then on will be heard.

        Raises:
            StoreUnavailable: the database is away.
        """
        self._users += 1
        try:
            async with self._starting:
                if self._task is None or self._task.done():
                    await self._start()
            yield
        finally:
            self._users -= 1
            if not self._users:
                await self._stop()

    def wake_all(self) -> None:
        """Makes everybody look up."""
        for topic in self.batch_listeners.values():
            topic.wake()
        for listener in self.listeners:
            listener.wake()

    def raise_when_broken(self) -> None:
        """Ends a watch that would never hear anything again.

        Raises:
            RuntimeError: the feed came to an end that nobody wanted.
        """
        if self._task is None or self._task.done():
            raise RuntimeError("the feed of events is broken; the log has the reason")

    async def batch(self, batch_key: int) -> Batch | None:
        """Returns a batch in some state of it, for what never changes; none when it is deleted."""
        known = self._known.get(batch_key) or await self._store.batches.get_by_key(batch_key)
        if known is not None:
            self._know(known)
        return known

    def _know(self, batch: Batch) -> None:
        self._known[batch.key] = batch
        self._known.move_to_end(batch.key)
        if len(self._known) > _KNOWN_BATCHES:
            self._known.popitem(last=False)

    def _announce(self, batch: Batch) -> None:
        if self.listeners:
            self._know(batch)
        elif batch.key not in self.batch_listeners:
            return
        self._changed.set()
        if batch.state.is_final:
            self._urgent.set()

    async def _start(self) -> None:
        self._table = TableReader(self._store, await self._store.events.newest())
        self._task = asyncio.create_task(self._read(self._table), name="event-feed")
        self._task.add_done_callback(self._ended)

    async def _stop(self) -> None:
        task, self._task, self._table = self._task, None, None
        self._known.clear()
        if task is not None:
            task.cancel()
            await asyncio.wait([task])  # whoever closes the database comes after the last reader

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error("watch.broken", exc_info=error)
            self.wake_all()

    async def _read(self, table: TableReader) -> None:
        while True:
            self._changed.clear()
            self._urgent.clear()
            look = await self._look(table)
            if not look.is_full:
                patience = _SHORTEST_LOOK if look.unsettled else LONGEST_SILENCE
                await self._clock.wait(self._changed, patience)
                await self._clock.wait(self._urgent, self._rest())

    def _rest(self) -> timedelta:
        return min(max(_SHORTEST_LOOK, self._users * _LOOK_PER_WATCHER), _SLOWEST_LOOK)

    async def _look(self, table: TableReader) -> Look:
        try:
            look = await table.look()
            overlooked = await self._overlooked() if look.is_blocked else ()
        except Unavailable as error:
            self._waiting.waits(error.reason, error.message)
            return Look(events=())
        self._waiting.goes_on()
        self._hand_out(look, overlooked, safe=table.safe)
        return look

    async def _overlooked(self) -> Sequence[UnreadEvent]:
        """Returns the newest event of each batch that is watched and has one nobody has heard.

        Its watchers read themselves what came before it.
        """
        newest = await self._store.events.newest_of(list(self.batch_listeners))
        found: list[UnreadEvent] = []
        for batch_key, sequence in newest.items():
            listener = self.batch_listeners.get(batch_key)
            if listener is not None and sequence > listener.newest:
                found += await self._store.events.of_batch(batch_key, after=sequence - 1, limit=1)
        return found

    def _hand_out(self, look: Look, overlooked: Sequence[UnreadEvent], *, safe: FeedPlace) -> None:
        if look.events:
            for listener in self.listeners:
                listener.hear(look.events)
        # In one batch the order is sure as soon as events can be seen, so its watchers need not
        # wait for transactions that go on elsewhere.
        ahead = (
            FedEvent(unread, before=safe, after=safe, store=self._store)
            for unread in sorted((*look.unsettled, *overlooked), key=lambda each: each.sequence)
            if unread.batch_key in self.batch_listeners
        )
        woken: dict[int, BatchListener] = {}
        for event in (*look.events, *ahead):
            topic = self.batch_listeners.get(event.batch_key)
            if topic is not None:
                topic.hear(event)
                woken[event.batch_key] = topic
        for topic in woken.values():
            topic.wake()
