"""Where a page starts, and where it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

_Row = TypeVar("_Row", bound=Sequence[Any])

PAGE_BYTES = 3 * 1024 * 1024
"""A page ends when it holds so much, so that it fits into a message of 4 MiB."""


def first_page(
    rows: Sequence[_Row], *, page_size: int, weight: Callable[[_Row], int]
) -> tuple[Sequence[_Row], bool]:
    """Returns the rows of a page, at least one, and tells whether others follow.

    Args:
        rows: What was read: one more than the page may have, when there are so many.
        page_size: The most rows.
        weight: About how many bytes a row has in an answer.
    """
    total = 0
    for count, row in enumerate(rows[:page_size]):
        total += weight(row)
        if total > PAGE_BYTES and count > 0:
            return rows[:count], True
    return rows[:page_size], len(rows) > page_size


def follows(
    key: Sequence[sa.ColumnElement[Any]], place: Sequence[Any], *, tenant_id: str | None
) -> sa.ColumnElement[bool]:
    """Returns what holds of the rows after a place, in the order of a key that begins with tenants.

    Args:
        key: The columns of the order.
        place: Their values.
        tenant_id: Whose rows are read, which says the first column; None means everybody's.
    """
    # SQLite takes an index for the equal tenant or for the row of values, and not for both.
    first = 0 if tenant_id is None else 1
    return sa.tuple_(*key[first:]) > sa.tuple_(*place[first:])
