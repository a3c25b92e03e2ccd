"""What a user's overrides make of a job's selection: the documents' preference-based filtering.

``categories`` chooses among the categories, ``tags`` and ``custom_filters`` narrow them,
``sort_by`` and ``sort_order`` say what comes first, ``item_limit`` bounds how many there are. All
other overrides (``tone``, ``length``, ``focus_areas`` and what a template knows of its own) are for
the template.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from batchwork_server.domain.json_object import child_path, quoted, whole_number
from batchwork_server.domain.selection import (
    MAX_ITEMS,
    Order,
    Selection,
    field_of_filter,
    is_field_name,
    parse_filters,
)
from batchwork_server.errors import Violation

SORT_ORDERS = ("asc", "desc")

SELECTING_OVERRIDES = ("tags", "custom_filters", "sort_by", "sort_order", "item_limit")
"""The overrides on which the selection from a category depends."""


def chosen_categories(overrides: Mapping[str, Any], categories: Sequence[str]) -> tuple[str, ...]:
    """Returns the categories that a user's ``categories`` names, in the order of the job's.

    A user who names none of them has all: the names may be topics for the template.
    """
    wanted = overrides.get("categories")
    names = set(wanted) if isinstance(wanted, list) and all(map(_is_text, wanted)) else set()
    chosen = tuple(category for category in categories if category in names)
    return chosen or tuple(categories)


def personal_selection(
    base: Selection,
    overrides: Mapping[str, Any],
    *,
    fields: Collection[str],
    now: datetime,
    path: str = "template_overrides",
) -> tuple[Selection, list[Violation]]:
    """Returns what a user gets of a category: what the job selects, and their overrides allow.

    Args:
        base: What the job selects.
        overrides: JSON values.
        fields: Which fields the items of the category have. A filter or an order by another one
            is not meant for this category and counts for nothing.
        now: From where ``active_last_days`` counts back.
        path: Where the overrides stand.

    Returns:
        The selection by all that is right, and a violation for each override that is not.
    """
    violations: list[Violation] = []
    filters = _filters(overrides, path=path, violations=violations)
    narrowed, wrong = parse_filters(
        {name: value for name, value in filters.items() if _is_meant(name, fields)},
        category=base.category,
        limit=min(base.limit, _item_limit(overrides, path=path, violations=violations)),
        now=now,
        path=child_path(path, "custom_filters"),
    )
    order = _order(overrides, path=path, violations=violations)
    if order is None or order.field not in fields:
        order = base.order
    conditions = (*base.conditions, *narrowed.conditions)
    return replace(narrowed, conditions=conditions, order=order), [*violations, *wrong]


def item_limit_of(overrides: Mapping[str, Any]) -> int:
    """Returns how many things a user wants at most; what is no limit bounds nothing."""
    return _item_limit(overrides, path="", violations=[])


def _filters(
    overrides: Mapping[str, Any], *, path: str, violations: list[Violation]
) -> dict[str, Any]:
    filters = overrides.get("custom_filters") or {}
    if not isinstance(filters, Mapping):
        violations.append(
            Violation(child_path(path, "custom_filters"), f"{quoted(filters)} is no JSON object.")
        )
        filters = {}
    tags = overrides.get("tags")
    return {**filters, "tags": tags} if tags else dict(filters)


def _is_meant(name: str, fields: Collection[str]) -> bool:
    field = field_of_filter(name)
    return field is None or field in fields or name in fields


def _item_limit(overrides: Mapping[str, Any], *, path: str, violations: list[Violation]) -> int:
    value = overrides.get("item_limit")
    if value is None:
        return MAX_ITEMS
    number = whole_number(value)
    if number is not None and 1 <= number <= MAX_ITEMS:
        return number
    violations.append(
        Violation(
            child_path(path, "item_limit"),
            f"{quoted(value)} is not a whole number from 1 to {MAX_ITEMS}.",
        )
    )
    return MAX_ITEMS


def _order(overrides: Mapping[str, Any], *, path: str, violations: list[Violation]) -> Order | None:
    field, direction = overrides.get("sort_by"), overrides.get("sort_order")
    if direction is not None and direction not in SORT_ORDERS:
        violations.append(
            Violation(
                child_path(path, "sort_order"), f"{quoted(direction)} is neither asc nor desc."
            )
        )
    if field is None:
        return None
    if not is_field_name(field):
        violations.append(
            Violation(child_path(path, "sort_by"), f"{quoted(field)} is not the name of a field.")
        )
        return None
    return Order(field=field, descending=direction == "desc")


def _is_text(value: object) -> bool:
    return isinstance(value, str)
