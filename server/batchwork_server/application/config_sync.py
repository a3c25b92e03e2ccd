"""Stores what a Config Database says about the users of a tenant."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from batchwork_server.application.override_notices import OverrideNotices, SaidOverrides
from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Notice
from batchwork_server.domain.config_source import SourcePlace, UserWishes
from batchwork_server.domain.json_object import child_path, comparable
from batchwork_server.domain.preference import Preference, Wish
from batchwork_server.store.store import PreferenceKey, Store, Transaction

_USERS_AT_ONCE = 500
_MOST_NOTICES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncCounts:
    """What became of the preferences of some users.

    Attributes:
        notices: Overrides of those that were set which the templates do not know or do not allow;
            the first thousand.
    """

    set: int = 0
    deleted: int = 0
    unchanged: int = 0
    notices: tuple[Notice, ...] = ()

    @property
    def changed(self) -> int:
        return self.set + self.deleted

    def __add__(self, other: SyncCounts) -> SyncCounts:
        return SyncCounts(
            set=self.set + other.set,
            deleted=self.deleted + other.deleted,
            unchanged=self.unchanged + other.unchanged,
            notices=(self.notices + other.notices)[:_MOST_NOTICES],
        )


class ConfigSync:
    """Makes preferences what a source says, and keeps up to where it was read.

    Several servers may do so for one source: each page is stored only while the source is where
    the reader believes it to be, so that nobody overwrites what is newer and goes on from there.

    Args:
        tenant_id: Whose users the source has.
        source: Names the source; another name is read from the beginning.
        changed: Told the tenant whose preferences have changed.
        overrides: Compares what users say of templates with them.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        tenant_id: str,
        source: str,
        changed: Callable[[str], None],
        overrides: OverrideNotices,
    ) -> None:
        self._store = store
        self._clock = clock
        self._overrides = overrides
        self._changed = changed
        self._tenant_id = tenant_id
        self._source = source

    async def place(self) -> SourcePlace | None:
        """Returns up to where the source was read; none before it was read to the end once."""
        return await self._store.config_sources.get(self._source, tenant_id=self._tenant_id)

    async def apply(
        self, users: Sequence[UserWishes], *, at: SourcePlace | None
    ) -> SyncCounts | None:
        """Makes what is stored of users what they wish now; of others nothing changes.

        Setting what is set already changes nothing. A repeat is harmless.

        Args:
            users: Each of them once.
            at: Up to where the source had been read when these were read.

        Returns:
            What became of them; none when somebody else has read on meanwhile. What is not stored
            then was, or will be, by them.

        Raises:
            StoreUnavailable: some are stored; safe to call again.
        """
        counts = SyncCounts()
        for first in range(0, len(users), _USERS_AT_ONCE):
            stored = await self._apply_some(users[first : first + _USERS_AT_ONCE], at=at)
            if stored is None:
                return None
            counts += stored
        return counts

    async def move(self, then: SourcePlace, *, at: SourcePlace | None) -> bool:
        """Notes up to where the source is stored; tells whether nobody else had moved it."""
        async with self._store.transaction() as tx:
            if await self._place_in(tx) != at:
                return False
            await self._store.config_sources.put(tx, then, self._source, tenant_id=self._tenant_id)
        return True

    async def _place_in(self, tx: Transaction) -> SourcePlace | None:
        return await self._store.config_sources.lock(tx, self._source, tenant_id=self._tenant_id)

    async def _apply_some(
        self, users: Sequence[UserWishes], *, at: SourcePlace | None
    ) -> SyncCounts | None:
        user_ids = [user.user_id for user in users]
        preferences, tenant_id = self._store.preferences, self._tenant_id
        # Of a million users who are read again nearly all are as they were: they hold up nobody.
        seen = await preferences.of_users(user_ids, tenant_id=tenant_id)
        inactive = await self._store.inactive_users.among(user_ids, tenant_id=tenant_id)
        difference = _difference(users, seen, inactive, tenant_id=tenant_id, now=self._clock.now())
        if not difference.counts.changed and not difference.active:
            return difference.counts
        async with self._store.transaction() as tx:
            if await self._place_in(tx) != at:
                return None
            now = self._clock.now()
            locked = await preferences.lock_users(tx, user_ids, tenant_id=tenant_id)
            inactive = await self._store.inactive_users.among(user_ids, tenant_id=tenant_id, tx=tx)
            difference = _difference(users, locked, inactive, tenant_id=tenant_id, now=now)
            await preferences.put(tx, difference.wanted, tenant_id=tenant_id, now=now)
            await preferences.delete(tx, difference.gone, tenant_id=tenant_id, now=now)
            await self._store.inactive_users.put(tx, difference.active, tenant_id=tenant_id)
        if difference.counts.changed:
            self._changed(tenant_id)
        notices = await self._notices_of(difference.wanted)
        return replace(difference.counts, notices=notices)

    async def _notices_of(self, preferences: Sequence[Preference]) -> tuple[Notice, ...]:
        said = [
            SaidOverrides(
                path=f"{child_path(child_path('users', each.user_id), each.feature_type)}"
                ".template_overrides",
                feature_type=each.feature_type,
                overrides=each.template_overrides,
            )
            for each in preferences
        ]
        return await self._overrides.of(said, tenant_id=self._tenant_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Difference:
    """What is to be done so that preferences are what users wish.

    Attributes:
        active: Of users who are active now and were not, or the other way round, whether they are.
    """

    wanted: Sequence[Preference]
    gone: Sequence[Preference]
    active: Mapping[str, bool]
    counts: SyncCounts


def _difference(
    users: Sequence[UserWishes],
    before: Mapping[PreferenceKey, Preference],
    inactive: Collection[str],
    *,
    tenant_id: str,
    now: datetime,
) -> _Difference:
    wished = {
        (feature_type, user.user_id): _preference(
            before.get((feature_type, user.user_id)),
            user,
            feature_type,
            wish,
            tenant_id=tenant_id,
            now=now,
        )
        for user in users
        for feature_type, wish in user.wishes.items()
    }
    wanted = [each for key, each in wished.items() if each is not before.get(key)]
    gone = [each for key, each in before.items() if key not in wished]
    return _Difference(
        wanted=wanted,
        gone=gone,
        active={
            user.user_id: user.active is not False
            for user in users
            if (user.user_id in inactive) is (user.active is not False)
        },
        counts=SyncCounts(set=len(wanted), deleted=len(gone), unchanged=len(wished) - len(wanted)),
    )


def _preference(
    before: Preference | None,
    user: UserWishes,
    feature_type: str,
    wish: Wish,
    *,
    tenant_id: str,
    now: datetime,
) -> Preference:
    """Returns what is to be stored; the stored one itself when it is so already."""
    active = user.active is not False
    if before is not None and _is_so(before, wish, active=active):
        return before
    return Preference(
        tenant_id=tenant_id,
        user_id=user.user_id,
        feature_type=feature_type,
        enabled=wish.enabled,
        schedule=wish.schedule,
        template_overrides=wish.template_overrides,
        active=active,
        revision=1 if before is None else before.revision + 1,
        create_time=now if before is None else before.create_time,
        update_time=now,
    )


def _is_so(before: Preference, wish: Wish, *, active: bool) -> bool:
    return (
        before.active is active
        and before.enabled is wish.enabled
        and before.schedule == wish.schedule
        and comparable(before.template_overrides) == comparable(wish.template_overrides)
    )
