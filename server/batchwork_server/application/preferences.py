"""The use cases of preferences: reading, setting, deleting and listing what users wish for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

from batchwork_server.application.first_answers import FirstAnswers, Request
from batchwork_server.application.remembered_preferences import recalled, remembered
from batchwork_server.clock import Clock
from batchwork_server.domain.filters import PreferenceFilter
from batchwork_server.domain.json_object import comparable, listed, quoted
from batchwork_server.domain.preference import Preference, Wish, check_key, check_wish
from batchwork_server.domain.preference_groups import PreferenceChange
from batchwork_server.domain.submission import Idempotency
from batchwork_server.errors import EtagMismatch, InvalidArgument, NotFound, Violation
from batchwork_server.logs import get_logger
from batchwork_server.store.store import PreferenceKey, PreferencePlace, Store, Transaction

WISH_FIELDS = tuple(item.name for item in fields(Wish))
"""What an update mask may name."""

MAX_PREFERENCES = 1000
"""How many preferences one call sets."""

_ANEW = Idempotency()

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WishedPreference:
    """What one user is to wish for one feature.

    Attributes:
        etag: When given, that of the stored preference.
    """

    user_id: str
    feature_type: str
    wish: Wish
    etag: str = ""

    @property
    def key(self) -> PreferenceKey:
        return self.feature_type, self.user_id


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPreference:
    """A preference that was set.

    Attributes:
        changed: Whether it is different than before.
        group_left: The key of the group that the user left; None when they did not move.
        group_joined: Likewise.
    """

    preference: Preference
    changed: bool = False
    group_left: int | None = None
    group_joined: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetResult:
    """What became of one preference of many; as ``SetPreference``, without its content."""

    user_id: str
    feature_type: str
    etag: str
    changed: bool
    group_left: int | None
    group_joined: int | None


class Preferences:
    """Keeps what the users of tenants wish for features.

    Args:
        changed: Is told the tenant whose preferences have changed, once that is durable; it must
            not block.
    """

    def __init__(self, *, store: Store, clock: Clock, changed: Callable[[str], None]) -> None:
        self._store = store
        self._answers = FirstAnswers(store.requests)
        self._clock = clock
        self._changed = changed

    async def get_preference(
        self, *, user_id: str, feature_type: str, tenant_id: str
    ) -> Preference:
        """Returns one user's preference for one feature.

        Raises:
            NotFound: the user has set none.
        """
        preference = await self._store.preferences.get(
            user_id=user_id, feature_type=feature_type, tenant_id=tenant_id
        )
        if preference is None:
            raise NotFound("preference", f"{user_id}/{feature_type}")
        return preference

    async def set_preference(
        self,
        wish: Wish,
        *,
        user_id: str,
        feature_type: str,
        tenant_id: str,
        etag: str = "",
        update_mask: Sequence[str] = (),
        idempotency: Idempotency = _ANEW,
    ) -> SetPreference:
        """Sets one user's preference for one feature, and creates it when there is none.

        Setting what is set already changes nothing, not even the etag.

        Args:
            wish: What is wished.
            user_id: Who wishes it.
            feature_type: What it is about.
            tenant_id: The user's tenant.
            etag: When given, that of the stored preference.
            update_mask: Fields of the wish to set; empty or ``*`` means all. The others of a
                new preference are those of ``Wish()``: enabled, and nothing else.
            idempotency: Names the request; by default each call stands for itself.

        Raises:
            InvalidArgument: with everything that is wrong.
            EtagMismatch: somebody changed the preference; read it again.
            RequestIdReused: nothing was changed.
        """
        masked = masked_fields(update_mask)
        violations = check_key(user_id, feature_type, path="preference")
        violations += check_wish(wish, path="preference")
        refuse_any([*violations, *check_mask(masked)])
        wished = WishedPreference(user_id=user_id, feature_type=feature_type, wish=wish, etag=etag)
        request = Request(method="SetPreference", tenant_id=tenant_id, idempotency=idempotency)
        async with self._store.transaction() as tx:
            first = await self._answers.replay(tx, request, now=self._clock.now())
            if first is not None:
                return _answer_from(first, tenant_id=tenant_id)
            [done] = await self._set(tx, [wished], masked, tenant_id=tenant_id)
            await self._answers.remember(tx, request, _answer_to(done))
        if done.changed:
            self._changed(tenant_id)
        log.info(
            "preference.set",
            tenant_id=tenant_id,
            user_id=user_id,
            feature_type=feature_type,
            revision=done.preference.revision,
        )
        return done

    async def batch_set_preferences(
        self,
        wished: Sequence[WishedPreference],
        *,
        tenant_id: str,
        update_mask: Sequence[str] = (),
        idempotency: Idempotency = _ANEW,
    ) -> list[SetResult]:
        """Sets many preferences in one transaction, all of them or none.

        Returns:
            What became of each, in the same order.

        Raises:
            InvalidArgument: with everything that is wrong with any of them.
            EtagMismatch: somebody changed one of them; read it again.
            RequestIdReused: nothing was changed.
        """
        masked = masked_fields(update_mask)
        refuse_any([*_check_many(wished), *check_mask(masked)])
        request = Request(
            method="BatchSetPreferences", tenant_id=tenant_id, idempotency=idempotency
        )
        async with self._store.transaction() as tx:
            first = await self._answers.replay(tx, request, now=self._clock.now())
            if first is not None:
                return [SetResult(**result) for result in first["results"]]
            done = await self._set(tx, wished, masked, tenant_id=tenant_id)
            results = [_result_of(each) for each in done]
            answer = {"results": [_plain(result) for result in results]}
            await self._answers.remember(tx, request, answer)
        changed = sum(result.changed for result in results)
        if changed:
            self._changed(tenant_id)
        log.info("preferences.set", tenant_id=tenant_id, preferences=len(results), changed=changed)
        return results

    async def delete_preference(
        self,
        *,
        user_id: str,
        feature_type: str,
        tenant_id: str,
        etag: str = "",
        idempotency: Idempotency = _ANEW,
    ) -> int | None:
        """Deletes one user's preference for one feature.

        Returns:
            The key of the group that the user left, if they were in one.

        Raises:
            NotFound: the user has set none.
            EtagMismatch: somebody changed the preference; read it again.
            RequestIdReused: nothing was changed.
        """
        key = (feature_type, user_id)
        request = Request(method="DeletePreference", tenant_id=tenant_id, idempotency=idempotency)
        async with self._store.transaction() as tx:
            first = await self._answers.replay(tx, request, now=self._clock.now())
            if first is not None:
                group_left: int | None = first["group_left"]
                return group_left
            stored = (await self._store.preferences.lock(tx, [key], tenant_id=tenant_id)).get(key)
            if stored is None:
                raise NotFound("preference", f"{user_id}/{feature_type}")
            match_etag(etag, stored.etag, name=_name_of(user_id, feature_type))
            [change] = await self._store.preferences.delete(
                tx, [stored], tenant_id=tenant_id, now=self._clock.now()
            )
            await self._answers.remember(tx, request, {"group_left": change.group_left})
        self._changed(tenant_id)
        log.info(
            "preference.deleted", tenant_id=tenant_id, user_id=user_id, feature_type=feature_type
        )
        return change.group_left

    async def list_preferences(
        self,
        wanted: PreferenceFilter,
        *,
        page_size: int,
        after: PreferencePlace | None = None,
    ) -> tuple[list[Preference], PreferencePlace | None]:
        """Returns a page by tenant, feature and user, and where the next one starts."""
        return await self._store.preferences.list(wanted, page_size=page_size, after=after)

    async def _set(
        self,
        tx: Transaction,
        wished: Sequence[WishedPreference],
        masked: frozenset[str],
        *,
        tenant_id: str,
    ) -> list[SetPreference]:
        stored = await self._store.preferences.lock(
            tx, [each.key for each in wished], tenant_id=tenant_id
        )
        for each in wished:
            found = stored.get(each.key)
            match_etag(
                each.etag,
                None if found is None else found.etag,
                name=_name_of(each.user_id, each.feature_type),
            )
        now = self._clock.now()
        inactive = await self._store.inactive_users.among(
            [each.user_id for each in wished if each.key not in stored], tenant_id=tenant_id, tx=tx
        )
        after = [
            changed_preference(
                stored.get(each.key)
                or unset_preference(
                    each.user_id,
                    each.feature_type,
                    tenant_id=tenant_id,
                    now=now,
                    active=each.user_id not in inactive,
                ),
                each.wish,
                masked,
                now=now,
            )
            for each in wished
        ]
        differing = [
            each for each in after if stored.get((each.feature_type, each.user_id)) != each
        ]
        changes = await self._store.preferences.put(tx, differing, tenant_id=tenant_id, now=now)
        by_key = {(change.feature_type, change.user_id): change for change in changes}
        return [
            SetPreference(
                preference=_as_stored(each, change),
                changed=change is not None,
                group_left=None if change is None else change.group_left,
                group_joined=None if change is None else change.group_joined,
            )
            for each in after
            for change in [by_key.get((each.feature_type, each.user_id))]
        ]


def _as_stored(preference: Preference, change: PreferenceChange | None) -> Preference:
    if change is None:
        return preference
    return replace(preference, change_sequence=change.sequence)


def masked_fields(update_mask: Sequence[str]) -> frozenset[str]:
    """Returns the fields of a wish to set; empty or ``*`` means all."""
    return frozenset(WISH_FIELDS if not update_mask or "*" in update_mask else update_mask)


def check_mask(masked: frozenset[str]) -> list[Violation]:
    """Returns what a mask names that is no field of a wish."""
    return [
        Violation("update_mask", f"{quoted(name)} is none of {listed(WISH_FIELDS)}.")
        for name in sorted(masked.difference(WISH_FIELDS))
    ]


def refuse_any(violations: Sequence[Violation]) -> None:
    """Raises with everything that is wrong, if anything is."""
    if violations:
        raise InvalidArgument(violations)


def match_etag(etag: str, stored: str | None, *, name: str) -> None:
    """Raises when an etag was given and is not that of what is stored.

    Args:
        stored: None when nothing is stored.
        name: What it is about, for people.
    """
    if not etag or etag == stored:
        return
    if stored is None:
        raise EtagMismatch(f"There is no etag {quoted(etag)} to match: {name} is not set.")
    raise EtagMismatch(
        f"Somebody changed {name}: its etag is {quoted(stored)}, not {quoted(etag)}. Read it "
        "again.",
        metadata={"etag": stored},
    )


def unset_preference(
    user_id: str, feature_type: str, *, tenant_id: str, now: datetime, active: bool
) -> Preference:
    """Returns what a preference of a user is before it is set first: revision 0."""
    nothing = Wish()
    return Preference(
        tenant_id=tenant_id,
        user_id=user_id,
        feature_type=feature_type,
        enabled=nothing.enabled,
        schedule=nothing.schedule,
        template_overrides=nothing.template_overrides,
        revision=0,
        create_time=now,
        update_time=now,
        active=active,
    )


def changed_preference(
    base: Preference,
    wish: Wish,
    masked: frozenset[str],
    *,
    now: datetime,
    active: bool | None = None,
) -> Preference:
    """Returns the preference with the masked fields set; itself when it is so already.

    Args:
        active: None leaves it as it is.
    """
    active = base.active if active is None else active
    differs = active != base.active or any(
        comparable(getattr(base, name)) != comparable(getattr(wish, name)) for name in masked
    )
    if base.revision > 0 and not differs:
        return base
    wished: dict[str, Any] = {name: getattr(wish, name) for name in masked}
    return replace(base, **wished, active=active, revision=base.revision + 1, update_time=now)


def _check_many(wished: Sequence[WishedPreference]) -> list[Violation]:
    if not 1 <= len(wished) <= MAX_PREFERENCES:
        message = f"{len(wished)} preferences; 1 to {MAX_PREFERENCES} are allowed."
        return [Violation("preferences", message)]
    violations: list[Violation] = []
    for index, each in enumerate(wished):
        path = f"preferences[{index}]"
        violations += check_key(each.user_id, each.feature_type, path=path)
        violations += check_wish(each.wish, path=path)
    return [*violations, *repeated_keys(wished)]


def repeated_keys(wished: Sequence[WishedPreference]) -> list[Violation]:
    """Returns which of many preferences have the user and feature of one before."""
    violations: list[Violation] = []
    first_places: dict[PreferenceKey, int] = {}
    for index, each in enumerate(wished):
        first = first_places.setdefault(each.key, index)
        if first != index:
            name = _name_of(each.user_id, each.feature_type)
            message = f"preferences[{first}] has {name} already."
            violations.append(Violation(f"preferences[{index}]", message))
    return violations


def _name_of(user_id: str, feature_type: str) -> str:
    return f"the preference of {quoted(user_id)} for {quoted(feature_type)}"


def _result_of(done: SetPreference) -> SetResult:
    return SetResult(
        user_id=done.preference.user_id,
        feature_type=done.preference.feature_type,
        etag=done.preference.etag,
        changed=done.changed,
        group_left=done.group_left,
        group_joined=done.group_joined,
    )


def _plain(result: SetResult) -> dict[str, Any]:
    return {item.name: getattr(result, item.name) for item in fields(SetResult)}


def _answer_to(done: SetPreference) -> dict[str, Any]:
    return {
        **remembered(done.preference),
        "group_left": done.group_left,
        "group_joined": done.group_joined,
    }


def _answer_from(document: Mapping[str, Any], *, tenant_id: str) -> SetPreference:
    return SetPreference(
        preference=recalled(document, tenant_id=tenant_id),
        group_left=document.get("group_left"),
        group_joined=document.get("group_joined"),
    )
