"""Large batches on their way out: finished items in the order in which they finished.

The events of a batch say which items finished when. They are read a few at a time, and the items
behind them by their places, as many as fit into a message: memory stays the same however large the
batch is. Events are forgotten some time after their batch is over; what finished before that comes
in the order of the batch.
"""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import NamedTuple

from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Batch
from batchwork_server.domain.item import Item, ItemState
from batchwork_server.errors import NotFound, ResumeTokenExpired, ShuttingDown
from batchwork_server.store.store import Event, Store
from batchwork_server.wakeups import Wakeups

PAGE_ITEMS = 500
"""A page of results has at most so many items."""

PAGE_BYTES = 1024 * 1024
"""A page ends with the item that would bring it over so many bytes."""

LONGEST_SILENCE = timedelta(seconds=1)
"""How long a change can go unseen that nobody announced."""

_SHORTEST_LOOK = timedelta(milliseconds=50)  # between two looks at the events
_EVENTS = 64  # at once in memory
_ITEM_BYTES = 300  # of an item besides its texts, about


class ResultPoint(NamedTuple):
    """After which item the results go on.

    Attributes:
        sequence: Of the event with which the item finished; 0 means that its event was forgotten.
        item_index: The item's place in the batch.
    """

    sequence: int
    item_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultPage:
    """Some finished items, and the point after the last of them."""

    items: Sequence[Item]
    resume: ResultPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a caller wants to see of the results.

    Attributes:
        states: Of the items; empty means any.
        user_id: Of the items; empty means anybody's.
        with_data: Whether their input comes, too.
    """

    states: Collection[ItemState] = ()
    user_id: str = ""
    with_data: bool = True


class Results:
    """The use case behind ``StreamResults``."""

    def __init__(self, *, store: Store, clock: Clock, wakeups: Wakeups) -> None:
        self._store = store
        self._clock = clock
        self._news: dict[int, set[asyncio.Event]] = {}
        self._closing = asyncio.Event()
        wakeups.subscribe(self._on_batch)

    def _on_batch(self, batch: Batch) -> None:
        for news in self._news.get(batch.key, ()):
            news.set()

    def close(self) -> None:
        """Ends every stream with what it has sent."""
        self._closing.set()
        for listening in self._news.values():
            for news in listening:
                news.set()

    async def stream_results(
        self, batch: Batch, *, resume: ResultPoint | None, wanted: Wanted, follow: bool
    ) -> AsyncGenerator[ResultPage, None]:
        """Yields the finished items of a batch, page by page.

        Args:
            batch: Which one; how it stands is read anew.
            resume: After which item to go on.
            wanted: Which items, and what of them.
            follow: Goes on until the batch is over; else it ends with what is finished now.

        Raises:
            NotFound: the batch was deleted meanwhile.
            ResumeTokenExpired: the events after ``resume`` are not kept any more.
            ShuttingDown: go on after the newest page, here or elsewhere.
        """
        with self._listen(batch.key) as news:
            current = await self._current(batch)
            reader = await _Reader.opened(current, resume=resume, wanted=wanted, store=self._store)
            while True:
                while (page := await reader.next_page(current)) is not None:
                    yield page
                    self._refuse_when_closing()
                if current.state.is_final or not follow:
                    return
                self._refuse_when_closing()
                await self._clock.wait(news, LONGEST_SILENCE)
                await self._clock.wait(self._closing, _SHORTEST_LOOK)
                news.clear()
                current = await self._current(batch)

    @contextmanager
    def _listen(self, batch_key: int) -> Iterator[asyncio.Event]:
        self._refuse_when_closing()
        news = asyncio.Event()
        listening = self._news.setdefault(batch_key, set())
        listening.add(news)
        try:
            yield news
        finally:
            listening.discard(news)
            if not listening:
                self._news.pop(batch_key, None)

    def _refuse_when_closing(self) -> None:
        if self._closing.is_set():
            raise ShuttingDown("The server shuts down; go on with the newest resume token.")

    async def _current(self, batch: Batch) -> Batch:
        current = await self._store.batches.get_by_key(batch.key)
        if current is None:
            raise NotFound("batch", batch.batch_id)
        return current


class _Reopened:
    """Which items which retries opened again: an item comes with the last event that ended it."""

    def __init__(self, retries: Sequence[Event]) -> None:
        # As numbers beside each other: a retry of half a million scattered items has as many
        # ranges.
        self._retries = [
            (
                event.sequence,
                array("q", (first for first, _ in event.reopened)),
                array("q", (last for _, last in event.reopened)),
            )
            for event in retries
        ]

    @property
    def first_sequence(self) -> int | None:
        return self._retries[0][0] if self._retries else None

    def after(self, point: ResultPoint) -> bool:
        """Tells whether an item that was final with an event was opened again after it."""
        return any(
            sequence > point.sequence and _is_within(point.item_index, firsts, lasts)
            for sequence, firsts, lasts in self._retries
        )


def _is_within(index: int, firsts: Sequence[int], lasts: Sequence[int]) -> bool:
    place = bisect_right(firsts, index) - 1
    return place >= 0 and index <= lasts[place]


class _Reader:
    """One stream: where it is, and what comes next."""

    def __init__(
        self, batch: Batch, *, wanted: Wanted, store: Store, reopened: _Reopened, attempt: int
    ) -> None:
        self._batch = batch
        self._wanted = wanted
        self._store = store
        self._reopened = reopened
        self._attempt = attempt
        self._in_order_after: int | None = None
        self._seen = 0
        self._shown = ResultPoint(sequence=0, item_index=-1)
        self._events: deque[Event] = deque()
        self._points: Iterator[ResultPoint] = iter(())
        self._weighed: deque[tuple[ResultPoint, int]] = deque()

    @classmethod
    async def opened(
        cls, batch: Batch, *, resume: ResultPoint | None, wanted: Wanted, store: Store
    ) -> _Reader:
        """Returns a reader that stands after ``resume``.

        Raises:
            ResumeTokenExpired: the events after it are not kept any more.
        """
        first = await store.results.first_sequence(batch.key)
        reopened = _Reopened(await store.results.retries(batch.key))
        reader = cls(
            batch, wanted=wanted, store=store, reopened=reopened, attempt=batch.attempt_number
        )
        if resume is not None and resume.sequence:
            if first is None or not first <= resume.sequence <= batch.sequence:
                raise _expired()
            reader._shown, reader._seen = resume, resume.sequence - 1
        elif resume is not None or first != 1:
            # What the first retry that is known did not open again was final before it.
            reader._in_order_after = -1 if resume is None else resume.item_index
            reader._seen = reopened.first_sequence or batch.sequence
        return reader

    async def next_page(self, batch: Batch) -> ResultPage | None:
        """Returns the next page of what was finished when ``batch`` was read; none at the end."""
        await self._learn_of_retries(batch)
        while True:
            if not self._weighed and not await self._weigh_more(batch):
                return None
            points = self._fitting()
            found = await self._store.results.items(
                self._batch,
                [point.item_index for point in points],
                with_data=self._wanted.with_data,
            )
            by_index = {item.index: item for item in found}
            items = [by_index[point.item_index] for point in points if point.item_index in by_index]
            if items:
                return ResultPage(items=items, resume=points[-1])

    async def _learn_of_retries(self, batch: Batch) -> None:
        if batch.attempt_number != self._attempt:
            self._reopened = _Reopened(await self._store.results.retries(batch.key))
            self._attempt = batch.attempt_number

    def _fitting(self) -> list[ResultPoint]:
        """Takes as many of the weighed items as make a page; at least one."""
        points: list[ResultPoint] = []
        size = 0
        while self._weighed and len(points) < PAGE_ITEMS:
            point, weight = self._weighed[0]
            size += weight + _ITEM_BYTES
            if points and size > PAGE_BYTES:
                break
            points.append(point)
            self._weighed.popleft()
        return points

    async def _weigh_more(self, batch: Batch) -> bool:
        """Finds the next items that are wanted; tells whether there are any."""
        while points := await self._next_points(batch):
            weights = await self._store.results.weights(
                batch,
                [point.item_index for point in points],
                states=self._wanted.states,
                user_id=self._wanted.user_id,
                with_data=self._wanted.with_data,
            )
            self._weighed.extend(
                (point, weights[point.item_index])
                for point in points
                if point.item_index in weights
            )
            if self._weighed:
                return True
        return False

    async def _next_points(self, batch: Batch) -> list[ResultPoint]:
        if self._in_order_after is not None and (points := await self._next_in_order(batch)):
            return points
        points = list(islice(self._points, PAGE_ITEMS))
        while len(points) < PAGE_ITEMS and (event := await self._next_event(batch)) is not None:
            self._points = self._points_of(event)
            points += islice(self._points, PAGE_ITEMS - len(points))
        return points

    async def _next_in_order(self, batch: Batch) -> list[ResultPoint]:
        """Returns items whose events were forgotten, in the order of the batch."""
        while self._in_order_after is not None:
            indexes = await self._store.results.final_indexes(
                batch.key,
                after=self._in_order_after,
                states=self._wanted.states,
                limit=PAGE_ITEMS,
            )
            self._in_order_after = indexes[-1] if indexes else None
            points = [ResultPoint(sequence=0, item_index=index) for index in indexes]
            if kept := [point for point in points if not self._reopened.after(point)]:
                return kept
        return []

    async def _next_event(self, batch: Batch) -> Event | None:
        if self._seen >= batch.sequence:
            return None
        if not self._events:
            self._events.extend(
                await self._store.batches.events(batch.key, after=self._seen, limit=_EVENTS)
            )
        if not self._events or self._events[0].sequence != self._seen + 1:
            raise _expired()
        event = self._events.popleft()
        self._seen = event.sequence
        return event

    def _points_of(self, event: Event) -> Iterator[ResultPoint]:
        """Yields the items that are final since ``event``, and still to be shown."""
        for first, last in event.finished:
            for index in range(first, last + 1):
                point = ResultPoint(sequence=event.sequence, item_index=index)
                if point > self._shown and not self._reopened.after(point):
                    yield point


def _expired() -> ResumeTokenExpired:
    return ResumeTokenExpired(
        "The events after the resume token are not kept any more; start again without one."
    )
