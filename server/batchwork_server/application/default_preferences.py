"""The use cases of defaults: what a tenant wishes for those of its users who say nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from batchwork_server.application.first_answers import FirstAnswers, Request
from batchwork_server.application.preferences import (
    check_mask,
    masked_fields,
    match_etag,
    refuse_any,
)
from batchwork_server.clock import Clock
from batchwork_server.domain.json_object import comparable, is_line, quoted
from batchwork_server.domain.preference import (
    LONGEST_NAME,
    DefaultPreference,
    Wish,
    check_wish,
)
from batchwork_server.domain.schedule import parse_schedule, render_schedule
from batchwork_server.domain.submission import Idempotency
from batchwork_server.errors import NotFound, Violation
from batchwork_server.logs import get_logger
from batchwork_server.store.store import Store

_PATH = "default_preference"
_METHOD = "SetDefaultPreference"
_ANEW = Idempotency()

log = get_logger(__name__)


class DefaultPreferences:
    """Keeps the defaults of tenants.

    Args:
        changed: Is told the tenant whose default has changed, once that is durable; it must not
            block.
    """

    def __init__(self, *, store: Store, clock: Clock, changed: Callable[[str], None]) -> None:
        self._store = store
        self._answers = FirstAnswers(store.requests)
        self._clock = clock
        self._changed = changed

    async def get_default_preference(
        self, feature_type: str, *, tenant_id: str
    ) -> DefaultPreference:
        """Returns the tenant's default for a feature.

        Raises:
            NotFound: the tenant has set none.
        """
        default = await self._store.preferences.get_default(feature_type, tenant_id=tenant_id)
        if default is None:
            raise NotFound("default preference", feature_type)
        return default

    async def set_default_preference(
        self,
        wish: Wish,
        *,
        feature_type: str,
        tenant_id: str,
        etag: str = "",
        update_mask: Sequence[str] = (),
        idempotency: Idempotency = _ANEW,
    ) -> DefaultPreference:
        """Sets the tenant's default for a feature, and creates it when there is none.

        Setting what is set already changes nothing, not even the etag.

        Raises:
            InvalidArgument: with everything that is wrong.
            EtagMismatch: somebody changed the default; read it again.
            RequestIdReused: nothing was changed.
        """
        masked = masked_fields(update_mask)
        violations = [*_check_feature(feature_type), *check_wish(wish, path=_PATH)]
        refuse_any([*violations, *check_mask(masked)])
        now = self._clock.now()
        request = Request(method=_METHOD, tenant_id=tenant_id, idempotency=idempotency)
        async with self._store.transaction() as tx:
            first = await self._answers.replay(tx, request, now=now)
            if first is not None:
                return _answer_from(first, tenant_id=tenant_id)
            stored = await self._store.preferences.lock_default(
                tx, feature_type, tenant_id=tenant_id
            )
            name = f"the default for {quoted(feature_type)}"
            match_etag(etag, None if stored is None else stored.etag, name=name)
            base = stored or _unset(feature_type, tenant_id=tenant_id, now=now)
            default = _changed(base, wish, masked, now=now)
            if default != stored:
                await self._store.preferences.put_default(tx, default, tenant_id=tenant_id, now=now)
            await self._answers.remember(tx, request, _answer_to(default))
        if default != stored:
            self._changed(tenant_id)
        log.info(
            "preference.default_set",
            tenant_id=tenant_id,
            feature_type=feature_type,
            revision=default.revision,
        )
        return default


def _check_feature(feature_type: str) -> list[Violation]:
    if is_line(feature_type, longest=LONGEST_NAME):
        return []
    message = f"{quoted(feature_type)} is not text of one line with 1 to {LONGEST_NAME} characters."
    return [Violation(f"{_PATH}.feature_type", message)]


def _unset(feature_type: str, *, tenant_id: str, now: datetime) -> DefaultPreference:
    """Returns what a default is before it is set first: revision 0."""
    nothing = Wish()
    return DefaultPreference(
        tenant_id=tenant_id,
        feature_type=feature_type,
        enabled=nothing.enabled,
        schedule=nothing.schedule,
        template_overrides=nothing.template_overrides,
        revision=0,
        create_time=now,
        update_time=now,
    )


def _changed(
    base: DefaultPreference, wish: Wish, masked: frozenset[str], *, now: datetime
) -> DefaultPreference:
    differs = any(
        comparable(getattr(base, name)) != comparable(getattr(wish, name)) for name in masked
    )
    if base.revision > 0 and not differs:
        return base
    wished: dict[str, Any] = {name: getattr(wish, name) for name in masked}
    return replace(base, **wished, revision=base.revision + 1, update_time=now)


def _answer_to(default: DefaultPreference) -> dict[str, Any]:
    schedule = default.schedule
    return {
        "feature_type": default.feature_type,
        "enabled": default.enabled,
        "schedule": None if schedule is None else render_schedule(schedule),
        "template_overrides": dict(default.template_overrides),
        "revision": default.revision,
        "create_time": default.create_time.isoformat(),
        "update_time": default.update_time.isoformat(),
    }


def _answer_from(document: Mapping[str, Any], *, tenant_id: str) -> DefaultPreference:
    schedule = document["schedule"]
    return DefaultPreference(
        tenant_id=tenant_id,
        feature_type=document["feature_type"],
        enabled=document["enabled"],
        schedule=None if schedule is None else parse_schedule(schedule, path="schedule")[0],
        template_overrides=document["template_overrides"],
        revision=document["revision"],
        create_time=datetime.fromisoformat(document["create_time"]),
        update_time=datetime.fromisoformat(document["update_time"]),
    )
