"""The overrides of a template whose names the service knows; it keeps the others as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from batchwork_server.domain.json_object import child_path, is_line, quoted, whole_number
from batchwork_server.domain.personal import SORT_ORDERS
from batchwork_server.domain.selection import (
    MAX_ITEMS,
    field_of_filter,
    is_field_name,
    parse_filters,
)
from batchwork_server.errors import Violation

MOST_LINES = 100
LONGEST_LINE = 128

_SOME_TIME = datetime(2000, 1, 1, tzinfo=UTC)  # filters that count days need one; any will do here


def check_known_overrides(overrides: Mapping[str, Any], *, path: str) -> list[Violation]:
    """Returns what is wrong with the overrides that have a meaning of their own.

    ``tone`` and ``length`` are text of one line; ``categories``, ``tags`` and ``focus_areas`` are
    lists of such text; ``sort_by`` is the name of a field and ``sort_order`` is ``asc`` or
    ``desc``; ``item_limit`` is a whole number of 1 to a million; ``custom_filters`` are filters as
    a job has them. Null counts as absent.
    """
    violations: list[Violation] = []
    for name, check in _CHECKS.items():
        if overrides.get(name) is not None:
            violations += check(overrides[name], child_path(path, name))
    return violations


def fields_of_overrides(overrides: Mapping[str, Any]) -> frozenset[str]:
    """Returns the fields of an item that the overrides filter or sort by."""
    filters = overrides.get("custom_filters")
    names = set(filters) if isinstance(filters, Mapping) else set()
    if overrides.get("tags"):
        names.add("tags")
    fields = {field_of_filter(name) for name in names}
    if is_field_name(overrides.get("sort_by")):
        fields.add(overrides["sort_by"])
    return frozenset(field for field in fields if field is not None)


def _line(value: Any, path: str) -> Iterator[Violation]:
    if not is_line(value, longest=LONGEST_LINE):
        yield Violation(
            path, f"{quoted(value)} is not text of one line with 1 to {LONGEST_LINE} characters."
        )


def _lines(value: Any, path: str) -> Iterator[Violation]:
    if not isinstance(value, list) or len(value) > MOST_LINES:
        yield Violation(path, f"{quoted(value)}: write a list of at most {MOST_LINES} texts.")
        return
    for index, line in enumerate(value):
        yield from _line(line, f"{path}[{index}]")


def _field(value: Any, path: str) -> Iterator[Violation]:
    if not is_field_name(value):
        yield Violation(path, f"{quoted(value)} is not the name of a field.")


def _sort_order(value: Any, path: str) -> Iterator[Violation]:
    if value not in SORT_ORDERS:
        yield Violation(path, f'{quoted(value)} is no order; write "asc" or "desc".')


def _item_limit(value: Any, path: str) -> Iterator[Violation]:
    limit = whole_number(value)
    if limit is None or not 1 <= limit <= MAX_ITEMS:
        yield Violation(
            path, f"{quoted(value)} is no whole number in the range of 1 to {MAX_ITEMS}."
        )


def _custom_filters(value: Any, path: str) -> Sequence[Violation]:
    if not isinstance(value, Mapping):
        return [Violation(path, f"{quoted(value)} is not an object of filters.")]
    _, violations = parse_filters(value, category="", limit=MAX_ITEMS, now=_SOME_TIME, path=path)
    return violations


_Check = Callable[[Any, str], Iterator[Violation] | Sequence[Violation]]

_CHECKS: Mapping[str, _Check] = {
    "tone": _line,
    "length": _line,
    "categories": _lines,
    "tags": _lines,
    "focus_areas": _lines,
    "sort_by": _field,
    "sort_order": _sort_order,
    "item_limit": _item_limit,
    "custom_filters": _custom_filters,
}

KNOWN_OVERRIDES = tuple(_CHECKS)
"""The overrides that mean the same with every template."""
