"""The use case of items that are checked against a schema: how good data is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from batchwork_server.clock import Clock
from batchwork_server.domain.item_schema import ItemsReport
from batchwork_server.domain.json_object import listed, quoted
from batchwork_server.domain.selection import MAX_ITEMS, Selection, parse_filters
from batchwork_server.errors import InvalidArgument, Violation
from batchwork_server.ports import CategoryRepository, ItemSchemas, OpenSchema

PAGE_ITEMS = 100
"""An item may have 1 MiB, and a page is in memory as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedItems:
    """Which items of a category are meant.

    Attributes:
        filters: JSON values.
    """

    category: str
    filters: Mapping[str, Any] = field(default_factory=dict)
    limit: int = MAX_ITEMS


class ItemValidation:
    """Checks items against schemas; it changes nothing."""

    def __init__(
        self, *, categories: CategoryRepository, schemas: ItemSchemas, clock: Clock
    ) -> None:
        self._categories = categories
        self._schemas = schemas
        self._clock = clock

    async def validate_items(
        self,
        items: Sequence[tuple[str, str]] | WantedItems,
        *,
        schema_json: str,
        tenant_id: str,
        most_listed: int,
    ) -> ItemsReport:
        """Returns what does not meet the schema.

        Args:
            items: Ids and JSON texts, or which items of a category.
            schema_json: A JSON Schema.
            tenant_id: Whose category it is.
            most_listed: So many invalid items are listed.

        Raises:
            InvalidArgument: with everything that is wrong with the schema and the selection, or
                because the schema takes too long.
            Unavailable: the source of the category is away.
        """
        selection = None
        if isinstance(items, WantedItems):
            selection = await self._selection(items, tenant_id=tenant_id)
        report = ItemsReport(most_listed=most_listed)
        async with self._schemas.open(schema_json) as schema:
            if selection is not None:
                await self._check_category(schema, selection, report, tenant_id=tenant_id)
            elif not isinstance(items, WantedItems):
                for start in range(0, len(items), PAGE_ITEMS):
                    report.add(await schema.check(items[start : start + PAGE_ITEMS]))
        return report

    async def _check_category(
        self, schema: OpenSchema, selection: Selection, report: ItemsReport, *, tenant_id: str
    ) -> None:
        """Reads page by page, so that a category of any size takes the memory of one page."""
        after: int | None = None
        left = selection.limit
        while left > 0:
            page, after = await self._categories.page(
                selection, tenant_id=tenant_id, page_size=min(PAGE_ITEMS, left), after=after
            )
            report.add(await schema.check([(item.item_id, item.data_json) for item in page]))
            left -= len(page)
            if after is None:
                return

    async def _selection(self, wanted: WantedItems, *, tenant_id: str) -> Selection:
        selection, violations = parse_filters(
            wanted.filters,
            category=wanted.category,
            limit=wanted.limit,
            now=self._clock.now(),
        )
        if not await self._categories.exists(wanted.category, tenant_id=tenant_id):
            existing = await self._categories.categories(tenant_id=tenant_id)
            message = (
                f"There is no category {quoted(wanted.category)}; there are {listed(existing)}."
            )
            violations.append(Violation("category", message, "UNKNOWN_CATEGORY"))
        if violations:
            raise InvalidArgument(violations)
        return selection
