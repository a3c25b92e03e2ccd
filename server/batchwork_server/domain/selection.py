"""What narrows a category to the items that a batch is made of.

The rules of the requirement documents: ``min_*`` and ``max_*`` compare numbers,
``created_after`` and ``created_before`` times, ``has_*`` asks for presence,
``active_last_days`` for activity, ``tags`` for any of several, ``max_items`` bounds the number,
and every other name asks for equality.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from batchwork_server.domain.item import NewItem
from batchwork_server.domain.json_object import is_number, quoted, unsound, whole_number
from batchwork_server.errors import Violation

MAX_FILTERS = 100
MAX_VALUES = 1000
LONGEST_VALUE = 1024
MAX_ITEMS = 1_000_000
MOST_ACTIVE_DAYS = 36_500


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
class Order:
    """By the value of a field: numbers, then texts, then what has neither.

    Attributes:
        descending: The largest number and the last text come first.
    """

    field: str
    descending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The items of one category that meet every condition, at most ``limit`` of them.

    Attributes:
        order: In which they come; none means the order of the category, which also decides
            between equals.
    """

    category: str
    conditions: tuple[Condition, ...] = ()
    limit: int = 1000
    order: Order | None = None


SelectedItem: TypeAlias = NewItem
"""One item of a category, or of a request. Where nothing is to be made of it, it becomes an item of
the batch as it is: there are fifty thousand in a request, which are not to be there twice."""


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


def is_field_name(name: object) -> bool:
    """Tells whether a value can name a field of an item's data."""
    return isinstance(name, str) and _FIELD_NAME.fullmatch(name) is not None


def field_of_filter(name: str) -> str | None:
    """Returns the field of the data that a filter looks at; none when it looks at no field."""
    if name in _FILTERS_WITHOUT_FIELD:
        return None
    for prefix in ("min_", "max_", "has_"):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def parse_filters(
    filters: Mapping[str, Any],
    *,
    category: str,
    limit: int,
    now: datetime,
    path: str = "filters",
) -> tuple[Selection, list[Violation]]:
    """Reads the filters of one category as the documents have them.

    Dates and times without a zone mean UTC. The smaller of ``limit`` and ``max_items`` wins.

    Args:
        filters: JSON values; whole numbers may come as 30.0.
        category: Whose items are selected.
        limit: The most items, whatever the filters say.
        now: From where ``active_last_days`` counts back.
        path: Where the filters stand.

    Returns:
        The selection by all the filters that are right, and a violation for each that is not.
    """
    reader = _FilterReader(filters, now=now, path=path)
    if len(filters) > MAX_FILTERS:
        reader.violations.append(
            Violation(path, f"{len(filters)} filters are too many; the limit is {MAX_FILTERS}.")
        )
        return Selection(category=category, limit=limit), reader.violations
    conditions = reader.conditions()
    max_items = reader.max_items()
    bound = limit if max_items is None else min(limit, max_items)
    return Selection(category=category, conditions=conditions, limit=bound), reader.violations


_FILTERS_WITHOUT_FIELD = frozenset(
    {"max_items", "created_after", "created_before", "active_last_days"}
)
_FIELD_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")


class _FilterReader:
    """Turns filters into conditions, and collects what is wrong with them."""

    def __init__(self, filters: Mapping[str, Any], *, now: datetime, path: str) -> None:
        self._filters = filters
        self._now = now
        self._path = path
        self.violations: list[Violation] = []

    def conditions(self) -> tuple[Condition, ...]:
        """Returns the conditions in the order of the filters; a pair of bounds is one."""
        subjects = dict.fromkeys(
            _subject_of(name)
            for name in self._filters
            if name != "max_items" and self._is_named_well(name)
        )
        conditions = [self._condition(kind, name) for kind, name in subjects]
        return tuple(condition for condition in conditions if condition is not None)

    def max_items(self) -> int | None:
        return self._whole("max_items", most=MAX_ITEMS) if "max_items" in self._filters else None

    def _is_named_well(self, name: str) -> bool:
        field = field_of_filter(name)
        if field is None or is_field_name(field):
            return True
        self.violations.append(
            Violation(
                self._path,
                f"{quoted(name)} names no field; the name of a field has 1 to 128 letters, digits, "
                "'_', '.' or '-'.",
            )
        )
        return False

    def _condition(self, kind: str, name: str) -> Condition | None:
        match kind:
            case "created":
                return self._created_between()
            case "active":
                return self._active_since()
            case "tags":
                return self._tags()
            case "bound":
                return self._number_bound(name)
            case "presence":
                return self._presence(name)
            case _:
                return self._equality(name)

    def _number_bound(self, field: str) -> NumberBound | None:
        minimum, maximum = self._number(f"min_{field}"), self._number(f"max_{field}")
        if minimum is not None and maximum is not None and minimum > maximum:
            self._refuse(f"min_{field}", f"{minimum:g} is more than `max_{field}`, {maximum:g}.")
            return None
        if minimum is None and maximum is None:
            return None
        return NumberBound(field=field, minimum=minimum, maximum=maximum)

    def _created_between(self) -> CreatedBetween | None:
        after, before = self._time("created_after"), self._time("created_before")
        if after is not None and before is not None and after >= before:
            self._refuse("created_after", "This is not before `created_before`.")
            return None
        return (
            None if after is None and before is None else CreatedBetween(after=after, before=before)
        )

    def _active_since(self) -> ActiveSince | None:
        days = self._whole("active_last_days", most=MOST_ACTIVE_DAYS)
        return None if days is None else ActiveSince(since=self._now - timedelta(days=days))

    def _tags(self) -> TagsAny | None:
        value = self._filters["tags"]
        tags = value if isinstance(value, list) else [value]
        if 0 < len(tags) <= MAX_VALUES and all(
            isinstance(tag, str) and tag and _is_comparable(tag) for tag in tags
        ):
            return TagsAny(tags=tuple(dict.fromkeys(tags)))
        self._refuse("tags", f"{quoted(value)} is neither a text nor a list of 1 to 1,000 texts.")
        return None

    def _presence(self, name: str) -> Presence | None:
        value = self._filters[name]
        if isinstance(value, bool):
            return Presence(field=name.removeprefix("has_"), present=value)
        self._refuse(name, f"{quoted(value)} is neither true nor false.")
        return None

    def _equality(self, name: str) -> Equality | None:
        value = self._filters[name]
        values = value if isinstance(value, list) else [value]
        if 0 < len(values) <= MAX_VALUES and all(_is_comparable(element) for element in values):
            return Equality(field=name, values=tuple(values))
        self._refuse(
            name,
            f"{quoted(value)} is neither a text of at most 1,024 characters, a number, true, false "
            "or null, nor a list of 1 to 1,000 of them.",
        )
        return None

    def _number(self, name: str) -> float | None:
        if name not in self._filters:
            return None
        value = self._filters[name]
        if is_number(value):
            return float(value)
        self._refuse(name, f"{quoted(value)} is no number.")
        return None

    def _whole(self, name: str, *, most: int) -> int | None:
        value = self._filters[name]
        number = whole_number(value)
        if number is not None and 1 <= number <= most:
            return number
        self._refuse(name, f"{quoted(value)} is not a whole number from 1 to {most}.")
        return None

    def _time(self, name: str) -> datetime | None:
        if name not in self._filters:
            return None
        value = self._filters[name]
        try:
            moment = datetime.fromisoformat(value)
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (TypeError, ValueError, OverflowError):
            self._refuse(
                name,
                f"{quoted(value)} is neither a date nor a time; write 2023-01-31, or "
                "2023-01-31T09:30:00+01:00.",
            )
            return None

    def _refuse(self, name: str, message: str) -> None:
        self.violations.append(Violation(f"{self._path}.{name}", message))


def _subject_of(name: str) -> tuple[str, str]:
    """Returns the kind of condition that a filter is a part of, and what it is about."""
    if name in ("created_after", "created_before"):
        return ("created", "")
    if name == "active_last_days":
        return ("active", "")
    if name == "tags":
        return ("tags", "")
    if name.startswith(("min_", "max_")):
        return ("bound", name[len("min_") :])
    return ("presence" if name.startswith("has_") else "equality", name)


def _is_comparable(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= LONGEST_VALUE and not any(unsound(value, path=""))
    return value is None or isinstance(value, bool) or is_number(value)
