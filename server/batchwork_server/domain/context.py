"""Contexts: what became of batches, in the shape of the requirement documents.

A context is worked out from what the ledger holds, whenever somebody asks: so it is there for every
batch, it is never behind, and it survives what the ledger survives. Called ContextManager in the
requirement documents.

Contexts of several batches are merged like this:

- counts are added up, item by item: a user in two batches counts twice;
- lists are united without doubles, the first batch first; a user who is valid in one batch and not
  in another stands in both lists;
- of the metadata, what all batches say alike stays, and the rest stands under ``batches``, by id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from functools import reduce
from typing import Any

from batchwork_server.domain.batch import Batch, Counts, UserValidation
from batchwork_server.domain.reference_validation import NO_VALID_USERS, ReferenceCounts
from batchwork_server.domain.user import UserVerdict

MOST_BATCHES = 100
"""The most batches of one context."""

INVALID_USER_REASONS = frozenset(
    f"USER_{verdict}" for verdict in UserVerdict if verdict is not UserVerdict.VALID
)
"""The skip reasons of items whose user is not valid."""

INVALID_CATEGORY_REASONS = INVALID_USER_REASONS | {NO_VALID_USERS}
"""The skip reasons of things of categories that are not valid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextEntry:
    """One item of a batch, or one user of an item for several, as its context lists it.

    Attributes:
        place: In the order of the batch.
        item_id: None of a user of an item for several.
        skip_reason: Why it was skipped; empty otherwise.
        is_repeated: Whether an earlier item of the batch is for the same user.
    """

    place: int
    item_id: str | None
    user_id: str | None
    skip_reason: str = ""
    is_repeated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextItems:
    """Who and what was valid, and who and what was not, each once."""

    valid_users: tuple[str, ...] = ()
    invalid_users: tuple[str, ...] = ()
    valid_categories: tuple[str, ...] = ()
    invalid_categories: tuple[str, ...] = ()

    @classmethod
    def of(cls, entries: Sequence[ContextEntry], *, by_categories: bool) -> ContextItems:
        """Sorts the entries of a batch; in one by categories an item is a category."""
        users = [
            (each.user_id, each.skip_reason in INVALID_USER_REASONS)
            for each in entries
            if not each.is_repeated
        ]
        categories = [
            (each.item_id, each.skip_reason in INVALID_CATEGORY_REASONS)
            for each in entries
            if by_categories
        ]
        return cls(
            valid_users=_names(users, invalid=False),
            invalid_users=_names(users, invalid=True),
            valid_categories=_names(categories, invalid=False),
            invalid_categories=_names(categories, invalid=True),
        )

    def __add__(self, other: ContextItems) -> ContextItems:
        """Unites two contexts' lists, this one's first."""
        return ContextItems(
            **{
                each.name: tuple(
                    dict.fromkeys((*getattr(self, each.name), *getattr(other, each.name)))
                )
                for each in fields(self)
            }
        )

    def without(self, earlier: ContextItems) -> ContextItems:
        """Returns what is not in the lists of another context already."""
        return ContextItems(
            **{
                each.name: _missing(getattr(self, each.name), getattr(earlier, each.name))
                for each in fields(self)
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextProgress:
    """How far the work is.

    Attributes:
        counts: Of all items, also of those that were skipped.
    """

    counts: Counts

    @property
    def processed(self) -> int:
        return self.counts.succeeded + self.counts.failed

    @property
    def total(self) -> int:
        """The items that were worth work."""
        return self.counts.total - self.counts.skipped

    @property
    def percent(self) -> float:
        """How much of that is processed, 0 to 100; 100 when nothing was worth work."""
        return 100 * self.processed / self.total if self.total else 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What became of one batch or of several, with a page of the lists.

    Attributes:
        batches: In the order in which they were asked for.
        validation: What was found of their users, or of their categories.
        items: A part of the lists.
        following: Where the next part starts: which of the batches, and the place in it.
    """

    batches: Sequence[Batch]
    validation: UserValidation
    items: ContextItems
    following: tuple[int, int] | None = None

    @property
    def tenant_ids(self) -> list[str]:
        return list(dict.fromkeys(batch.tenant_id for batch in self.batches))

    @property
    def progress(self) -> ContextProgress:
        return ContextProgress(counts=_sum_of(batch.counts for batch in self.batches))

    @property
    def user_references(self) -> ReferenceCounts:
        """What was found of the users whom things of categories list."""
        found = (batch.request.reference_validation.user_references for batch in self.batches)
        return sum(found, ReferenceCounts())

    @property
    def metadata(self) -> Mapping[str, Any]:
        return merged_metadata({batch.batch_id: metadata_of(batch) for batch in self.batches})

    @property
    def start_time(self) -> datetime:
        """When the first of the batches was created."""
        return min(batch.create_time for batch in self.batches)

    @property
    def end_time(self) -> datetime | None:
        """When the last of the batches was over; none while one of them is not."""
        ends = [batch.end_time for batch in self.batches]
        return max(end for end in ends if end is not None) if all(ends) else None


def is_by_categories(batch: Batch) -> bool:
    """Tells whether the things of a batch are categories; those of preferences are users."""
    request = batch.request
    return request.batch_type.endswith("_CATEGORIES") and not request.is_preference_based


def validation_of(batch: Batch) -> UserValidation:
    """Returns what was found of the things of a batch: of its users, or of its categories."""
    found, references = batch.request.user_validation, batch.request.reference_validation
    if not is_by_categories(batch):
        return found
    things, total = references.things, references.categories.total or batch.counts.total
    if things.total == total:
        return UserValidation(
            total=total, valid=things.valid, invalid=things.invalid, unknown=things.unknown
        )
    # An older server stored it, and counted each reason by itself.
    invalid = min(total, found.invalid + references.categories.invalid)
    unknown = min(total - invalid, found.unknown)
    return UserValidation(
        total=total, valid=total - invalid - unknown, invalid=invalid, unknown=unknown
    )


def merged_validation(found: Iterable[UserValidation]) -> UserValidation:
    return reduce(
        lambda one, other: one + other,
        found,
        UserValidation(),
    )


def metadata_of(batch: Batch) -> dict[str, Any]:
    """Returns what a batch is about, by the names of the requirement documents.

    The caller's own metadata is part of it; what a batch does not say is left out.
    """
    request = batch.request
    method, _, source = request.batch_type.removeprefix("PREFERENCE_").partition("_")
    ours = {
        "batch_id": batch.batch_id,
        "tenant_id": batch.tenant_id,
        "state": str(batch.state),
        "batch_type": request.batch_type,
        "data_source_type": source.lower(),
        "processing_method": method.lower(),
        "job_id": request.job_id,
        "name": request.display_name,
        "purpose_id": request.purpose_id,
        "feature_type": request.feature_type,
        "operation": request.operation,
        "template_id": request.template.template_id,
        "source": request.source,
        "categories": list(request.categories),
        "filters": dict(request.filters),
        "labels": dict(request.labels),
        "create_time": batch.create_time.isoformat(),
        "due_time": request.due_time.isoformat() if request.due_time else "",
    }
    kind = {"category_type": request.categories[0]} if len(request.categories) == 1 else {}
    return {**kind, **request.batch_metadata, **{key: each for key, each in ours.items() if each}}


def merged_metadata(by_batch: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns what all say alike, and under ``batches`` what else each one says."""
    if len(by_batch) == 1:
        return dict(next(iter(by_batch.values())))
    first, *others = by_batch.values()
    alike = {
        name: value
        for name, value in first.items()
        if all(name in other and other[name] == value for other in others)
    }
    return {
        **alike,
        "batches": {
            batch_id: {name: each for name, each in said.items() if name not in alike}
            for batch_id, said in by_batch.items()
        },
    }


def _sum_of(counts: Iterable[Counts]) -> Counts:
    found = list(counts)
    return Counts(
        **{each.name: sum(getattr(some, each.name) for some in found) for each in fields(Counts)}
    )


def _names(judged: Iterable[tuple[str | None, bool]], *, invalid: bool) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(
            name for name, is_invalid in judged if name is not None and is_invalid is invalid
        )
    )


def _missing(names: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    seen = frozenset(known)
    return tuple(name for name in names if name not in seen)
