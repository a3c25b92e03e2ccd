"""Follows a Config Database: what users wish there is what they wish here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Protocol

from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Notice
from batchwork_server.domain.config_source import SourcePlace, UserWishes, WishPage
from batchwork_server.domain.json_object import quoted
from batchwork_server.errors import SourceUnavailable, Violation
from batchwork_server.logs import get_logger
from batchwork_server.ports import ConfigDatabase

log = get_logger(__name__)

CONFIG_SOURCE = "config-source"
"""The name of its health."""

MAX_LOGGED = 100
"""So many problems stand in one line of the log; of the others their number."""


class Counts(Protocol):
    """What became of preferences."""

    @property
    def set(self) -> int: ...
    @property
    def deleted(self) -> int: ...
    @property
    def unchanged(self) -> int: ...
    @property
    def notices(self) -> tuple[Notice, ...]:
        """Of those that were set: what the templates do not know or do not allow."""
        ...


class Sync(Protocol):
    """What the source's users are given to."""

    async def place(self) -> SourcePlace | None:
        """Returns up to where the source was read; none before it was read to the end once."""
        ...

    async def apply(self, users: Sequence[UserWishes], *, at: SourcePlace | None) -> Counts | None:
        """Stores what users wish; none when somebody else has read on meanwhile.

        Raises:
            StoreUnavailable: safe to call again.
        """
        ...

    async def move(self, then: SourcePlace, *, at: SourcePlace | None) -> bool:
        """Notes up to where the source is stored, unless somebody else has."""
        ...


class Drift(Protocol):
    """Finds out whether what is stored is something else than what the source has."""

    async def take_stock(self, place: SourcePlace) -> None:
        """Notes what differs just after everything was read."""
        ...

    async def is_found(self, place: SourcePlace) -> bool:
        """Tells whether everything is to be read again, while the source tells no change."""
        ...


class PreferencePoller:
    """Asks a source for changes, and for everything when it must; two of these do no harm.

    Args:
        interval: How long after a look the next one comes.
        reread: How long after everything was read it is read again, whatever changes are told.

    Attributes:
        interval: As given.
    """

    def __init__(
        self,
        source: ConfigDatabase,
        *,
        sync: Sync,
        drift: Drift,
        interval: timedelta,
        reread: timedelta,
        clock: Clock,
    ) -> None:
        self._source = source
        self._sync = sync
        self._drift = drift
        self.interval = interval
        self._reread = reread
        self._clock = clock
        self._answered_at: float | None = None
        self._is_away = False

    @property
    def is_well(self) -> bool:
        """Tells whether the source answered within the last three intervals."""
        if self._answered_at is None:
            return False
        silence = timedelta(seconds=self._clock.monotonic() - self._answered_at)
        return silence <= 3 * self.interval

    async def run_once(self) -> None:
        """Stores what the source says now.

        A source that is away is told once; what was read before stays as it is.

        Raises:
            StoreUnavailable: the next look goes on from there.
        """
        place = await self._sync.place()
        try:
            await self._look(place)
        except SourceUnavailable as error:
            self._note_away(error, place)
            return
        self._note_answer()
        if self._is_away:
            self._is_away = False
            log.info("config_source.back")

    async def _look(self, place: SourcePlace | None) -> None:
        if place is None or self._clock.now() - place.read_time >= self._reread:
            reads_all = True
        else:
            is_quiet = await self._read_changes(place)
            reads_all = is_quiet and await self._drift.is_found(place)
        if reads_all:
            await self._read_all(place)

    async def _read_changes(self, place: SourcePlace) -> bool:
        """Stores what has changed; tells whether nothing has."""
        more = True
        while more:
            changes = await self._source.changes(place.change_id)
            if changes is None:
                log.warning("config_source.changes_forgotten", since_id=place.change_id)
                await self._read_all(place)
                return False
            self._note_answer()
            self._tell(changes.problems)
            if changes.last_id == place.change_id and not changes.users:
                return True
            then = SourcePlace(
                change_id=changes.last_id, read_time=place.read_time, revision=place.revision + 1
            )
            counts = await self._sync.apply(changes.users, at=place)
            if counts is None or not await self._sync.move(then, at=place):
                return False
            if counts.set or counts.deleted:
                log.info("config_source.changed", last_id=then.change_id, **_told(counts))
            self._tell_overrides(counts.notices)
            place, more = then, changes.more_follow
        return False

    async def _read_all(self, place: SourcePlace | None) -> None:
        """Reads every user; what changes meanwhile is among the changes after that."""
        begin = self._clock.now()
        newest = await self._source.newest_change()
        totals = {"users": 0, "set": 0, "deleted": 0, "unchanged": 0}
        async for page in self._pages():
            self._note_page()
            counts = await self._sync.apply(page.users, at=place)
            if counts is None:
                return
            told = {"users": len(page.users), **_told(counts)}
            totals = {name: totals[name] + told[name] for name in totals}
            self._tell(page.problems)
            self._tell_overrides(counts.notices)
        revision = 1 if place is None else place.revision + 1
        then = SourcePlace(change_id=newest, read_time=begin, revision=revision)
        if await self._sync.move(then, at=place):
            log.info("config_source.read", last_id=newest, **totals)
            await self._drift.take_stock(then)

    async def _pages(self) -> AsyncIterator[WishPage]:
        tokens = {""}
        page = await self._source.all_users()
        yield page
        while page.next_page_token:
            if page.next_page_token in tokens:
                raise SourceUnavailable(
                    "The pages of Config Database lead back to one that was read: its "
                    f"next_page_token is {quoted(page.next_page_token)} again."
                )
            tokens.add(page.next_page_token)
            page = await self._source.all_users(page_token=page.next_page_token)
            yield page

    def _note_answer(self) -> None:
        self._answered_at = self._clock.monotonic()

    def _note_page(self) -> None:
        """A page of a long reading is an answer, once there is something to serve users with."""
        if self._answered_at is not None:
            self._note_answer()

    def _note_away(self, error: SourceUnavailable, place: SourcePlace | None) -> None:
        if self._is_away:
            return
        self._is_away = True
        log.warning("config_source.away", error=error.message, age=self._age(place))

    def _age(self, place: SourcePlace | None) -> float | None:
        """Returns how many seconds old what users are served by is; none when there is nothing."""
        if self._answered_at is not None:
            return self._clock.monotonic() - self._answered_at
        return None if place is None else (self._clock.now() - place.read_time).total_seconds()

    def _tell(self, problems: Sequence[Violation]) -> None:
        if problems:
            some = [{"path": found.path, "message": found.message} for found in problems]
            log.warning(
                "config_source.problems", problem_count=len(problems), problems=some[:MAX_LOGGED]
            )

    def _tell_overrides(self, notices: Sequence[Notice]) -> None:
        if notices:
            some = [
                {"path": notice.path, "reason": notice.reason, "message": notice.message}
                for notice in notices[:MAX_LOGGED]
            ]
            log.warning("config_source.overrides", notice_count=len(notices), notices=some)


def _told(counts: Counts) -> dict[str, int]:
    return {"set": counts.set, "deleted": counts.deleted, "unchanged": counts.unchanged}
