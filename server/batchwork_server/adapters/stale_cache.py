"""Keeps what a source said: for a while instead of asking, and longer while the source is away."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

from batchwork_server.clock import Clock
from batchwork_server.domain.config_source import Answer
from batchwork_server.errors import SourceUnavailable

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class _Entry(Generic[_Value]):
    value: _Value
    read_at: float


class StaleCache(Generic[_Value]):
    """Answers by key. Whoever asks for what is being asked waits for the same answer.

    Args:
        ttl: How long an answer is told without asking; 0 asks each time.
        most: How many answers are kept; those that nobody asked for longest go first.
    """

    def __init__(self, *, ttl: timedelta, most: int, clock: Clock) -> None:
        self._ttl = ttl.total_seconds()
        self._most = most
        self._clock = clock
        self._entries: OrderedDict[Hashable, _Entry[_Value]] = OrderedDict()
        self._flights: dict[Hashable, asyncio.Task[_Value]] = {}

    async def get(
        self,
        key: Hashable,
        read: Callable[[], Awaitable[_Value]],
        *,
        max_age: timedelta | None = None,
    ) -> Answer[_Value]:
        """Returns what is kept and young enough, else what ``read`` returns.

        Args:
            max_age: Asks for an answer that is younger than the ``ttl`` demands.

        Raises:
            SourceUnavailable: nothing was read, and nothing is kept.
        """
        longest = self._ttl if max_age is None else min(self._ttl, max_age.total_seconds())
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
            if self._age(entry) < longest:
                return self._answer(entry, is_stale=False)
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._fly(key, read))
            flight.add_done_callback(_hear)
            self._flights[key] = flight
        try:
            # Who gives up waiting must not end the flight for the others.
            value = await asyncio.shield(flight)
        except SourceUnavailable:
            entry = self._entries.get(key)
            if entry is None:
                raise
            return self._answer(entry, is_stale=True)
        return Answer(value=value)

    def put(self, key: Hashable, value: _Value) -> None:
        """Keeps what was read in another way."""
        self._entries[key] = _Entry(value, self._clock.monotonic())
        self._entries.move_to_end(key)
        while len(self._entries) > self._most:
            self._entries.popitem(last=False)

    async def _fly(self, key: Hashable, read: Callable[[], Awaitable[_Value]]) -> _Value:
        try:
            value = await read()
        finally:
            del self._flights[key]
        self.put(key, value)
        return value

    def _age(self, entry: _Entry[_Value]) -> float:
        return self._clock.monotonic() - entry.read_at

    def _answer(self, entry: _Entry[_Value], *, is_stale: bool) -> Answer[_Value]:
        return Answer(value=entry.value, age=timedelta(seconds=self._age(entry)), is_stale=is_stale)


def _hear(flight: asyncio.Task[_Value]) -> None:
    """Takes note of an error that nobody waits for any more."""
    if not flight.cancelled():
        flight.exception()
