"""Contexts of users, worked out from what is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchwork_server.application.batches import Batches
from batchwork_server.application.preference_views import EffectiveView, PreferenceViews
from batchwork_server.domain.batch import Batch
from batchwork_server.domain.schedule import render_schedule
from batchwork_server.domain.user_context import (
    MOST_FEATURES,
    ContextPreference,
    UserContext,
    UserEntry,
    preference_of,
)
from batchwork_server.errors import NotFound
from batchwork_server.planners.preference import overrides_in
from batchwork_server.store.store import Store


class UserContexts:
    """Shows contexts of users; it changes nothing."""

    def __init__(self, *, store: Store, batches: Batches, views: PreferenceViews) -> None:
        self._store = store
        self._batches = batches
        self._views = views

    async def get_user_context(
        self,
        user_id: str,
        *,
        batch_id: str,
        tenant_id: str | None,
        page_size: int,
        after: tuple[int, int] | None = None,
    ) -> UserContext:
        """Returns what was done for a user and what they were given; nothing for a stranger.

        Args:
            batch_id: Empty means all batches.
            tenant_id: None means any; only with a batch.

        Raises:
            NotFound: the batch does not exist, or is not the caller's to see.
        """
        batch = None
        if batch_id:
            batch = await self._batches.get_batch(batch_id, tenant_id=tenant_id)
            tenant_id = batch.tenant_id
        if tenant_id is None:
            raise ValueError("the user of no tenant in particular")
        entries, following = await self._store.user_items.entries(
            user_id, tenant_id=tenant_id, batch=batch, after=after, limit=page_size
        )
        counts, validation = await self._store.user_items.counts(
            user_id, tenant_id=tenant_id, batch=batch
        )
        preferences = (
            await self._applied(user_id, batch, entries)
            if batch is not None
            else await self._effective(user_id, entries, tenant_id=tenant_id)
        )
        return UserContext(
            user_id=user_id,
            tenant_id=tenant_id,
            batch=batch,
            entries=entries,
            counts=counts,
            validation=validation,
            preferences=preferences,
            following=following,
        )

    async def _applied(
        self, user_id: str, batch: Batch, entries: Sequence[UserEntry]
    ) -> list[ContextPreference]:
        """Returns by what a run was made for a user, with their overrides as its item has them."""
        if not batch.request.is_preference_based:
            return []
        overrides: Mapping[str, Any] = {}
        for entry in entries:
            if entry.item is not None and entry.item.item_id:
                item = await self._store.batches.get_item(batch, entry.item.item_id)
                overrides = {} if item is None else overrides_in(item.data_json, user_id)
                break
        applied = preference_of(batch, overrides)
        return [] if applied is None else [applied]

    async def _effective(
        self, user_id: str, entries: Sequence[UserEntry], *, tenant_id: str
    ) -> list[ContextPreference]:
        """Returns what counts for a user now, for the features of a page."""
        features: dict[str, str] = {}
        for entry in entries:
            request = entry.batch.request
            if request.is_preference_based and len(features) < MOST_FEATURES:
                features.setdefault(request.feature_type, request.job_id)
        found = [
            await self._view(user_id, feature_type, job_id, tenant_id=tenant_id)
            for feature_type, job_id in features.items()
        ]
        return [_preference_from(view, name) for view, name in zip(found, features, strict=True)]

    async def _view(
        self, user_id: str, feature_type: str, job_id: str, *, tenant_id: str
    ) -> EffectiveView:
        about = {"user_id": user_id, "feature_type": feature_type, "tenant_id": tenant_id}
        try:
            return await self._views.get_effective_preference(**about, job_id=job_id)
        except NotFound:  # the job is gone, or is about another feature by now
            return await self._views.get_effective_preference(**about)


def _preference_from(view: EffectiveView, feature_type: str) -> ContextPreference:
    effective = view.preference
    schedule = effective.schedule
    said = {} if schedule is None else render_schedule(schedule.schedule)
    return ContextPreference(
        feature_type=feature_type,
        job_id=view.job_id,
        frequency=str(said.get("frequency", "")),
        time=str(said.get("at", "")),
        time_zone="" if schedule is None else schedule.time_zone,
        template_overrides=effective.template_overrides,
    )
