"""What is accepted although it may not be meant."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from batchwork_server.application.job_checks import KnownTemplates
from batchwork_server.application.override_notices import override_notices
from batchwork_server.domain.batch import Notice, Template
from batchwork_server.domain.job import JobDefinition, JobShape
from batchwork_server.domain.json_object import child_path, listed, quoted
from batchwork_server.domain.preference import parse_wish
from batchwork_server.domain.selection import field_of_filter
from batchwork_server.domain.user import UserVerdict
from batchwork_server.errors import SourceUnavailable
from batchwork_server.ports import CategoryRepository, TemplateService, UserRepository
from batchwork_server.store.store import PreferenceStore

CATEGORY_WITHOUT_ITEMS = "CATEGORY_WITHOUT_ITEMS"
FILTER_MATCHES_NO_FIELD = "FILTER_MATCHES_NO_FIELD"
UNKNOWN_PURPOSE = "UNKNOWN_PURPOSE"
FILTER_MATCHES_NOTHING = "FILTER_MATCHES_NOTHING"
UNKNOWN_USER = "UNKNOWN_USER"
NO_SCHEDULE = "NO_SCHEDULE"
MORE_NOTICES = "MORE_NOTICES"

MAX_NOTICES = 1000


class JobNotices:
    """Compares jobs with the categories, users, templates and defaults that exist.

    Args:
        purposes: Those that jobs may have; None allows any.
    """

    def __init__(
        self,
        *,
        categories: CategoryRepository,
        users: UserRepository,
        templates: TemplateService,
        preferences: PreferenceStore,
        purposes: frozenset[str] | None = None,
    ) -> None:
        self._preferences = preferences
        self._categories = categories
        self._users = users
        self._templates = templates
        self._purposes = purposes

    async def of(self, jobs: Mapping[str, JobDefinition], *, tenant_id: str) -> tuple[Notice, ...]:
        """Returns what is to be noticed about jobs, by their JSON paths, in the order of the file.

        After a thousand notices only the number of the others is told.

        Raises:
            Unavailable: a source is away.
        """
        found = await self.by_job(jobs, tenant_id=tenant_id)
        return _capped([notice for notices in found.values() for notice in notices])

    async def by_job(
        self, jobs: Mapping[str, JobDefinition], *, tenant_id: str
    ) -> dict[str, list[Notice]]:
        """Returns all notices about jobs, by the JSON paths of the jobs.

        Raises:
            Unavailable: a source is away.
        """
        fields = await self._fields_by_category(jobs.values(), tenant_id=tenant_id)
        verdicts = await self._verdicts(jobs.values(), tenant_id=tenant_id)
        unscheduled = await self._unscheduled(jobs.values(), tenant_id=tenant_id)
        known = KnownTemplates.of(await self._templates.all())
        return {
            path: [
                *_about_categories(job, path=path, fields=fields),
                *_about_filters(job, path=path, fields=fields),
                *_about_purpose(job, path=path, purposes=self._purposes),
                *_about_users(job, path=path, verdicts=verdicts),
                *_about_silent_users(job, path=path, unscheduled=unscheduled),
                *_about_overrides(job, path=path, template=known.template_of(job)),
            ]
            for path, job in jobs.items()
        }

    async def _fields_by_category(
        self, jobs: Iterable[JobDefinition], *, tenant_id: str
    ) -> Mapping[str, Sequence[str]]:
        """Returns the fields of each category that is named and has items."""
        existing = set(await self._categories.categories(tenant_id=tenant_id))
        named = {category: None for job in jobs for category in job.categories}
        return {
            category: await self._categories.field_names(category, tenant_id=tenant_id)
            for category in named
            if category in existing
        }

    async def _unscheduled(
        self, jobs: Iterable[JobDefinition], *, tenant_id: str
    ) -> frozenset[str]:
        """Returns the features for which the tenant's default names no schedule.

        Only those are looked at whose jobs leave it to the default when users run who say nothing.
        """
        features = {job.feature_type for job in jobs if _leaves_schedule_open(job)}
        defaults = {
            feature_type: await self._preferences.get_default(feature_type, tenant_id=tenant_id)
            for feature_type in features
        }
        return frozenset(
            feature_type
            for feature_type, default in defaults.items()
            if default is None or default.schedule is None
        )

    async def _verdicts(
        self, jobs: Iterable[JobDefinition], *, tenant_id: str
    ) -> Mapping[str, UserVerdict]:
        user_ids = {user_id: None for job in jobs for user_id in job.distribution_user_ids}
        if not user_ids:
            return {}
        try:
            return await self._users.verdicts(tuple(user_ids), tenant_id=tenant_id)
        except SourceUnavailable:  # no job waits for a notice
            return dict.fromkeys(user_ids, UserVerdict.UNKNOWN)


def _about_categories(
    job: JobDefinition, *, path: str, fields: Mapping[str, Sequence[str]]
) -> Iterator[Notice]:
    for index, category in enumerate(job.categories):
        if category in fields:
            continue
        several = job.shape is JobShape.COMBINED
        yield Notice(
            reason=CATEGORY_WITHOUT_ITEMS,
            path=f"{path}.categories[{index}]" if several else f"{path}.category",
            message=f"The category {quoted(category)} has no items.",
        )


def _about_filters(
    job: JobDefinition, *, path: str, fields: Mapping[str, Sequence[str]]
) -> Iterator[Notice]:
    for category in job.categories:
        yield from unmatched_filters(
            job.filters_of(category),
            category=category,
            existing=fields.get(category, ()),
            path=filters_path(job, category, path=path),
        )


def filters_path(job: JobDefinition, category: str, *, path: str) -> str:
    """Returns where the filters of one of a job's categories stand."""
    filters = f"{path}.filters"
    return child_path(filters, category) if job.shape is JobShape.COMBINED else filters


def unmatched_filters(
    filters: Mapping[str, Any], *, category: str, existing: Sequence[str], path: str
) -> Iterator[Notice]:
    """Yields a notice for each filter on a field that no item of the category has.

    Args:
        filters: JSON values.
        category: What the filters narrow.
        existing: The fields that its items have; an empty category has nothing to compare with.
        path: Where the filters stand.
    """
    for name in filters if existing else ():
        field = field_of_filter(name)
        if field is None or field in existing or name in existing:
            continue
        yield Notice(
            reason=FILTER_MATCHES_NO_FIELD,
            path=child_path(path, name),
            message=f"No item of {quoted(category)} has a field {quoted(field)}; "
            f"they have {listed(existing)}.",
        )


def _about_purpose(
    job: JobDefinition, *, path: str, purposes: frozenset[str] | None
) -> Iterator[Notice]:
    if purposes is not None and job.purpose_id and job.purpose_id not in purposes:
        message = f"There is no purpose {quoted(job.purpose_id)}; there are "
        yield Notice(
            reason=UNKNOWN_PURPOSE,
            path=f"{path}.purpose_id",
            message=f"{message}{listed(sorted(purposes))}.",
        )


def _about_users(
    job: JobDefinition, *, path: str, verdicts: Mapping[str, UserVerdict]
) -> Iterator[Notice]:
    for index, user_id in enumerate(job.distribution_user_ids):
        verdict = verdicts.get(user_id, UserVerdict.NOT_FOUND)
        if verdict not in (UserVerdict.VALID, UserVerdict.UNKNOWN):
            yield Notice(
                reason=UNKNOWN_USER,
                path=f"{path}.distribution.users[{index}]",
                message=f"The user {quoted(user_id)} gets no reference: {verdict}.",
            )


def _leaves_schedule_open(job: JobDefinition) -> bool:
    if not job.include_all_users:
        return False
    wish, _ = parse_wish(job.default_preferences, path="default_preferences")
    return wish is None or wish.schedule is None


def _about_silent_users(
    job: JobDefinition, *, path: str, unscheduled: Collection[str]
) -> Iterator[Notice]:
    if job.feature_type in unscheduled and _leaves_schedule_open(job):
        yield Notice(
            reason=NO_SCHEDULE,
            path=f"{path}.include_all_users",
            message="Users who have set nothing are not served: neither default_preferences nor "
            f"the tenant's default for {quoted(job.feature_type)} names a schedule.",
        )


def _about_overrides(
    job: JobDefinition, *, path: str, template: Template | None
) -> Iterator[Notice]:
    overrides = job.default_preferences.get("template_overrides")
    if template is None or not isinstance(overrides, Mapping):
        return
    place = f"{path}.default_preferences.template_overrides"
    yield from override_notices(overrides, path=place, templates=[template])


def _capped(notices: Sequence[Notice]) -> tuple[Notice, ...]:
    if len(notices) <= MAX_NOTICES:
        return tuple(notices)
    message = f"There are {len(notices) - MAX_NOTICES} more notices about this file."
    return (*notices[:MAX_NOTICES], Notice(reason=MORE_NOTICES, path="$", message=message))


def notices_to(notices: Sequence[Notice]) -> list[list[str]]:
    """Returns notices as an answer that is kept holds them."""
    return [[notice.reason, notice.path, notice.message] for notice in notices]


def notices_from(rows: Sequence[Sequence[str]]) -> tuple[Notice, ...]:
    """Returns the notices of an answer that was kept."""
    return tuple(Notice(reason=r, path=p, message=m) for r, p, m in rows)
