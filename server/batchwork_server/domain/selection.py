"""What narrows a category to the items that a batch is made of.

The rules of the requirement documents: ``min_*`` and ``max_*`` compare numbers,
``created_after`` and ``created_before`` times, ``has_*`` asks for presence,
``active_last_days`` for activity, ``tags`` for any of several, ``max_items`` bounds the number,
and every other name asks for equality.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberBound:
    """The number in ``field`` is at least ``minimum`` and at most ``maximum``."""

    field: str
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """The field is there and not empty (or, with ``present`` false, is not).

    A field that is itself called ``has_…`` answers with its own truth.
    """

    field: str
    present: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Equality:
    """The field equals one of the values (text, number, true or false, or null for absent)."""

    field: str
    values: tuple[str | float | bool | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TagsAny:
    """The field ``tags`` (a list, or one text) holds at least one of the tags."""

    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedBetween:
    """The item was created at ``after`` or later, and before ``before``."""

    after: datetime | None = None
    before: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveSince:
    """The item was active at ``since`` or later; an item that does not say so was not."""

    since: datetime


Condition = NumberBound | Presence | Equality | TagsAny | CreatedBetween | ActiveSince


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The items of one category that meet every condition, at most ``limit`` of them."""

    category: str
    conditions: tuple[Condition, ...] = ()
    limit: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedItem:
    """One item of a category.

    Attributes:
        data_json: JSON text of an object.
    """

    item_id: str
    user_id: str | None
    data_json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedItem:
    """One item on its way into a category.

    Attributes:
        create_time: Unset means now.
        active_time: When the thing was last active, if that is known.
    """

    item_id: str
    data_json: str
    user_id: str | None = None
    create_time: datetime | None = None
    active_time: datetime | None = None


def filter_path(filters_path: str, name: str) -> str:
    """Returns the path under which a filter is reported."""
    return f"{filters_path}.{name}"


def names_of(conditions: Sequence[Condition]) -> list[str]:
    """Returns the fields of the data that the conditions look at, each once."""
    names: dict[str, None] = {}
    for condition in conditions:
        match condition:
            case NumberBound(field=field) | Presence(field=field) | Equality(field=field):
                names[field] = None
            case TagsAny():
                names["tags"] = None
            case _:
                pass
    return list(names)
