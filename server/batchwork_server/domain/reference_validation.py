"""What the validation of users found in the things of categories."""

from __future__ import annotations

from dataclasses import dataclass

from batchwork_server.domain.user import UserVerdict

NO_VALID_USERS = "NO_VALID_USERS"
"""The skip reason of a thing that names users of whom none is valid."""

OWN = "user_id"
"""Where an invalid user is named whose thing was left out of an item that is made of many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryCounts:
    """Things of categories; one that names users of whom none is valid is invalid."""

    total: int = 0
    valid: int = 0
    invalid: int = 0

    def __add__(self, other: CategoryCounts) -> CategoryCounts:
        return CategoryCounts(
            total=self.total + other.total,
            valid=self.valid + other.valid,
            invalid=self.invalid + other.invalid,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceValidation:
    """What was found in the things of a batch over categories; nothing for other batches."""

    categories: CategoryCounts = CategoryCounts()
    user_references: ReferenceCounts = ReferenceCounts()

    @property
    def names_users(self) -> bool:
        """Tells whether there is anything to say: a thing that names a user."""
        return self.user_references.total > 0

    def __add__(self, other: ReferenceValidation) -> ReferenceValidation:
        return ReferenceValidation(
            categories=self.categories + other.categories,
            user_references=self.user_references + other.user_references,
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
