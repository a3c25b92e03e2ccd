"""Which attempt each worker has in hand, and since when."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from batchwork_server.clock import Clock
from batchwork_server.domain.item import PendingItem
from batchwork_server.engine.feed import ChunkRun

GRACE = timedelta(seconds=5)
"""How long an attempt may go on after it was cancelled for its time."""


@dataclass(slots=True, eq=False)
class Hand:
    """What one worker has in hand.

    Attributes:
        worker: The task that works.
        held: The attempt that goes on; none between two.
        since: When it began, by the monotonic clock, in seconds.
        given_up: Its outcome was decided without the worker; what comes of it counts no more.
    """

    worker: asyncio.Task[None] | None = None
    held: tuple[ChunkRun, PendingItem] | None = None
    since: float = 0.0
    given_up: bool = False


class Hands:
    """The hands of all workers that were not given up.

    Args:
        isolates: Whether items that may bring their process down have one of their own.
    """

    def __init__(self, clock: Clock, *, isolates: bool) -> None:
        self._clock = clock
        self._isolates = isolates
        self._hands: set[Hand] = set()

    def open(self) -> Hand:
        """Returns the empty hand of a worker that begins."""
        hand = Hand(worker=asyncio.current_task())
        self._hands.add(hand)
        return hand

    def close(self, hand: Hand) -> None:
        """Forgets the hand of a worker that ends."""
        self._hands.discard(hand)

    def give_up_overdue(self) -> list[Hand]:
        """Gives up the attempts that did not end when they were cancelled, and returns them."""
        now = self._clock.monotonic()
        return [self._give_up(hand) for hand in list(self._hands) if self._is_overdue(hand, now)]

    def give_up_all(self) -> list[Hand]:
        """Gives up every attempt that goes on, and returns them."""
        return [self._give_up(hand) for hand in list(self._hands) if hand.held is not None]

    def _give_up(self, hand: Hand) -> Hand:
        hand.given_up = True
        self._hands.discard(hand)
        return hand

    def _is_overdue(self, hand: Hand, now: float) -> bool:
        if hand.held is None:
            return False
        run, _ = hand.held
        if run.running.processes or (run.isolated and self._isolates):
            return False  # it may wait for a process, and ends with that
        limit = run.running.batch.request.options.item_timeout + GRACE
        return now - hand.since > limit.total_seconds()
