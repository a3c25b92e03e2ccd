"""Keeps an eye on users whom somebody else keeps: whether they can be asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import ClassVar

from batchwork_server.clock import Clock
from batchwork_server.domain.user import UserVerdict
from batchwork_server.errors import ConfigurationError, SourceUnavailable
from batchwork_server.logs import get_logger
from batchwork_server.ports import OutsideUsers

log = get_logger(__name__)

USER_SOURCE = "user-source"
"""The name of its health."""

LONGEST_FIRST_LOOK = timedelta(seconds=10)
"""A server waits so long for its users before it starts without them."""


class UserSource:
    """Implements ``UserRepository`` with a source that may be away, which is told once.

    Attributes:
        is_well: Whether the source answered when it was asked last.
    """

    INTERVAL: ClassVar = timedelta(seconds=15)

    def __init__(self, source: OutsideUsers, *, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._answered_at: float | None = None
        self._is_away = False

    @property
    def is_well(self) -> bool:
        return self._answered_at is not None and not self._is_away

    async def verdicts(
        self, user_ids: Sequence[str], *, tenant_id: str
    ) -> Mapping[str, UserVerdict]:
        try:
            verdicts = await self._source.verdicts(user_ids, tenant_id=tenant_id)
        except SourceUnavailable as error:
            self._note_away(error)
            raise
        self._note_answer()
        return verdicts

    async def look_first(self) -> None:
        """Checks before anybody needs a user; a source that hangs only takes a while.

        Raises:
            ConfigurationError: it answers, and is not what the settings say.
        """
        try:
            async with asyncio.timeout(LONGEST_FIRST_LOOK.total_seconds()):
                await self.check()
        except TimeoutError:
            seconds = LONGEST_FIRST_LOOK.total_seconds()
            self._note_away(SourceUnavailable(f"It has not answered within {seconds:g} s."))

    async def check(self) -> None:
        """Looks at the source; one that is away is only told.

        Raises:
            ConfigurationError: it answers, and is not what the settings say.
        """
        try:
            await self._source.ping()
        except SourceUnavailable as error:
            self._note_away(error)
        else:
            self._note_answer()

    async def run_once(self) -> None:
        """Looks whether the source answers, unless it just did."""
        if self._has_just_answered():
            return
        try:
            await self.check()
        except ConfigurationError as error:
            self._note_away(error)

    def _has_just_answered(self) -> bool:
        if self._answered_at is None or self._is_away:
            return False
        silence = timedelta(seconds=self._clock.monotonic() - self._answered_at)
        return silence < self.INTERVAL

    def _note_answer(self) -> None:
        self._answered_at = self._clock.monotonic()
        if self._is_away:
            self._is_away = False
            log.info("user_source.back")

    def _note_away(self, error: SourceUnavailable | ConfigurationError) -> None:
        if not self._is_away:
            self._is_away = True
            log.warning("user_source.away", error=error.message)
