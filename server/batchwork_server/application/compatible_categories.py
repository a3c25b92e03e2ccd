"""The use case of telling which categories suit a feature.

Called get_preference_compatible_categories in the requirement documents.
"""

from __future__ import annotations

from dataclasses import dataclass

from batchwork_server.application.preference_views import Feature, PreferenceViews
from batchwork_server.domain.template_overrides import fields_of_overrides
from batchwork_server.ports import CategoryRepository

_MOST_LOOKED_AT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class CompatibleCategory:
    """A category that suits a feature, and why.

    Attributes:
        job_ids: Jobs that preferences for the feature drive and that select from it.
        matching_fields: Of those that the overrides filter or sort by, what its items have.
        missing_fields: Likewise what they do not have.
    """

    category: str
    job_ids: tuple[str, ...]
    matching_fields: tuple[str, ...]
    missing_fields: tuple[str, ...]


class CompatibleCategories:
    """Compares the categories of a tenant with a feature's jobs and overrides."""

    def __init__(self, *, categories: CategoryRepository, views: PreferenceViews) -> None:
        self._categories = categories
        self._views = views

    async def list_compatible_categories(
        self,
        feature_type: str,
        *,
        user_id: str,
        tenant_id: str,
        page_size: int,
        after: str | None,
    ) -> tuple[list[CompatibleCategory], str | None]:
        """Returns a page by name, and after which category the next one begins.

        A category suits when a job of the feature selects from it, or when its items have all of
        the fields, and at least one, that the overrides filter or sort by. No more than a hundred
        categories are looked at for a page.

        Args:
            user_id: Whose overrides count; empty means those of the defaults.
        """
        feature = await self._views.feature(feature_type, tenant_id=tenant_id)
        view = await self._views.get_effective_preference(
            user_id=user_id, feature_type=feature_type, tenant_id=tenant_id
        )
        wanted = fields_of_overrides(view.preference.template_overrides)
        names = [
            name
            for name in await self._categories.categories(tenant_id=tenant_id)
            if after is None or name > after
        ]
        looked_at = names[: min(page_size, _MOST_LOOKED_AT)]
        found = [await self._look_at(name, feature, wanted) for name in looked_at]
        suitable = [
            each
            for each in found
            if each.job_ids or (each.matching_fields and not each.missing_fields)
        ]
        return suitable, looked_at[-1] if len(looked_at) < len(names) else None

    async def _look_at(
        self, category: str, feature: Feature, wanted: frozenset[str]
    ) -> CompatibleCategory:
        fields: frozenset[str] = frozenset()
        if wanted:
            names = await self._categories.field_names(category, tenant_id=feature.tenant_id)
            fields = frozenset(names)
        return CompatibleCategory(
            category=category,
            job_ids=tuple(
                job.definition.job_id
                for job in feature.jobs
                if category in job.definition.categories
            ),
            matching_fields=tuple(sorted(wanted & fields)),
            missing_fields=tuple(sorted(wanted - fields)),
        )
