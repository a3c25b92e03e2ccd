"""The use case of importing preferences in the documents' JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from batchwork_server.application.first_answers import FirstAnswers, Request
from batchwork_server.application.preferences import (
    MAX_PREFERENCES,
    WISH_FIELDS,
    changed_preference,
    refuse_any,
    unset_preference,
)
from batchwork_server.clock import Clock
from batchwork_server.domain.config_source import UserWishes
from batchwork_server.domain.json_object import comparable
from batchwork_server.domain.preference import Preference
from batchwork_server.domain.preference_file import parse_preference_file
from batchwork_server.domain.submission import Idempotency
from batchwork_server.logs import get_logger
from batchwork_server.store.store import PreferenceKey, Store

_METHOD = "ImportPreferences"
_ALL = frozenset(WISH_FIELDS)
_COMPARED = ("active", *sorted(WISH_FIELDS))
_ANEW = Idempotency()

log = get_logger(__name__)


class ImportKind(StrEnum):
    """What an import does to a preference."""

    CREATED = "CREATED"
    UPDATED = "UPDATED"  # it differs and gets a new revision
    UNCHANGED = "UNCHANGED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedPreference:
    """What an import does to one preference.

    Attributes:
        changed_fields: ``active`` and names of ``Wish``, sorted; only with UPDATED.
    """

    user_id: str
    feature_type: str
    kind: ImportKind
    changed_fields: tuple[str, ...] = ()


class PreferenceImports:
    """Takes preferences over from documents.

    Args:
        changed: Is told the tenant whose preferences have changed, once that is durable; it must
            not block.
    """

    def __init__(self, *, store: Store, clock: Clock, changed: Callable[[str], None]) -> None:
        self._store = store
        self._answers = FirstAnswers(store.requests)
        self._clock = clock
        self._changed = changed

    async def read(self, text: str) -> list[UserWishes]:
        """Reads a text in a thread: a large one takes a while.

        Raises:
            InvalidArgument: with everything that is wrong, by JSON path.
        """
        users, violations = await asyncio.to_thread(parse_preference_file, text)
        refuse_any(violations)
        return users

    async def import_preferences(
        self,
        users: Sequence[UserWishes],
        *,
        tenant_id: str,
        idempotency: Idempotency = _ANEW,
        validate_only: bool = False,
    ) -> list[ImportedPreference]:
        """Stores the preferences of users, all of them or none.

        What a user has set for other features stays, but for ``active``, which counts for all:
        also for features for which they have set nothing.

        Args:
            validate_only: Answers with the difference and stores nothing.

        Raises:
            RequestIdReused: nothing was changed.
        """
        now = self._clock.now()
        # What stores nothing is answered anew each time, and keeps no answer either.
        named = _ANEW if validate_only else idempotency
        request = Request(method=_METHOD, tenant_id=tenant_id, idempotency=named)
        async with self._store.transaction() as tx:
            first = await self._answers.replay(tx, request, now=now)
            if first is not None:
                return [_imported_from(each) for each in first["preferences"]]
            stored = await self._store.preferences.lock_users(
                tx, [user.user_id for user in users], tenant_id=tenant_id
            )
            inactive = await self._store.inactive_users.among(
                [user.user_id for user in users], tenant_id=tenant_id, tx=tx
            )
            after = _after(users, stored, inactive, tenant_id=tenant_id, now=now)
            imported = [_difference(stored.get(key), each) for key, each in after.items()]
            differing = [each for key, each in after.items() if stored.get(key) != each]
            if not validate_only:
                for start in range(0, len(differing), MAX_PREFERENCES):
                    page = differing[start : start + MAX_PREFERENCES]
                    await self._store.preferences.put(tx, page, tenant_id=tenant_id, now=now)
                said = {user.user_id: user.active for user in users if user.active is not None}
                await self._store.inactive_users.put(tx, said, tenant_id=tenant_id)
            answer = {"preferences": [_imported_to(each) for each in imported]}
            await self._answers.remember(tx, request, answer)
        if differing and not validate_only:
            self._changed(tenant_id)
            log.info(
                "preferences.imported",
                tenant_id=tenant_id,
                preferences=len(imported),
                changed=len(differing),
            )
        return imported


def _after(
    users: Sequence[UserWishes],
    stored: Mapping[PreferenceKey, Preference],
    inactive: Collection[str],
    *,
    tenant_id: str,
    now: datetime,
) -> dict[PreferenceKey, Preference]:
    """Returns the preferences that are named, as they are after the import, then the others.

    Of the others only those that change.
    """
    after: dict[PreferenceKey, Preference] = {}
    for user in users:
        for feature_type, wish in user.wishes.items():
            key = (feature_type, user.user_id)
            base = stored.get(key) or unset_preference(
                user.user_id,
                feature_type,
                tenant_id=tenant_id,
                now=now,
                active=user.user_id not in inactive,
            )
            after[key] = changed_preference(base, wish, _ALL, now=now, active=user.active)
    active = {user.user_id: user.active for user in users}
    for key, preference in sorted(stored.items()):
        if key not in after:
            changed = changed_preference(
                preference,
                preference.wish,
                frozenset(),
                now=now,
                active=active[preference.user_id],
            )
            if changed != preference:
                after[key] = changed
    return after


def _difference(before: Preference | None, after: Preference) -> ImportedPreference:
    kind, changed = ImportKind.CREATED, tuple[str, ...]()
    if before is not None:
        changed = tuple(
            name
            for name in _COMPARED
            if comparable(getattr(before, name)) != comparable(getattr(after, name))
        )
        kind = ImportKind.UPDATED if changed else ImportKind.UNCHANGED
    return ImportedPreference(
        user_id=after.user_id,
        feature_type=after.feature_type,
        kind=kind,
        changed_fields=changed,
    )


def _imported_to(imported: ImportedPreference) -> dict[str, Any]:
    return {
        "user_id": imported.user_id,
        "feature_type": imported.feature_type,
        "kind": imported.kind,
        "changed_fields": imported.changed_fields,
    }


def _imported_from(document: Mapping[str, Any]) -> ImportedPreference:
    return ImportedPreference(
        user_id=document["user_id"],
        feature_type=document["feature_type"],
        kind=ImportKind(document["kind"]),
        changed_fields=tuple(document["changed_fields"]),
    )
