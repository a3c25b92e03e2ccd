"""The use cases of preferences: reading, setting and listing what users wish for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from typing import Any

from batchwork_server.clock import Clock
from batchwork_server.domain.filters import PreferenceFilter
from batchwork_server.domain.json_object import comparable, listed, quoted
from batchwork_server.domain.preference import Preference, Wish, check_key, check_wish
from batchwork_server.domain.schedule import parse_schedule, render_schedule
from batchwork_server.domain.submission import Idempotency
from batchwork_server.errors import EtagMismatch, InvalidArgument, NotFound, Violation
from batchwork_server.logs import get_logger
from batchwork_server.store.store import Store

WISH_FIELDS = tuple(item.name for item in fields(Wish))
"""What an update mask may name."""

_METHOD = "SetPreference"
_ANEW = Idempotency()

log = get_logger(__name__)


class Preferences:
    """Keeps what the users of tenants wish for features."""

    def __init__(self, *, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

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
    ) -> Preference:
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
        masked = _check(wish, user_id=user_id, feature_type=feature_type, update_mask=update_mask)
        now = self._clock.now()
        key = {"user_id": user_id, "feature_type": feature_type}
        request = {
            "tenant_id": tenant_id,
            "method": _METHOD,
            "request_id": idempotency.request_id,
        }
        async with self._store.transaction() as tx:
            if idempotency.request_id:
                first = await self._store.requests.replay(
                    tx, **request, request_hash=idempotency.request_hash, now=now
                )
                if first is not None:
                    return _answer_from(first)
            name = (feature_type, user_id)
            stored = (await self._store.preferences.lock(tx, [name], tenant_id=tenant_id)).get(name)
            _match(etag, stored, **key)
            base = stored or _unset(**key, now=now)
            preference = _changed(base, wish, masked, now=now)
            if preference.revision != base.revision:
                await self._store.preferences.put(tx, [preference], tenant_id=tenant_id, now=now)
            if idempotency.request_id:
                await self._store.requests.remember(tx, **request, answer=_answer_to(preference))
        log.info("preference.set", tenant_id=tenant_id, revision=preference.revision, **key)
        return preference

    async def list_preferences(
        self,
        wanted: PreferenceFilter,
        *,
        page_size: int,
        after: tuple[str, str] | None = None,
    ) -> tuple[list[Preference], tuple[str, str] | None]:
        """Returns a page by feature and user, and where the next one starts."""
        return await self._store.preferences.list(wanted, page_size=page_size, after=after)


def _check(
    wish: Wish, *, user_id: str, feature_type: str, update_mask: Sequence[str]
) -> frozenset[str]:
    """Returns the fields to set, or raises with everything that is wrong."""
    masked = frozenset(WISH_FIELDS if not update_mask or "*" in update_mask else update_mask)
    violations = check_key(user_id, feature_type, path="preference")
    violations += check_wish(wish, path="preference")
    violations += [
        Violation("update_mask", f"{quoted(name)} is none of {listed(WISH_FIELDS)}.")
        for name in sorted(masked.difference(WISH_FIELDS))
    ]
    if violations:
        raise InvalidArgument(violations)
    return masked


def _match(etag: str, stored: Preference | None, *, user_id: str, feature_type: str) -> None:
    if not etag or (stored is not None and stored.etag == etag):
        return
    name = f"the preference of {quoted(user_id)} for {quoted(feature_type)}"
    if stored is None:
        raise EtagMismatch(f"There is no etag {quoted(etag)} to match: {name} is not set.")
    raise EtagMismatch(
        f"Somebody changed {name}: its etag is {quoted(stored.etag)}, not {quoted(etag)}. Read it "
        "again.",
        metadata={"etag": stored.etag},
    )


def _unset(*, user_id: str, feature_type: str, now: datetime) -> Preference:
    """Returns what a preference is before it is set first: revision 0."""
    nothing = Wish()
    return Preference(
        user_id=user_id,
        feature_type=feature_type,
        enabled=nothing.enabled,
        schedule=nothing.schedule,
        template_overrides=nothing.template_overrides,
        revision=0,
        create_time=now,
        update_time=now,
    )


def _changed(base: Preference, wish: Wish, masked: frozenset[str], *, now: datetime) -> Preference:
    """Returns the preference with the masked fields set; itself when it is so already."""
    differs = any(
        comparable(getattr(base, name)) != comparable(getattr(wish, name)) for name in masked
    )
    if base.revision > 0 and not differs:
        return base
    wished: dict[str, Any] = {name: getattr(wish, name) for name in masked}
    return replace(base, **wished, revision=base.revision + 1, update_time=now)


def _answer_to(preference: Preference) -> dict[str, Any]:
    schedule = preference.schedule
    return {
        "user_id": preference.user_id,
        "feature_type": preference.feature_type,
        "enabled": preference.enabled,
        "schedule": None if schedule is None else render_schedule(schedule),
        "template_overrides": dict(preference.template_overrides),
        "revision": preference.revision,
        "create_time": preference.create_time.isoformat(),
        "update_time": preference.update_time.isoformat(),
    }


def _answer_from(document: Mapping[str, Any]) -> Preference:
    schedule = document["schedule"]
    return Preference(
        user_id=document["user_id"],
        feature_type=document["feature_type"],
        enabled=document["enabled"],
        schedule=None if schedule is None else parse_schedule(schedule, path="schedule")[0],
        template_overrides=document["template_overrides"],
        revision=document["revision"],
        create_time=datetime.fromisoformat(document["create_time"]),
        update_time=datetime.fromisoformat(document["update_time"]),
    )
