"""Finds out whether a Config Database and what is stored of it have drifted apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta

from batchwork_server.clock import Clock
from batchwork_server.domain.config_source import SourcePlace
from batchwork_server.domain.preference_groups import schedule_text
from batchwork_server.errors import SourceUnavailable
from batchwork_server.logs import get_logger
from batchwork_server.ports import ConfigDatabase
from batchwork_server.store.store import GroupPlace, Store

log = get_logger(__name__)

LOOKS = 12
"""At most so many looks while an answer is used again (``CONFIG_CACHE_TTL``)."""

READINGS = 4
"""At most so many readings of everything in that time because of what the looks found."""

_MOST_FEATURES = 100
_GROUPS_PAGE = 1000
_FRESH = timedelta(0)

_Group = tuple[str, str]
"""A feature, and the spelling of the schedule that its users wish."""


class ConfigDrift:
    """Compares how many users wish which schedule, there and here.

    A change may be on its way, so what differs has to differ on two looks. What differs right
    after everything was read stays so when it is read again, such as users whose document is
    broken, or whom only we know: that is known, and no reason to read.

    Args:
        tenant_id: Whose users the source has.
        ttl: How long after everything was read it is read again anyhow.
    """

    def __init__(
        self,
        source: ConfigDatabase,
        *,
        store: Store,
        tenant_id: str,
        ttl: timedelta,
        clock: Clock,
    ) -> None:
        self._source = source
        self._store = store
        self._tenant_id = tenant_id
        self._ttl = ttl
        self._clock = clock
        self._start = clock.now()
        self._looked_at: float | None = None
        self._read_time: datetime | None = None
        self._known: Mapping[_Group, int] = {}
        self._suspects: frozenset[_Group] = frozenset()
        self._without_groups: set[str] = set()
        self._is_answered = True

    async def take_stock(self, place: SourcePlace) -> None:
        """Notes what differs just after everything was read."""
        seen = await self._differences()
        if seen is not None:
            self._begin(place, known=seen)

    async def is_found(self, place: SourcePlace) -> bool:
        """Looks, unless it did so a short while ago, when the source has no change to tell.

        Returns:
            Whether everything is to be read again now.

        Raises:
            StoreUnavailable: the next look is as good.
        """
        if place.read_time != self._read_time:
            if self._read_time is not None or place.read_time >= self._start:
                await self.take_stock(place)  # another server has read everything
                return False
            self._begin(place, known={})
        if not self._is_time():
            return False
        seen = await self._differences()
        if seen is None:
            return False
        self._known = {group: known for group, known in self._known.items() if group in seen}
        odd = frozenset(g for g, difference in seen.items() if difference != self._known.get(g))
        lasting, self._suspects = odd & self._suspects, odd
        if not lasting or self._clock.now() - place.read_time < self._ttl / READINGS:
            return False
        self._suspects = frozenset()
        self._tell({group: seen[group] for group in lasting})
        return True

    def _begin(self, place: SourcePlace, *, known: Mapping[_Group, int]) -> None:
        self._read_time, self._known, self._suspects = place.read_time, known, frozenset()

    def _is_time(self) -> bool:
        if self._looked_at is None:
            return True
        return self._clock.monotonic() - self._looked_at >= self._ttl.total_seconds() / LOOKS

    async def _differences(self) -> Mapping[_Group, int] | None:
        """Returns how many users more the source counts, where that is not none.

        Returns:
            None when the source did not tell.
        """
        self._looked_at = self._clock.monotonic()
        features = await self._store.jobs.driven_features(
            tenant_id=self._tenant_id, limit=_MOST_FEATURES
        )
        differences: Counter[_Group] = Counter()
        missing = []
        for feature_type in features:
            if feature_type in self._without_groups:
                continue
            try:
                answer = await self._source.groups(feature_type, max_age=_FRESH)
            except SourceUnavailable as error:
                self._note_answer(feature_type, error=error.message)
                return None
            if answer.is_stale:
                self._note_answer(feature_type, error="What it answered before is of no use.")
                return None
            self._note_answer(feature_type)
            if answer.value is None:
                missing.append(feature_type)
                continue
            for group in answer.value:
                differences[feature_type, schedule_text(group.schedule)] += group.user_count
            differences.subtract(await self._stored(feature_type))
        self._give_up(missing)
        return {group: difference for group, difference in differences.items() if difference}

    async def _stored(self, feature_type: str) -> dict[_Group, int]:
        stored: dict[_Group, int] = {}
        after: GroupPlace | None = None
        while True:
            groups, after = await self._store.preference_groups.list(
                tenant_id=self._tenant_id,
                feature_type=feature_type,
                with_empty=False,
                page_size=_GROUPS_PAGE,
                after=after,
            )
            for group in groups:
                stored[feature_type, schedule_text(group.schedule)] = group.member_count
            if after is None:
                return stored

    def _note_answer(self, feature_type: str, *, error: str = "") -> None:
        """Tells once that the source does not say its groups."""
        if error and self._is_answered:
            log.warning("config_source.groups_unanswered", feature_type=feature_type, error=error)
        self._is_answered = not error

    def _give_up(self, missing: list[str]) -> None:
        """Tells of which features the source has no groups; they are not asked for again."""
        if missing:
            log.warning(
                "config_source.groups_missing",
                feature_types=missing,
                action="answer /preferences/groups?feature_type= as docs/config-service.md says, "
                "and restart; until then changes that are not told are found by CONFIG_CACHE_TTL",
            )
            self._without_groups.update(missing)

    def _tell(self, lasting: Mapping[_Group, int]) -> None:
        for feature_type in sorted({feature_type for feature_type, _ in lasting}):
            of_feature = [n for (feature, _), n in lasting.items() if feature == feature_type]
            log.warning(
                "config_source.drift",
                feature_type=feature_type,
                groups=len(of_feature),
                missing_users=sum(n for n in of_feature if n > 0),
                surplus_users=-sum(n for n in of_feature if n < 0),
                action="every user is read again; see that /preferences/changes tells each change",
            )
