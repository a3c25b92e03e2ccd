"""Tells which users a batch would reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batchwork_server.domain.json_object import is_line
from batchwork_server.domain.user import UserVerdict
from batchwork_server.errors import Unavailable
from batchwork_server.ports import UserRepository

LONGEST_USER_ID = 128


def is_user_id(value: str) -> bool:
    """Tells whether a text can be a user's id at all."""
    return is_line(value, longest=LONGEST_USER_ID)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCheck:
    """What is known of one user id."""

    user_id: str
    verdict: UserVerdict


@dataclass(frozen=True, slots=True, kw_only=True)
class UserReport:
    """A check for each id that was asked for, in that order, the same id as often as it came."""

    checks: tuple[UserCheck, ...]

    @property
    def total(self) -> int:
        return len(self.checks)

    @property
    def valid(self) -> int:
        return sum(check.verdict is UserVerdict.VALID for check in self.checks)

    @property
    def invalid(self) -> int:
        return self.total - self.valid


class Validation:
    """Validates what callers name, before anything works on it."""

    def __init__(self, users: UserRepository) -> None:
        self._users = users

    async def validate_users(self, user_ids: Sequence[str], *, tenant_id: str) -> UserReport:
        """Answers for each id; all well-formed ids are UNKNOWN while the source is away."""
        try:
            verdicts = await self.verdicts(user_ids, tenant_id=tenant_id)
        except Unavailable:
            verdicts = {user_id: _verdict_without_source(user_id) for user_id in user_ids}
        checks = [UserCheck(user_id=user_id, verdict=verdicts[user_id]) for user_id in user_ids]
        return UserReport(checks=tuple(checks))

    async def verdicts(
        self, user_ids: Sequence[str], *, tenant_id: str
    ) -> Mapping[str, UserVerdict]:
        """Returns a verdict for each distinct id.

        Raises:
            Unavailable: the source is away; no batch is to be made on half a knowledge.
        """
        distinct = dict.fromkeys(user_ids)
        askable = [user_id for user_id in distinct if is_user_id(user_id)]
        known = await self._users.verdicts(askable, tenant_id=tenant_id) if askable else {}
        return {user_id: known.get(user_id, UserVerdict.MALFORMED) for user_id in distinct}


def _verdict_without_source(user_id: str) -> UserVerdict:
    return UserVerdict.UNKNOWN if is_user_id(user_id) else UserVerdict.MALFORMED
