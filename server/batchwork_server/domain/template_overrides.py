"""The overrides of a template whose names the service knows; it keeps the others as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from batchwork_server.domain.json_object import child_path, is_line, quoted, whole_number
from batchwork_server.domain.selection import parse_filters
from batchwork_server.errors import Violation

LARGEST_ITEM_LIMIT = 1_000_000
MOST_LINES = 100
LONGEST_LINE = 128

_SORT_ORDERS = ("asc", "desc")
_SOME_TIME = datetime(2000, 1, 1, tzinfo=UTC)  # filters that count days need one; any will do here


def check_known_overrides(overrides: Mapping[str, Any], *, path: str) -> list[Violation]:
    """Returns what is wrong with the overrides that have a meaning of their own.

    ``tone``, ``length`` and ``sort_by`` are text of one line; ``sort_order`` is ``asc`` or
    ``desc``; ``categories``, ``tags`` and ``focus_areas`` are lists of such text; ``item_limit`` is
    a whole number of 1 to a million; ``custom_filters`` are filters as a job has them.
    """
    violations: list[Violation] = []
    for name, check in _CHECKS.items():
        if name in overrides:
            violations += check(overrides[name], child_path(path, name))
    return violations


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


def _sort_order(value: Any, path: str) -> Iterator[Violation]:
    if value not in _SORT_ORDERS:
        yield Violation(path, f'{quoted(value)} is no order; write "asc" or "desc".')


def _item_limit(value: Any, path: str) -> Iterator[Violation]:
    limit = whole_number(value)
    if limit is None or not 1 <= limit <= LARGEST_ITEM_LIMIT:
        yield Violation(
            path, f"{quoted(value)} is no whole number in the range of 1 to {LARGEST_ITEM_LIMIT}."
        )


def _custom_filters(value: Any, path: str) -> Sequence[Violation]:
    if not isinstance(value, Mapping):
        return [Violation(path, f"{quoted(value)} is not an object of filters.")]
    _, violations = parse_filters(
        value, category="", limit=LARGEST_ITEM_LIMIT, now=_SOME_TIME, path=path
    )
    return violations


_Check = Callable[[Any, str], Iterator[Violation] | Sequence[Violation]]

_CHECKS: Mapping[str, _Check] = {
    "tone": _line,
    "length": _line,
    "categories": _lines,
    "tags": _lines,
    "focus_areas": _lines,
    "sort_by": _line,
    "sort_order": _sort_order,
    "item_limit": _item_limit,
    "custom_filters": _custom_filters,
}
