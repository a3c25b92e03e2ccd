"""Users, as far as Batchwork knows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class UserVerdict(StrEnum):
    """What is known of a user."""

    VALID = "VALID"
    NOT_FOUND = "NOT_FOUND"
    INACTIVE = "INACTIVE"
    WRONG_TENANT = "WRONG_TENANT"  # exists in another tenant only
    MALFORMED = "MALFORMED"
    UNKNOWN = "UNKNOWN"  # the source is away

    @property
    def is_served(self) -> bool:
        """Tells whether work is done for such a user.

        Of an unknown one that was accepted: where that would not do, no batch is made at all.
        """
        return self in (UserVerdict.VALID, UserVerdict.UNKNOWN)


class UsersAway(StrEnum):
    """What becomes of a batch whose users cannot be validated, because their source is away."""

    FAIL = "FAIL"  # it is not made
    ASSUME_VALID = "ASSUME_VALID"  # they count as unknown, and their items are processed
    DEFER = "DEFER"  # it is accepted, and begins when they are validated


@dataclass(frozen=True, slots=True, kw_only=True)
class UserTotals:
    """How many ids got which verdict; a verdict that nobody got need not be there."""

    by_verdict: Mapping[UserVerdict, int] = field(default_factory=dict)

    def of(self, verdict: UserVerdict) -> int:
        return self.by_verdict.get(verdict, 0)

    @property
    def total(self) -> int:
        return sum(self.by_verdict.values())

    @property
    def valid(self) -> int:
        return self.of(UserVerdict.VALID)

    @property
    def unknown(self) -> int:
        return self.of(UserVerdict.UNKNOWN)

    @property
    def invalid(self) -> int:
        """The ids that are known to be of no valid user."""
        return self.total - self.valid - self.unknown

    def __add__(self, other: UserTotals) -> UserTotals:
        return UserTotals(
            by_verdict={verdict: self.of(verdict) + other.of(verdict) for verdict in UserVerdict}
        )
