"""Counts how often watchers go to the database."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from batchwork_server.store.sql_store import SqlStore


class ReadsCounted:
    """Counts the reads that watchers could make.

    Attributes:
        by_watchers: By the name of the method.
        events_read: The batch and the sequence of each event whose content was read.
    """

    def __init__(self, store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.by_watchers: Counter[str] = Counter()
        self.events_read: list[tuple[int, int]] = []
        for room, name in (
            ("events", "after"),
            ("events", "of_batch"),
            ("batches", "get_by_key"),
            ("batches", "finished_items"),
            ("batches", "list"),
        ):
            self._count(store, room, name, monkeypatch)
        read = store.events.read

        def noted(unread: Any) -> Any:
            self.events_read.append((unread.batch_key, unread.sequence))
            return read(unread)

        monkeypatch.setattr(store.events, "read", noted)

    def reset(self) -> None:
        self.by_watchers.clear()

    def _count(
        self, store: SqlStore, room: str, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reading = getattr(getattr(store, room), name)

        async def counted(*args: Any, **named: Any) -> Any:
            self.by_watchers[f"{room}.{name}"] += 1
            return await reading(*args, **named)

        monkeypatch.setattr(getattr(store, room), name, counted)
