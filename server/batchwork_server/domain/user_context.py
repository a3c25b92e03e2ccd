"""Contexts of users: what was done for one of them, and what they were given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from batchwork_server.domain.batch import Batch, Counts, UserValidation
from batchwork_server.domain.context import ContextItems, ContextProgress, metadata_of
from batchwork_server.domain.reference import OwnItem, Recipient, Reference

MOST_FEATURES = 20
"""For how many features a context says what counts for its user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserEntry:
    """An item for a user, or a reference to a whole batch.

    Attributes:
        place: In the batch; -1 of a reference to the whole of it.
        item: None of a reference to a whole batch.
        is_shared: Whether the item is for several users together.
    """

    batch: Batch
    place: int
    recipient: Recipient
    item: OwnItem | None = None
    is_shared: bool = False

    @property
    def reference(self) -> Reference | None:
        """What the user was given; none of an item whose batch gives nobody their own."""
        if self.item is not None and not self.batch.request.distribution.own:
            return None
        return Reference(recipient=self.recipient, batch=self.batch, item=self.item)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextPreference:
    """What counts for a run that preferences drive.

    Attributes:
        frequency: Of its schedule; empty when nobody named one, like ``time`` and ``time_zone``.
        template_overrides: Of one user; empty in a context of batches.
        group_key: Of the group that was due; empty for a run on request.
    """

    feature_type: str
    job_id: str
    frequency: str = ""
    time: str = ""
    time_zone: str = ""
    template_overrides: Mapping[str, Any] = field(default_factory=dict)
    group_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserContext:
    """What was done for a user, in one batch or in all.

    Attributes:
        batch: None means all batches.
        entries: A page, the newest batch first.
        counts: Of all items for the user.
        validation: How many of them found the user valid, how many did not, and how many had
            nobody to ask.
        following: The key of a batch and the place in it after which the next page starts.
    """

    user_id: str
    tenant_id: str
    batch: Batch | None
    entries: Sequence[UserEntry]
    counts: Counts
    validation: UserValidation
    preferences: Sequence[ContextPreference] = ()
    following: tuple[int, int] | None = None

    @property
    def batches(self) -> list[Batch]:
        """The batches of the page, the newest first."""
        if self.batch is not None:
            return [self.batch]
        return list({entry.batch.key: entry.batch for entry in self.entries}.values())

    @property
    def progress(self) -> ContextProgress:
        return ContextProgress(counts=self.counts)

    @property
    def items(self) -> ContextItems:
        user = (self.user_id,)
        return ContextItems(
            valid_users=user if self.validation.valid or self.validation.unknown else (),
            invalid_users=user if self.validation.invalid else (),
        )

    @property
    def metadata(self) -> dict[str, Any]:
        of_batch = {} if self.batch is None else metadata_of(self.batch)
        return {**of_batch, "tenant_id": self.tenant_id, "user_id": self.user_id}


def preference_of(
    batch: Batch, overrides: Mapping[str, Any] | None = None
) -> ContextPreference | None:
    """Returns by what a run was made that preferences drive; none of another batch."""
    request = batch.request
    if not request.is_preference_based:
        return None
    said = request.batch_metadata
    return ContextPreference(
        feature_type=request.feature_type,
        job_id=request.job_id,
        frequency=str(said.get("frequency", "")),
        time=str(said.get("at", "")),
        time_zone=str(said.get("time_zone", "")),
        template_overrides=overrides or {},
        group_key=str(said.get("group_key", "")),
    )
