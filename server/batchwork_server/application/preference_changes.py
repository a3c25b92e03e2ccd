"""The changes of preferences: listing and watching them, from any of them on.

The table is the source, and memory only spares looks at it: a watcher looks when a change was made
here, and once a second for those that were made elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from batchwork_server.application.told import HEARTBEAT
from batchwork_server.clock import Clock
from batchwork_server.domain.preference_groups import PreferenceChange
from batchwork_server.errors import QuotaExceeded, ResumeTokenExpired, ShuttingDown
from batchwork_server.store.store import Store

MOST_WATCHERS = 1000
"""How many watches of changes a server holds at once; each of them looks by itself."""

_LOOK = timedelta(seconds=1)
_PAGE = 256


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


class PreferenceChanges:
    """The use cases behind ``ListPreferenceChanges`` and ``WatchPreferenceChanges``.

    Args:
        max_watchers: How many streams this server holds at once.
    """

    def __init__(self, *, store: Store, clock: Clock, max_watchers: int) -> None:
        self._store = store
        self._clock = clock
        self._max_watchers = min(max_watchers, MOST_WATCHERS)
        self._watchers = 0
        self._closing = False
        self._news: dict[str, asyncio.Event] = {}

    def announce(self, tenant_id: str) -> None:
        """Tells those who watch a tenant that there are changes."""
        news = self._news.pop(tenant_id, None)
        if news is not None:
            news.set()

    def close(self) -> None:
        """Tells every watcher that the server is going away, and ends their streams."""
        self._closing = True
        for tenant_id in list(self._news):
            self.announce(tenant_id)

    async def list_preference_changes(
        self, *, tenant_id: str, after: int | None, page_size: int
    ) -> tuple[Sequence[PreferenceChange], int]:
        """Returns a page of changes, and the number of the newest there is.

        Args:
            after: None means from the oldest one that is kept.

        Raises:
            ResumeTokenExpired: changes after it are not kept any more, or it is yet to come.
        """
        if after is None:
            found = await self._store.preference_changes.after(
                0, tenant_id=tenant_id, limit=page_size
            )
        else:
            found = await self._after(after, tenant_id=tenant_id, limit=page_size)
        newest = await self._store.preference_changes.newest(tenant_id=tenant_id)
        return found, newest

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
        with self._admitted():
            if after is None:
                after = await self._store.preference_changes.newest(tenant_id=tenant_id)
            found = await self._after(after, tenant_id=tenant_id, limit=_PAGE)
            yield ToldChange(kind="HEARTBEAT", after=after)
            spoke_at = self._clock.monotonic()
            while not self._closing:
                news = self._news.setdefault(tenant_id, asyncio.Event())
                found = found or await self._after(after, tenant_id=tenant_id, limit=_PAGE)
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
    def _admitted(self) -> Iterator[None]:
        if self._closing:
            raise _shutting_down()
        if self._watchers >= self._max_watchers:
            raise QuotaExceeded(
                f"This server has {self._watchers} watchers of changes, and no room for more.",
                reason="QUOTA_WATCHERS",
                subject="watchers",
                retry_after=timedelta(seconds=5),
            )
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1

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


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("The server shuts down; watch again, here or elsewhere.")
