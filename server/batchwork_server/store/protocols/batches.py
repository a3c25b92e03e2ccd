"""Batches and their items."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from batchwork_server.domain.batch import Batch, BatchRequest
from batchwork_server.domain.filters import BatchFilter, ItemFilter
from batchwork_server.domain.item import Item, NewItem
from batchwork_server.domain.waiting import OpenWork
from batchwork_server.store.protocols.chunks import NewChunk
from batchwork_server.store.protocols.events import Event
from batchwork_server.store.protocols.transaction import Transaction


class BatchStore(Protocol):
    """Batches and their items, from the callers' side."""

    async def insert(
        self,
        tx: Transaction,
        *,
        tenant_id: str,
        batch_id: str,
        request: BatchRequest,
        items: Sequence[NewItem],
        chunks: Sequence[NewChunk],
        now: datetime,
        expire_time: datetime | None = None,
        is_draft: bool = False,
        is_deferred: bool = False,
    ) -> Batch:
        """Stores a batch with its items, its chunks and its first event.

        Nothing of a draft is handed out, nor of a batch that is deferred: it is PAUSED until its
        users are validated.

        Raises:
            AlreadyExists: the tenant has a batch with this id.
        """
        ...

    async def get(self, batch_id: str, *, tenant_id: str | None) -> Batch | None:
        """Returns a batch; without a tenant, of any tenant."""
        ...

    async def get_by_key(self, batch_key: int) -> Batch | None: ...

    async def list(
        self, matching: BatchFilter, *, page_size: int, after: int | None, skip: int = 0
    ) -> tuple[Sequence[Batch], int | None]:
        """Returns a page, newest first, and where the next one starts."""
        ...

    async def open_work(self, batch_key: int, *, now: datetime) -> OpenWork:
        """Returns what of a batch no worker has."""
        ...

    async def get_item(self, batch: Batch, item_id: str) -> Item | None:
        """Returns an item with its attempts."""
        ...

    async def list_items(
        self, batch: Batch, matching: ItemFilter, *, page_size: int, after: int | None
    ) -> tuple[Sequence[Item], int | None]:
        """Returns a page in the order of the batch, and where the next one starts.

        A page ends early when it holds about 3 MiB.
        """
        ...

    async def events(self, batch_key: int, *, after: int, limit: int) -> Sequence[Event]:
        """Returns the events after a sequence, in order."""
        ...

    async def finished_items(
        self, batch: Batch, ranges: Sequence[tuple[int, int]], *, only_failed: bool
    ) -> Sequence[Item]:
        """Returns the items of an event's ranges that are final, without their data."""
        ...
