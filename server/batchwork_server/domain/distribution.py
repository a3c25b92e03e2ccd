"""Distribution: who gets the results of a batch, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """Who is given a reference to results of a batch.

    Attributes:
        named: How many users the job names.
        invalid: How many of them are no valid users.
        own: Whether each user of a preference-based run is given their own item.
    """

    named: int = 0
    invalid: int = 0
    own: bool = False

    def __bool__(self) -> bool:
        return self.named > 0 or self.own


NOBODY = Distribution()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryCounts:
    """What became of the references of a batch that is over."""

    delivered: int = 0
    failed: int = 0
