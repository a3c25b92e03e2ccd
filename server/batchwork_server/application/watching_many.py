"""Watching all batches that match: a snapshot of each that is not over, then every change.

A watcher hears the events of all batches from the feed. It waits for its reader with a bounded
queue; when that is full it drops it and reads the table from where it stands, like one that comes
with a resume token. Of each batch at most one PROGRESS waits, so that memory is bounded by the
number of batches that run.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

from batchwork_server.application.event_feed import (
    LONGEST_SILENCE,
    EventFeed,
    FedEvent,
    TableReader,
)
from batchwork_server.application.told import (
    GOING_AWAY_TYPE,
    HEARTBEAT,
    HEARTBEAT_TYPE,
    SNAPSHOT_TYPE,
    FeedMessage,
    FeedPoint,
)
from batchwork_server.clock import Clock
from batchwork_server.domain.batch import FINAL_STATES, Batch, BatchState, Counts
from batchwork_server.domain.feed_place import FeedPlace
from batchwork_server.domain.filters import BatchFilter
from batchwork_server.errors import ResumeTokenExpired
from batchwork_server.store.store import Store

_MOST_WAITING = 1024
_MOST_TAKEN = 256
_SNAPSHOT_PAGE = 100
_OPEN_STATES = tuple(state for state in BatchState if state not in FINAL_STATES)


@dataclass(frozen=True, slots=True)
class _Progress:
    """The newest counts of a batch, which wait for their turn."""

    fed: FedEvent
    batch: Batch


class ManyWatcher:
    """One stream over many batches: where it is, and what it has to say next.

    Create it while the feed is running.
    """

    def __init__(
        self,
        matching: BatchFilter,
        *,
        store: Store,
        feed: EventFeed,
        clock: Clock,
        min_interval: timedelta,
        with_progress: bool,
    ) -> None:
        self._matching = matching
        self._store = store
        self._feed = feed
        self._clock = clock
        self._with_progress = with_progress
        self._line = _Line(store, feed.safe)
        self._place = feed.safe
        self._needs_snapshots = True
        self._snapshot_key: int | None = None
        self._shown: dict[int, int] = {}  # by batch, the last event that its snapshot includes
        self._progress = _ProgressTurns(clock, min_interval)
        self._spoke_at = clock.monotonic()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hears what happens, from now on."""
        self._feed.listeners.add(self._line)
        try:
            yield
        finally:
            self._feed.listeners.discard(self._line)

    async def resume(self, point: FeedPoint) -> None:
        """Goes on after a message that an earlier stream told.

        Raises:
            ResumeTokenExpired: there is no such place yet: the database is an older one.
        """
        if point.place > await self._store.events.newest():
            raise ResumeTokenExpired(
                "The resume token is newer than the database; start again without one."
            )
        self._place = point.place
        self._line.read_after(point.place)
        self._snapshot_key = point.snapshot_key
        self._needs_snapshots = point.snapshot_key is not None

    async def snapshots(self) -> AsyncGenerator[FeedMessage, None]:
        """Yields each batch that is not over, newest first; none after a resume that had them."""
        open_ones = replace(self._matching, states=_OPEN_STATES)
        more = self._needs_snapshots
        while more:
            page, after = await self._store.batches.list(
                open_ones, page_size=_SNAPSHOT_PAGE, after=self._snapshot_key
            )
            for batch in page:
                self._snapshot_key = batch.key
                self._shown[batch.key] = batch.sequence
                yield self._snapshot(batch)
            more = after is not None
        self._snapshot_key = None

    async def next_messages(self) -> Sequence[FeedMessage]:
        """Waits until there is something to say; returns nothing after an idle wake-up."""
        self._line.news.clear()
        events = await self._line.take(self._place)
        messages: list[FeedMessage] = []
        for fed in events:
            messages += await self._tell(fed)
        messages += [self._counts(turn) for turn in self._progress.due()]
        if messages:
            self._spoke_at = self._clock.monotonic()
            return messages
        if events or not (self._line.is_idle or self._line.is_held_up):
            return ()
        if self._line.is_idle:
            self._place = max(self._place, self._feed.safe)
        await self._clock.wait(self._line.news, self._patience())
        if self._clock.monotonic() - self._spoke_at >= HEARTBEAT.total_seconds():
            self._spoke_at = self._clock.monotonic()
            return (self._moment("HEARTBEAT", HEARTBEAT_TYPE),)
        return ()

    def going_away(self) -> FeedMessage:
        return self._moment("GOING_AWAY", GOING_AWAY_TYPE)

    async def _tell(self, fed: FedEvent) -> list[FeedMessage]:
        batch = await self._wanted(fed)
        messages: list[FeedMessage] = []
        if batch is not None:
            if fed.event.kind == "PROGRESS":
                if self._with_progress:
                    self._progress.wait(_Progress(fed, batch))
            else:
                messages += [self._counts(turn) for turn in self._progress.at_once(batch.key)]
                self._place = max(self._place, fed.after)
                messages.append(await self._fact(fed, batch))
        self._place = max(self._place, fed.after)
        return messages

    async def _wanted(self, fed: FedEvent) -> Batch | None:
        """Returns the batch of an event that is to be told; none for any other.

        Raises:
            ResumeTokenExpired: events that were to be told are not kept any more.
        """
        batch = await self._feed.batch(fed.batch_key)
        if batch is None or not _matches(batch, self._matching):
            return None
        if fed.sequence <= self._shown.get(fed.batch_key, 0):
            return None
        self._shown.pop(fed.batch_key, None)
        if fed.is_cut_off:
            if await fed.newest_batch() is None:
                return None
            raise ResumeTokenExpired(
                f"Events of the batch {batch.batch_id!r} after the resume token are not kept any "
                "more; start again without one."
            )
        return batch

    async def _fact(self, fed: FedEvent, batch: Batch) -> FeedMessage:
        if fed.event.kind == "VALIDATION":
            found = await fed.newest_batch() or batch  # a draft finds more with each page
            return self._about(fed, batch, "VALIDATION").with_validation(found.request)
        if fed.event.kind == "DELIVERY":
            return replace(self._about(fed, batch, "DELIVERY"), delivery=fed.event.delivery)
        left = await fed.batch(batch)
        if left.state.is_final:
            self._progress.forget(batch.key)
            return self._about(fed, batch, "END", left=left)
        return self._about(fed, batch, "STATE_CHANGED", left=left)

    def _counts(self, turn: _Progress) -> FeedMessage:
        return self._about(turn.fed, turn.batch, "PROGRESS", counts=turn.fed.event.counts)

    def _about(
        self,
        fed: FedEvent,
        batch: Batch,
        kind: str,
        *,
        left: Batch | None = None,
        counts: Counts | None = None,
    ) -> FeedMessage:
        """Makes a message about an event of a batch."""
        return FeedMessage(
            kind=kind,
            sequence=fed.sequence,
            event_time=fed.event.event_time,
            event_type=fed.event.event_type,
            batch_id=batch.batch_id,
            tenant_id=batch.tenant_id,
            batch=left,
            counts=counts,
            resume=self._point(),
        )

    def _snapshot(self, batch: Batch) -> FeedMessage:
        return FeedMessage(
            kind="SNAPSHOT",
            sequence=batch.sequence,
            event_time=self._clock.now(),
            event_type=SNAPSHOT_TYPE,
            batch_id=batch.batch_id,
            tenant_id=batch.tenant_id,
            batch=batch,
            resume=self._point(),
        )

    def _moment(self, kind: str, event_type: str) -> FeedMessage:
        """Makes a message about this moment and no batch."""
        return FeedMessage(
            kind=kind, event_time=self._clock.now(), event_type=event_type, resume=self._point()
        )

    def _point(self) -> FeedPoint:
        """Returns after what to resume, so that counts that wait are told then."""
        first = self._progress.first
        place = self._place if first is None else min(self._place, first.fed.before)
        return FeedPoint(place=place, snapshot_key=self._snapshot_key)

    def _patience(self) -> timedelta:
        """How long there is nothing to say, if nothing happens."""
        silence = self._spoke_at + HEARTBEAT.total_seconds() - self._clock.monotonic()
        if self._line.is_held_up:
            silence = min(silence, LONGEST_SILENCE.total_seconds())
        return timedelta(seconds=max(0.001, min(silence, self._progress.wait_for_next())))


class _Line:
    """The events that wait for one watcher: in memory, or in the table when those are too many.

    Attributes:
        news: Set when there may be more.
    """

    def __init__(self, store: Store, place: FeedPlace) -> None:
        self._store = store
        self._waiting: deque[FedEvent] = deque()
        self._has_lost = False
        self._table: TableReader | None = None
        self._read_until = place
        self._is_full = False
        self.news = asyncio.Event()

    @property
    def is_idle(self) -> bool:
        """Tells whether everything that was heard has been taken."""
        return not (self._waiting or self._has_lost or self._table)

    @property
    def is_held_up(self) -> bool:
        """Tells whether all that is left to take waits for something that is not settled yet."""
        return self._table is not None and not self._is_full

    def read_after(self, place: FeedPlace) -> None:
        """Reads the table first, from this place on."""
        self._table, self._is_full = TableReader(self._store, place), True

    def hear(self, events: Sequence[FedEvent]) -> None:
        if len(self._waiting) + len(events) > _MOST_WAITING:
            self._has_lost = True
        if self._has_lost:
            self._waiting.clear()
        else:
            self._waiting.extend(events)
        self.wake()

    def wake(self) -> None:
        self.news.set()

    async def take(self, place: FeedPlace) -> Sequence[FedEvent]:
        """Returns the next events; ``place`` is where the watcher stands.

        Raises:
            StoreUnavailable: the database is away.
        """
        if self._has_lost and self._table is None:
            self.read_after(place)
        if self._table is not None:
            return await self._read(self._table)
        taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_TAKEN))]
        return [fed for fed in taken if fed.place > self._read_until]

    async def _read(self, table: TableReader) -> Sequence[FedEvent]:
        # What is heard from now on may come a second time, and what was heard before is read.
        self._waiting.clear()
        self._has_lost = False
        look = await table.look()
        self._is_full = look.is_full
        # What the reader holds, the feed may have begun after, and would never tell.
        if not (look.is_full or table.holds_something):
            self._read_until = table.place
            self._table = None
        return look.events


class _ProgressTurns:
    """At most one PROGRESS of each batch, told when its turn comes."""

    def __init__(self, clock: Clock, min_interval: timedelta) -> None:
        self._clock = clock
        self._min_interval = min_interval.total_seconds()
        self._waiting: dict[int, _Progress] = {}  # in the order of their events
        self._told_at: dict[int, float] = {}

    @property
    def first(self) -> _Progress | None:
        """The one whose event came first of those that wait."""
        return next(iter(self._waiting.values()), None)

    def wait(self, progress: _Progress) -> None:
        """Takes the place of the one of the same batch."""
        self._waiting.pop(progress.batch.key, None)
        self._waiting[progress.batch.key] = progress

    def at_once(self, batch_key: int) -> Iterator[_Progress]:
        """Yields the one of a batch, if there is one."""
        waiting = self._waiting.pop(batch_key, None)
        if waiting is not None:
            self._told_at[batch_key] = self._clock.monotonic()
            yield waiting

    def due(self) -> Iterator[_Progress]:
        """Yields those whose turn has come."""
        now = self._clock.monotonic()
        for batch_key in [key for key in self._waiting if self._wait_for(key, now) <= 0]:
            yield from self.at_once(batch_key)

    def forget(self, batch_key: int) -> None:
        """Keeps nothing of a batch that is over."""
        self._told_at.pop(batch_key, None)

    def wait_for_next(self) -> float:
        """Returns the seconds until the next turn; infinite when nothing waits."""
        now = self._clock.monotonic()
        return min((self._wait_for(key, now) for key in self._waiting), default=math.inf)

    def _wait_for(self, batch_key: int, now: float) -> float:
        return self._told_at.get(batch_key, -math.inf) + self._min_interval - now


def _matches(batch: Batch, matching: BatchFilter) -> bool:
    request = batch.request
    return (
        matching.tenant_id in (None, batch.tenant_id)
        and matching.operation in ("", request.operation)
        and matching.job_id in ("", request.job_id)
        and matching.feature_type in ("", request.feature_type)
        and matching.labels.items() <= request.labels.items()
    )
