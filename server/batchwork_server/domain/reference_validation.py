"""What the validation of users found in the things of categories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from batchwork_server.domain.user import UserVerdict

NO_VALID_USERS = "NO_VALID_USERS"
"""The skip reason of a thing that names users of whom none is valid."""

OWN = "user_id"
"""Where an invalid user is named whose thing was left out of an item that is made of many."""


class CategoryVerdict(StrEnum):
    """What is known of a thing of a category."""

    VALID = "VALID"  # it names a valid user, or none at all
    NO_VALID_USERS = "NO_VALID_USERS"  # it names users of whom none is valid
    MALFORMED = "MALFORMED"  # its id cannot be one
    UNKNOWN = "UNKNOWN"  # of none of its users is known whether they are valid


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryCounts:
    """Things of categories, by their verdicts; what is unknown is worked on."""

    total: int = 0
    valid: int = 0
    invalid: int = 0
    unknown: int = 0

    def __add__(self, other: CategoryCounts) -> CategoryCounts:
        return CategoryCounts(
            total=self.total + other.total,
            valid=self.valid + other.valid,
            invalid=self.invalid + other.invalid,
            unknown=self.unknown + other.unknown,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceCounts:
    """References to users in things of categories, each as often as it stands there.

    Attributes:
        unknown: Those of whom nobody knew, because the source of users was away; they are kept.
    """

    total: int = 0
    valid: int = 0
    invalid: int = 0
    unknown: int = 0

    def __add__(self, other: ReferenceCounts) -> ReferenceCounts:
        return ReferenceCounts(
            total=self.total + other.total,
            valid=self.valid + other.valid,
            invalid=self.invalid + other.invalid,
            unknown=self.unknown + other.unknown,
        )


def verdict_on(references: Collection[UserVerdict]) -> CategoryVerdict:
    """Returns the verdict on a thing by those on the users whom it names."""
    if not references or UserVerdict.VALID in references:
        return CategoryVerdict.VALID
    is_unknown = UserVerdict.UNKNOWN in references
    return CategoryVerdict.UNKNOWN if is_unknown else CategoryVerdict.NO_VALID_USERS


def count_categories(verdicts: Iterable[CategoryVerdict], *, others: int = 0) -> CategoryCounts:
    """Counts things by their verdicts.

    Args:
        others: So many more are valid.
    """
    found = Counter(verdicts)
    valid, unknown = found[CategoryVerdict.VALID] + others, found[CategoryVerdict.UNKNOWN]
    total = found.total() + others
    return CategoryCounts(
        total=total, valid=valid, invalid=total - valid - unknown, unknown=unknown
    )


def count_things(
    judged: Mapping[tuple[UserVerdict | None, CategoryVerdict], int],
) -> CategoryCounts:
    """Counts things by everybody whom they name; what is invalid for two reasons counts once.

    Args:
        judged: How many things there are by the verdict on their own user, if they have one, and
            that on their lists.
    """
    counts: Counter[str] = Counter()
    for (own, lists), count in judged.items():
        counts["total"] += count
        counts[_kind_of(own, lists)] += count
    return CategoryCounts(**counts)


def _kind_of(own: UserVerdict | None, lists: CategoryVerdict) -> str:
    if lists is CategoryVerdict.NO_VALID_USERS or (own is not None and not own.is_served):
        return "invalid"
    is_unknown = UserVerdict.UNKNOWN is own or lists is CategoryVerdict.UNKNOWN
    return "unknown" if is_unknown else "valid"


def count_references(verdicts: Iterable[UserVerdict]) -> ReferenceCounts:
    """Counts references by the verdicts on their users."""
    found = Counter(verdicts)
    valid, unknown, total = found[UserVerdict.VALID], found[UserVerdict.UNKNOWN], found.total()
    return ReferenceCounts(
        total=total, valid=valid, invalid=total - valid - unknown, unknown=unknown
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceValidation:
    """What was found in the things of a batch over categories; nothing for other batches.

    Attributes:
        categories: The things by the users whom they list.
        things: The same by their own users, too; nothing in what older servers stored.
    """

    categories: CategoryCounts = CategoryCounts()
    user_references: ReferenceCounts = ReferenceCounts()
    things: CategoryCounts = CategoryCounts()

    @property
    def names_users(self) -> bool:
        """Tells whether there is anything to say: a thing that names a user."""
        return self.user_references.total > 0

    def __add__(self, other: ReferenceValidation) -> ReferenceValidation:
        return ReferenceValidation(
            categories=self.categories + other.categories,
            user_references=self.user_references + other.user_references,
            things=self.things + other.things,
        )


NOTHING_FOUND = ReferenceValidation()


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidReference:
    """A reference that was taken out of a thing.

    Attributes:
        category: That the thing was selected from; empty for inline items.
        item_id: Of the thing.
        field: The list in which it stood, or ``OWN``.
        user_id: The reference; of one that is no text, the beginning of its JSON.
    """

    category: str
    item_id: str
    field: str
    user_id: str
    verdict: UserVerdict
