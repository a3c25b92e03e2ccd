"""What happened to batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from batchwork_server.domain.batch import BatchState, Counts
from batchwork_server.domain.distribution import DeliveryCounts
from batchwork_server.domain.feed_place import FeedPlace


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A fact about a batch.

    Attributes:
        kind: ``STATE_CHANGED``, ``PROGRESS``, ``VALIDATION`` or ``DELIVERY``.
        counts: After the fact.
        state: After the fact.
        finished: Ranges of items that reached their final state with it, first and last.
        reopened: Ranges of items that are open again with it.
        state_reason: Of the batch, after the fact.
        delivery: What became of the references of the batch; only with ``DELIVERY``.
    """

    sequence: int
    kind: str
    event_type: str
    event_time: datetime
    state: BatchState
    counts: Counts
    finished: tuple[tuple[int, int], ...] = ()
    reopened: tuple[tuple[int, int], ...] = ()
    state_reason: str = ""
    delivery: DeliveryCounts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadEvent:
    """An event of any batch, whose content nobody has looked at yet.

    Attributes:
        is_settled: No event can come before it any more.
        is_early: The one before it in its batch has a later place, because their transactions
            overlapped.
        is_cut_off: The one before it in its batch is not kept any more.
        content: The store's business; ``EventStore.read`` makes an event of it.
    """

    place: FeedPlace
    batch_key: int
    sequence: int
    is_settled: bool
    is_early: bool
    is_cut_off: bool
    content: tuple[Any, ...]


class EventStore(Protocol):
    """The events of all batches, in one order."""

    async def newest(self) -> FeedPlace:
        """Returns a place after every event that could be read before now.

        What is written from now on comes after it.
        """
        ...

    async def after(self, place: FeedPlace, *, limit: int) -> Sequence[UnreadEvent]:
        """Returns the events after a place, in order; those that are settled come first.

        No event comes before a settled one any more, so it is safe to go on after it. Before one
        that is not settled, another one can still be committed.
        """
        ...

    async def of_batch(self, batch_key: int, *, after: int, limit: int) -> Sequence[UnreadEvent]:
        """Returns the events of one batch after a sequence, in order."""
        ...

    async def newest_of(self, batch_keys: Sequence[int]) -> Mapping[int, int]:
        """Returns the sequence of the newest event of each batch; deleted ones are left out."""
        ...

    def read(self, unread: UnreadEvent) -> Event:
        """Returns the event with what it tells."""
        ...
