"""Notifications: who was told of batches, and who is to be."""

from __future__ import annotations

from collections.abc import Sequence

from batchwork_server.domain.filters import NotificationFilter
from batchwork_server.domain.notification import Notification
from batchwork_server.store.store import Store


class Outbox:
    """Shows what the outbox holds; the engine sends it."""

    def __init__(self, *, store: Store) -> None:
        self._store = store

    async def list_notifications(
        self, matching: NotificationFilter, *, page_size: int, after: int | None
    ) -> tuple[Sequence[Notification], int | None]:
        """Returns a page, newest first, and where the next one starts."""
        return await self._store.notifications.list(matching, page_size=page_size, after=after)
