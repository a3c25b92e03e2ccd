"""Users whom the things of a category name in lists: ``user_ids`` and ``member_ids``.

The lists stand at the top of a thing's data. What is no user is taken out of them before anything
works on the thing, and a thing that names users of whom none is there is not worked on at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from batchwork_server.domain.item import NewItem
from batchwork_server.domain.reference_validation import (
    NO_VALID_USERS,
    NOTHING_FOUND,
    CategoryCounts,
    CategoryVerdict,
    InvalidReference,
    ReferenceValidation,
    count_categories,
    count_references,
    count_things,
    verdict_on,
)
from batchwork_server.domain.user import UserVerdict
from batchwork_server.planners.json_members import with_members

FIELDS = ("user_ids", "member_ids")
"""The lists, by the names that the requirement documents give them."""

LONGEST_SHOWN = 128
"""Of a reference that is no user id, the beginning is kept as it stands in the JSON."""

_KEPT = frozenset({UserVerdict.VALID, UserVerdict.UNKNOWN})
_MARKS = tuple(f'"{field}"' for field in FIELDS)
_END_OF_MARKS = '_ids"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Things whose references were looked at.

    Attributes:
        groups: The things, without the references that are not valid; what names no valid user
            is to be skipped.
        invalid: What was taken out, in the order of the things.
        found: The counts.
    """

    groups: Mapping[str, Sequence[NewItem]]
    invalid: Sequence[InvalidReference] = ()
    found: ReferenceValidation = NOTHING_FOUND


NOTHING_JUDGED = Judged(groups={})


def names_users(data_json: str) -> bool:
    """Tells, without reading it, whether data can name users in lists."""
    # One look for nearly all of them: there are tens of thousands, and few have such a list.
    return _END_OF_MARKS in data_json and any(mark in data_json for mark in _MARKS)


class UserReferences:
    """The references in things of categories, which are read once.

    Args:
        groups: The things by category.
    """

    def __init__(self, groups: Mapping[str, Sequence[NewItem]]) -> None:
        self._groups = groups
        self._read = {
            (category, place): data
            for category, things in groups.items()
            for place, thing in enumerate(things)
            if names_users(thing.data_json) and (data := _read(thing.data_json)) is not None
        }

    @property
    def user_ids(self) -> list[str]:
        """Every text that stands for a user, each once."""
        return list(
            dict.fromkeys(
                reference
                for data in self._read.values()
                for field in FIELDS
                for reference in _listed(data.get(field))
                if isinstance(reference, str)
            )
        )

    def judged(self, verdicts: Mapping[str, UserVerdict]) -> Judged:
        """Takes out what is not valid; what nobody knows is kept, and counted apart.

        Args:
            verdicts: For each of ``user_ids``, and for the own users of things.
        """
        changed: dict[str, list[NewItem]] = {}
        invalid: list[InvalidReference] = []
        found: list[UserVerdict] = []
        categories: dict[tuple[str, int], CategoryVerdict] = {}
        for (category, place), data in self._read.items():
            judge = _Judge(category, self._groups[category][place], data, verdicts)
            found += judge.found
            categories[category, place] = judge.verdict
            if judge.invalid:
                if category not in changed:
                    changed[category] = list(self._groups[category])
                changed[category][place] = judge.thing
                invalid += judge.invalid
        others = sum(len(things) for things in self._groups.values()) - len(self._read)
        return Judged(
            groups={**self._groups, **changed},
            invalid=invalid,
            found=ReferenceValidation(
                categories=count_categories(categories.values(), others=others),
                user_references=count_references(found),
                things=self._things(categories, verdicts),
            ),
        )

    def _things(
        self,
        categories: Mapping[tuple[str, int], CategoryVerdict],
        verdicts: Mapping[Any, UserVerdict],
    ) -> CategoryCounts:
        """Counts all things by their own users, and those that list users by these, too."""
        # There may be a million, of which few list anybody.
        owners = (thing.user_id for things in self._groups.values() for thing in things)
        judged = Counter(
            {
                (own, CategoryVerdict.VALID): count
                for own, count in Counter(map(verdicts.get, owners)).items()
            }
        )
        for (category, place), verdict in categories.items():
            own = verdicts.get(self._groups[category][place].user_id)
            judged[own, CategoryVerdict.VALID] -= 1
            judged[own, verdict] += 1
        return count_things(judged)


class _Judge:
    """One thing that names users: what is left of it, and what was taken out."""

    def __init__(
        self,
        category: str,
        thing: NewItem,
        data: dict[str, Any],
        verdicts: Mapping[str, UserVerdict],
    ) -> None:
        self.thing = thing
        self.invalid: list[InvalidReference] = []
        self._category = category
        self.found: list[UserVerdict] = []
        kept = {
            field: self._kept(field, data[field], verdicts)
            for field in FIELDS
            if data.get(field) is not None
        }
        self.verdict = verdict_on(self.found)
        if self.invalid:
            is_left_alone = self.verdict is CategoryVerdict.NO_VALID_USERS
            self.thing = replace(
                thing,
                data_json=with_members(
                    thing.data_json,
                    {field: left for field, left in kept.items() if left != data[field]},
                ),
                skip_reason=NO_VALID_USERS if is_left_alone else None,
            )

    def _kept(self, field: str, value: Any, verdicts: Mapping[str, UserVerdict]) -> list[Any]:
        references = _listed(value)
        found = [
            verdicts[each] if isinstance(each, str) else UserVerdict.MALFORMED
            for each in references
        ]
        self.found += found
        if _KEPT.issuperset(found):
            return references
        kept = []
        for reference, verdict in zip(references, found, strict=True):
            if verdict in _KEPT:
                kept.append(reference)
            else:
                self._take_out(field, reference, verdict)
        return kept

    def _take_out(self, field: str, reference: Any, verdict: UserVerdict) -> None:
        self.invalid.append(
            InvalidReference(
                category=self._category,
                item_id=self.thing.item_id,
                field=field,
                user_id=_shown(reference),
                verdict=verdict,
            )
        )


def is_remnant(stored: str, given: str) -> bool:
    """Tells whether stored data is given data, less references that were taken out."""
    if not names_users(given):
        return False
    left, whole = _read(stored), _read(given)
    if left is None or whole is None or left.keys() != whole.keys():
        return False
    blank = dict.fromkeys(FIELDS)
    # The texts first: values may be nested too deep to be compared.
    are_alike = with_members(stored, blank) == with_members(given, blank)
    return all(
        _is_part(left[name], whole[name])
        if name in FIELDS
        else are_alike or left[name] == whole[name]
        for name in whole
    )


def _is_part(left: Any, whole: Any) -> bool:
    """Tells whether a list holds some of the elements of another one, in their order."""
    if left == whole:
        return True
    rest = iter(_listed(whole))
    return isinstance(left, list) and all(any(each == other for other in rest) for each in left)


def _read(data_json: str) -> dict[str, Any] | None:
    """Returns data that is an object and has one of the lists at its top."""
    try:
        data = orjson.loads(data_json)
    except orjson.JSONDecodeError:  # whatever works on it will say so
        return None
    if isinstance(data, dict) and any(data.get(field) is not None for field in FIELDS):
        return data
    return None


def _listed(value: Any) -> list[Any]:
    """Returns the references of a list; what is no list is one that is not valid."""
    if value is None:
        return []
    return value if isinstance(value, list) else [_NoList(value)]


@dataclass(frozen=True, slots=True)
class _NoList:
    """A value that stands where a list should."""

    value: Any


def _shown(reference: Any) -> str:
    if isinstance(reference, str):
        return reference[:LONGEST_SHOWN]
    value = reference.value if isinstance(reference, _NoList) else reference
    return orjson.dumps(_cut(value, levels=LONGEST_SHOWN)).decode()[:LONGEST_SHOWN]


def _cut(value: Any, *, levels: int) -> Any:
    """Returns a value without what is nested deeper; each level takes a character at least."""
    if isinstance(value, list):
        return [_cut(each, levels=levels - 1) for each in (value if levels else ())]
    if isinstance(value, dict):
        inner = value.items() if levels else ()
        return {name: _cut(each, levels=levels - 1) for name, each in inner}
    return value
