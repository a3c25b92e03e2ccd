"""Which attempt each worker has in hand, and which of them do not end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from batchwork_server.domain.item import PendingItem
from batchwork_server.engine.feed import ChunkRun

GRACE = 5
"""How many looks an attempt may outlast after the one that finds it cancelled.

Looks, and not seconds: a clock goes on while the event loop is held up or the process is frozen,
and an attempt that could not even be told to stop has refused nothing.
"""


@dataclass(slots=True, eq=False)
class Hand:
    """What one worker has in hand.

    Attributes:
        worker: The task that works.
        held: The attempt that goes on; none between two.
        since: When the worker took it, by the monotonic clock, in seconds.
        given_up: Its outcome was decided without the worker; what comes of it counts no more.
        cancelled: The deadline that was found to be over at the last look.
        looks: How many looks have found that one over.
    """

    worker: asyncio.Task[None] | None = None
    held: tuple[ChunkRun, PendingItem] | None = None
    since: float = 0.0
    given_up: bool = False
    cancelled: asyncio.Timeout | None = None
    looks: int = 0


class Hands:
    """The hands of all workers that were not given up."""

    def __init__(self) -> None:
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
        """Looks at all attempts, and gives up and returns those that do not end.

        They were cancelled, for their time or because their batch was stopped, and have gone on.
        """
        return [self._give_up(hand) for hand in list(self._hands) if self._is_overdue(hand)]

    def give_up_all(self) -> list[Hand]:
        """Gives up every attempt that goes on, and returns them."""
        return [self._give_up(hand) for hand in list(self._hands) if hand.held is not None]

    def _give_up(self, hand: Hand) -> Hand:
        hand.given_up = True
        self._hands.discard(hand)
        return hand

    def _is_overdue(self, hand: Hand) -> bool:
        deadline = _expired_deadline(hand)
        if deadline is not hand.cancelled:
            hand.cancelled, hand.looks = deadline, 0
        if deadline is None:
            return False
        hand.looks += 1
        return hand.looks > GRACE


def _expired_deadline(hand: Hand) -> asyncio.Timeout | None:
    if hand.held is None:
        return None
    run, _ = hand.held
    deadline = run.running.deadlines.get(hand.worker)
    return deadline if deadline is not None and deadline.expired() else None
