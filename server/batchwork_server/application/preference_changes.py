"""The changes of preferences: listing and watching them, from any of them on.

The table is the source, and memory only spares looks at it. Of those who watch a tenant one looks
for all, when a change was made here, and once a second for those that were made elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from batchwork_server.application.told import HEARTBEAT
from batchwork_server.application.watchers import Watchers, no_room_for_more
from batchwork_server.clock import Clock
from batchwork_server.domain.preference_groups import PreferenceChange
from batchwork_server.errors import ResumeTokenExpired, ShuttingDown
from batchwork_server.store.store import Store

MOST_WATCHERS = 1000
"""How many watches of changes a server holds at once: each one wakes every second."""

_LOOK = timedelta(seconds=1)
_YOUNG = timedelta(milliseconds=900)
"""A look that is no older serves everybody who would look; a wait may end a little early."""

_PAGE = 256
_MOST_REMEMBERED = 4 * _PAGE


ChangePlace = tuple[str, int]
"""The tenant and the number of a change after which a page starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldChange:
    """One message of a watch.

    Attributes:
        kind: ``CHANGE``, ``HEARTBEAT`` or ``GOING_AWAY``.
        after: The number after which to go on.
        change: Only of a CHANGE.
    """

    kind: str
    after: int
    change: PreferenceChange | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedChanges:
    """A page of changes.

    Attributes:
        newest: The number of the newest change there is; 0 when there was none, and of all tenants,
            who count each for themselves.
        last: After which change the next page starts; None when this was the last one.
    """

    changes: Sequence[PreferenceChange]
    newest: int = 0
    last: ChangePlace | None = None


class _Tail:
    """The newest changes of a tenant, read once for everybody who watches it."""

    def __init__(self, *, store: Store, clock: Clock, tenant_id: str) -> None:
        self._store = store
        self._clock = clock
        self._tenant_id = tenant_id
        self._turn = asyncio.Lock()
        self._changes: list[PreferenceChange] = []  # without a gap; the last is the newest
        self._newest: int | None = None
        self._looked_at: float | None = None
        self.news = asyncio.Event()
        self.watchers = 0

    def tell(self) -> None:
        """Wakes who watches, and lets the first of them look."""
        self._looked_at = None
        self._wake()

    async def after(self, sequence: int) -> Sequence[PreferenceChange] | None:
        """Returns the changes after one; none when it is too far behind to remember them."""
        await self._look()
        newest = self._newest or 0
        if sequence >= newest:
            return ()
        behind = newest - sequence
        if behind > len(self._changes):
            return None
        first = len(self._changes) - behind
        return self._changes[first : first + _PAGE]

    async def _look(self) -> None:
        async with self._turn:
            now = self._clock.monotonic()
            if self._looked_at is not None and now - self._looked_at < _YOUNG.total_seconds():
                return
            self._looked_at = now
            stored = self._store.preference_changes
            if self._newest is None:
                self._newest = await stored.newest(tenant_id=self._tenant_id)
                return
            found = await stored.after(self._newest, tenant_id=self._tenant_id, limit=_PAGE)
            if not found:
                return
            before = self._changes if found[0].sequence == self._newest + 1 else []
            self._changes = [*before, *found][-_MOST_REMEMBERED:]
            self._newest = found[-1].sequence
            if len(found) == _PAGE:
                self._looked_at = None  # there may be more
            self._wake()

    def _wake(self) -> None:
        news, self.news = self.news, asyncio.Event()
        news.set()


class PreferenceChanges:
    """The use cases behind ``ListPreferenceChanges`` and ``WatchPreferenceChanges``.

    Args:
        watchers: Counts the streams, and those of others.
    """

    def __init__(self, *, store: Store, clock: Clock, watchers: Watchers) -> None:
        self._store = store
        self._clock = clock
        self._watchers = watchers
        self._closing = False
        self._tails: dict[str, _Tail] = {}

    def announce(self, tenant_id: str) -> None:
        """Tells those who watch a tenant that there are changes."""
        tail = self._tails.get(tenant_id)
        if tail is not None:
            tail.tell()

    def close(self) -> None:
        """Tells every watcher that the server is going away, and ends their streams."""
        self._closing = True
        for tenant_id in list(self._tails):
            self.announce(tenant_id)

    async def list_preference_changes(
        self, *, tenant_id: str, after: int | None, page_size: int
    ) -> ListedChanges:
        """Returns a page of the changes of a tenant.

        Args:
            after: None means from the oldest one that is kept.

        Raises:
            ResumeTokenExpired: changes after it are not kept any more, or it is yet to come.
        """
        if after is None:
            found = await self._store.preference_changes.after(
                0, tenant_id=tenant_id, limit=page_size + 1
            )
        else:
            found = await self._after(after, tenant_id=tenant_id, limit=page_size + 1)
        newest = await self._store.preference_changes.newest(tenant_id=tenant_id)
        return _page_of(found, page_size=page_size, newest=newest)

    async def list_changes_of_all(
        self, *, after: ChangePlace | None, page_size: int
    ) -> ListedChanges:
        """Returns a page of the changes of all tenants, by tenant and in their order.

        Args:
            after: None means from the oldest ones that are kept.

        Raises:
            ResumeTokenExpired: changes after it are not kept any more, or it is yet to come.
        """
        found: list[PreferenceChange] = []
        passed, limit = "", page_size + 1
        if after is not None:
            passed, sequence = after
            found += await self._after(sequence, tenant_id=passed, limit=limit)
        if len(found) < limit:
            changes = self._store.preference_changes
            found += await changes.after_tenant(passed, limit=limit - len(found))
        return _page_of(found, page_size=page_size)

    async def watch_preference_changes(
        self, *, tenant_id: str, after: int | None
    ) -> AsyncGenerator[ToldChange, None]:
        """Yields the changes of a tenant as they happen, until the caller leaves.

        Args:
            after: None means from now on.

        Raises:
            QuotaExceeded: there are too many watchers.
            ResumeTokenExpired: changes after it are not kept any more, or it is yet to come.
            ShuttingDown: after GOING_AWAY.
        """
        with self._admitted(tenant_id) as tail:
            if after is None:
                after = await self._store.preference_changes.newest(tenant_id=tenant_id)
            found = await self._after(after, tenant_id=tenant_id, limit=_PAGE)
            yield ToldChange(kind="HEARTBEAT", after=after)
            spoke_at = self._clock.monotonic()
            while not self._closing:
                news = tail.news
                found = found or await self._next(after, tail, tenant_id=tenant_id)
                for change in found:
                    after = change.sequence
                    yield ToldChange(kind="CHANGE", after=after, change=change)
                if found:
                    found, spoke_at = (), self._clock.monotonic()
                    continue
                await self._clock.wait(news, _LOOK)
                if self._clock.monotonic() - spoke_at >= HEARTBEAT.total_seconds():
                    spoke_at = self._clock.monotonic()
                    yield ToldChange(kind="HEARTBEAT", after=after)
            yield ToldChange(kind="GOING_AWAY", after=after)
            raise _shutting_down()

    @contextmanager
    def _admitted(self, tenant_id: str) -> Iterator[_Tail]:
        if self._closing:
            raise _shutting_down()
        watching = sum(tail.watchers for tail in self._tails.values())
        if watching >= MOST_WATCHERS:
            raise no_room_for_more(f"{watching} watchers of changes")
        with self._watchers.admitted(), self._joined(tenant_id) as tail:
            yield tail

    @contextmanager
    def _joined(self, tenant_id: str) -> Iterator[_Tail]:
        tail = self._tails.get(tenant_id)
        if tail is None:
            tail = _Tail(store=self._store, clock=self._clock, tenant_id=tenant_id)
            self._tails[tenant_id] = tail
        tail.watchers += 1
        try:
            yield tail
        finally:
            tail.watchers -= 1
            if not tail.watchers:
                del self._tails[tenant_id]

    async def _next(self, after: int, tail: _Tail, *, tenant_id: str) -> Sequence[PreferenceChange]:
        found = await tail.after(after)
        if found is None:
            return await self._after(after, tenant_id=tenant_id, limit=_PAGE)
        return found

    async def _after(
        self, sequence: int, *, tenant_id: str, limit: int
    ) -> Sequence[PreferenceChange]:
        changes = self._store.preference_changes
        found = await changes.after(sequence, tenant_id=tenant_id, limit=limit)
        if found and found[0].sequence == sequence + 1:
            return found
        if not found:
            newest = await changes.newest(tenant_id=tenant_id)
            if newest == sequence:
                return found
            if newest < sequence:
                raise ResumeTokenExpired(
                    f"There is no change {sequence} yet; the newest is {newest}. Read the "
                    "preferences again and go on after that."
                )
            # What was committed between the two looks is there by now, unless it is forgotten.
            found = await changes.after(sequence, tenant_id=tenant_id, limit=limit)
            if found and found[0].sequence == sequence + 1:
                return found
        raise ResumeTokenExpired(
            f"The changes after {sequence} are not kept any more; read the preferences again and "
            "go on after the newest change."
        )


def _page_of(
    found: Sequence[PreferenceChange], *, page_size: int, newest: int = 0
) -> ListedChanges:
    """Returns the page of what was found: one more than it may have, when there are so many."""
    page, last = found[:page_size], None
    if len(found) > page_size:
        last = (page[-1].tenant_id, page[-1].sequence)
    return ListedChanges(changes=page, newest=newest, last=last)


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("The server shuts down; watch again, here or elsewhere.")
