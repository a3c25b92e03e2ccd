"""Tells which users a batch would reach."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from batchwork_server.application.reading_ahead import answered_in_order
from batchwork_server.domain.json_object import are_lines, is_line
from batchwork_server.domain.user import UsersAway, UserTotals, UserVerdict
from batchwork_server.errors import ShuttingDown, SourceUnavailable, Unavailable
from batchwork_server.ports import Meter, UserRepository

LONGEST_USER_ID = 128

_AT_ONCE = 3
"""Pages of a stream that are held at once: one comes, and two are asked for."""


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
    """A check for each id that is told, in the order of the question, as often as it came.

    Attributes:
        totals: Of all ids that were asked for, those of valid users included.
    """

    checks: tuple[UserCheck, ...]
    totals: UserTotals


@dataclass(frozen=True, slots=True, kw_only=True)
class UserPage:
    """Some of many ids.

    Attributes:
        include_valid: Whether those of valid users are told, too.
    """

    user_ids: Sequence[str]
    include_valid: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UserPageReport:
    """What is known of a page.

    Attributes:
        running_totals: Of the pages so far, this one included.
    """

    report: UserReport
    running_totals: UserTotals


class Validation:
    """Validates what callers name, before anything works on it."""

    def __init__(self, users: UserRepository, *, meter: Meter | None = None) -> None:
        self._users = users
        self._meter = meter
        self._closing = False

    def close(self) -> None:
        """Ends every stream with its next page; those before it are answered."""
        self._closing = True

    async def validate_users(
        self, user_ids: Sequence[str], *, tenant_id: str, include_valid: bool = True
    ) -> UserReport:
        """Answers for each id; all well-formed ids are UNKNOWN while the source is away."""
        try:
            verdicts = await self.verdicts(user_ids, tenant_id=tenant_id)
        except Unavailable:
            verdicts = {user_id: _verdict_without_source(user_id) for user_id in user_ids}
            self._count(verdicts)
        found = [verdicts[user_id] for user_id in user_ids]
        checks = [
            UserCheck(user_id=user_id, verdict=verdict)
            for user_id, verdict in zip(user_ids, found, strict=True)
            if include_valid or verdict is not UserVerdict.VALID
        ]
        return UserReport(checks=tuple(checks), totals=UserTotals(by_verdict=Counter(found)))

    async def stream_validate_users(
        self, pages: AsyncIterable[UserPage], *, tenant_id: str
    ) -> AsyncGenerator[UserPageReport, None]:
        """Yields a report for each page, in order; a few pages are worked on at once.

        Raises:
            ShuttingDown: the server stops; the pages before are answered.
        """

        async def validate(page: UserPage) -> UserReport:
            return await self.validate_users(
                page.user_ids, tenant_id=tenant_id, include_valid=page.include_valid
            )

        totals = UserTotals()
        reports = answered_in_order(self._until_closing(pages), validate, at_once=_AT_ONCE)
        async with aclosing(reports):
            async for report in reports:
                totals += report.totals
                yield UserPageReport(report=report, running_totals=totals)

    async def _until_closing(
        self, pages: AsyncIterable[UserPage]
    ) -> AsyncGenerator[UserPage, None]:
        async for page in pages:
            if self._closing:
                raise ShuttingDown("The server shuts down; validate the other users once more.")
            yield page

    async def verdicts(
        self, user_ids: Sequence[str], *, tenant_id: str, away: UsersAway = UsersAway.FAIL
    ) -> Mapping[str, UserVerdict]:
        """Returns a verdict for each distinct id.

        Args:
            away: Whether to tell that nothing is known of anybody while the source is away, for
                whoever can make something of that; FAIL tells nothing.

        Raises:
            Unavailable: the source is away.
        """
        distinct = dict.fromkeys(user_ids, UserVerdict.MALFORMED)
        askable = _askable(list(distinct))
        if askable:
            try:
                distinct.update(await self._users.verdicts(askable, tenant_id=tenant_id))
            except SourceUnavailable:  # our own database would not take the batch either
                if away is UsersAway.FAIL:
                    raise
                distinct.update(dict.fromkeys(askable, UserVerdict.UNKNOWN))
        self._count(distinct)
        return distinct

    def _count(self, verdicts: Mapping[str, UserVerdict]) -> None:
        if self._meter is not None:
            self._meter.users_validated(Counter(verdicts.values()))


def _askable(user_ids: list[str]) -> list[str]:
    # One look at all of them together, as nearly always all is well: it takes a tenth of the time.
    if are_lines(user_ids, longest=LONGEST_USER_ID):
        return user_ids
    return [user_id for user_id in user_ids if is_user_id(user_id)]


def _verdict_without_source(user_id: str) -> UserVerdict:
    return UserVerdict.UNKNOWN if is_user_id(user_id) else UserVerdict.MALFORMED
