"""Template overrides between the contract, where the known ones have types, and the domain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from batchwork.v1.preference_pb2 import DefaultPreference, KnownOverrides, Preference, SortOrder

from batchwork_server.domain.json_object import child_path, is_number, quoted, whole_number
from batchwork_server.domain.preference import MAX_OVERRIDES_BYTES
from batchwork_server.errors import Violation
from batchwork_server.rpc.checks import Checks

_TEXTS = ("tone", "length", "sort_by")
_LISTS = ("categories", "tags", "focus_areas")
_ORDERS = {"asc": SortOrder.SORT_ORDER_ASC, "desc": SortOrder.SORT_ORDER_DESC}
_LARGEST_LIMIT = 2**31 - 1


def overrides_from(
    path: str, given: Preference | DefaultPreference, *, checks: Checks
) -> dict[str, Any]:
    """Returns what a message says by name, whether with or without types."""
    free_path, typed_path = f"{path}.template_overrides", f"{path}.known_overrides"
    free = checks.json_object(free_path, given.template_overrides, most_bytes=MAX_OVERRIDES_BYTES)
    if given.known_overrides.sort_order not in (0, *_ORDERS.values()):
        checks.add(
            [Violation(f"{typed_path}.sort_order", "Write SORT_ORDER_ASC or SORT_ORDER_DESC.")]
        )
    filters = checks.json_object(
        f"{typed_path}.custom_filters",
        given.known_overrides.custom_filters,
        most_bytes=MAX_OVERRIDES_BYTES,
    )
    typed = dict(_typed(given.known_overrides, filters))
    checks.add(
        Violation(
            child_path(typed_path, name),
            f"{quoted(typed[name])} is not what template_overrides says, {quoted(free[name])}; "
            "say it once, or the same twice.",
        )
        for name in typed
        if name in free and free[name] != typed[name]
    )
    return free | typed


def where_they_stand(
    violations: Sequence[Violation], path: str, given: Preference | DefaultPreference
) -> list[Violation]:
    """Returns what is wrong with overrides under the paths at which the message has them."""
    free_path, typed_path = f"{path}.template_overrides", f"{path}.known_overrides"
    typed = [
        child_path(free_path, name)
        for name, _ in _typed(given.known_overrides, {})
        if name not in given.template_overrides.fields
    ]
    return [
        replace(each, path=typed_path + each.path.removeprefix(free_path))
        if each.path.startswith(tuple(typed))
        else each
        for each in violations
    ]


def _typed(given: KnownOverrides, filters: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields the overrides that are set, as JSON values."""
    for name in (*_TEXTS, "item_limit"):
        if given.HasField(name):  # type: ignore[arg-type]
            yield name, getattr(given, name)
    for name in _LISTS:
        if listed := list(getattr(given, name)):
            yield name, listed
    for word, order in _ORDERS.items():
        if given.sort_order == order:
            yield "sort_order", word
    if given.HasField("custom_filters"):
        yield "custom_filters", filters


def known_overrides_to(overrides: Mapping[str, Any]) -> KnownOverrides | None:
    """Returns the overrides that the service knows, as far as they have the type that they should.

    Those of a Config Database need not have it; what cannot be told here stands among the others.
    """
    known = KnownOverrides(sort_order=_ORDERS.get(str(overrides.get("sort_order")), 0))  # type: ignore[arg-type]
    for name in _TEXTS:
        if isinstance(overrides.get(name), str):
            setattr(known, name, overrides[name])
    for name in _LISTS:
        if _are_texts(overrides.get(name)):
            getattr(known, name).extend(overrides[name])
    limit = overrides.get("item_limit")
    whole = whole_number(limit) if is_number(limit) else None
    if whole is not None and 0 <= whole <= _LARGEST_LIMIT:
        known.item_limit = whole
    filters = overrides.get("custom_filters")
    if isinstance(filters, Mapping) and filters:
        known.custom_filters.update(filters)
    return known if known.ByteSize() else None


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)
