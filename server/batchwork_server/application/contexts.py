"""Contexts: what became of batches, worked out from what is stored."""

from __future__ import annotations

from collections.abc import Sequence

from batchwork_server.application.batches import Batches
from batchwork_server.domain.batch import Batch
from batchwork_server.domain.context import (
    Context,
    ContextItems,
    is_by_categories,
    merged_validation,
    validation_of,
)
from batchwork_server.store.store import Store


class Contexts:
    """Shows contexts; it changes nothing."""

    def __init__(self, *, store: Store, batches: Batches) -> None:
        self._store = store
        self._batches = batches

    async def get_context(
        self,
        batch_ids: Sequence[str],
        *,
        tenant_id: str | None,
        page_size: int,
        after: tuple[int, int] | None = None,
    ) -> Context:
        """Returns the context of batches, merged, with a page of its lists.

        Args:
            batch_ids: Each once.
            after: Which of the batches, and the place in it, after which the page starts.

        Raises:
            NotFound: one of the batches does not exist, or is not the caller's to see.
        """
        batches = [
            await self._batches.get_batch(batch_id, tenant_id=tenant_id) for batch_id in batch_ids
        ]
        items, following = await self._page(batches, page_size=page_size, after=after)
        return Context(
            batches=batches,
            validation=merged_validation(map(validation_of, batches)),
            items=items,
            following=following,
        )

    async def _page(
        self, batches: Sequence[Batch], *, page_size: int, after: tuple[int, int] | None
    ) -> tuple[ContextItems, tuple[int, int] | None]:
        number, place = after or (0, -1)
        items, left = ContextItems(), page_size
        while left and number < len(batches):
            batch = batches[number]
            entries, last = await self._store.contexts.entries(batch, after=place, limit=left)
            found = ContextItems.of(entries, by_categories=is_by_categories(batch))
            if place == -1 and _holds_categories(batch):
                found += ContextItems(valid_categories=batch.request.categories)
            items += found.without(await self._listed_before(batches[:number], found))
            left -= len(entries)
            if last is None:
                number, place = number + 1, -1
            else:
                place = last
        return items, (number, place) if number < len(batches) else None

    async def _listed_before(self, earlier: Sequence[Batch], found: ContextItems) -> ContextItems:
        """Returns what of the lists the batches before have listed already."""
        whole = [batch.request.categories for batch in earlier if _holds_categories(batch)]
        categories = tuple(name for names in whole for name in names)
        listed = await self._store.contexts.listed_in(earlier, found)
        return listed + ContextItems(valid_categories=categories)


def _holds_categories(batch: Batch) -> bool:
    """Tells whether whole categories went into one item; they are valid as they are."""
    return is_by_categories(batch) and batch.request.batch_type == "BATCH_CATEGORIES"
