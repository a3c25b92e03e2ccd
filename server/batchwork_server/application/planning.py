"""From a submission to the items of a batch: template, selection, users, plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import orjson

from batchwork_server.application.notices import unmatched_filters
from batchwork_server.application.validation import Validation
from batchwork_server.clock import Clock
from batchwork_server.domain.batch import (
    HANDICAPS,
    BatchOptions,
    BatchRequest,
    Notice,
    Priority,
    Template,
    UserValidation,
)
from batchwork_server.domain.filters import PreferenceFilter
from batchwork_server.domain.item import NewItem
from batchwork_server.domain.job import DataSource, PreferenceSource
from batchwork_server.domain.retry import RetryPolicy
from batchwork_server.domain.selection import SelectedItem, parse_filters
from batchwork_server.domain.submission import RequestedOptions, Submission
from batchwork_server.domain.user import UserVerdict
from batchwork_server.errors import InvalidArgument, Violation
from batchwork_server.planners import Selected, plan
from batchwork_server.planners.selected import INLINE, array_of
from batchwork_server.ports import CategoryRepository, TemplateService
from batchwork_server.store.store import Store

LARGEST_ITEM = 1024 * 1024
"""The most bytes that an item's data may have as JSON text."""

_PREFERENCES_PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a batch would be."""

    request: BatchRequest
    items: Sequence[NewItem]

    @property
    def skips(self) -> Mapping[str, int]:
        """The number of items that would be skipped, by reason."""
        return Counter(item.skip_reason for item in self.items if item.skip_reason)


class Planning:
    """Plans batches; it changes nothing.

    Args:
        defaults: The options of requests and jobs that say nothing.
        handicaps: How much later than a critical batch one of each priority counts as due.
    """

    def __init__(
        self,
        *,
        store: Store,
        categories: CategoryRepository,
        validation: Validation,
        templates: TemplateService,
        defaults: BatchOptions,
        clock: Clock,
        handicaps: Mapping[Priority, timedelta] = HANDICAPS,
    ) -> None:
        self._store = store
        self._categories = categories
        self._validation = validation
        self._templates = templates
        self._defaults = defaults
        self._clock = clock
        self._handicaps = handicaps

    async def plan(self, submission: Submission, *, tenant_id: str) -> Plan:
        """Returns the items of the batch that the submission asks for.

        Raises:
            InvalidArgument: with every violation at once.
            Unavailable: a source is away.
        """
        template, violations = await self._template(submission)
        groups, notices, more = await self._select(submission, tenant_id=tenant_id)
        violations += more
        if template is None or violations:
            raise InvalidArgument(violations)
        users = [item.user_id for group in groups.values() for item in group if item.user_id]
        verdicts = await self._validation.verdicts(users, tenant_id=tenant_id) if users else {}
        items = plan(submission.shape, Selected(groups=groups, verdicts=verdicts))
        _check_sizes(items)
        request = _request(
            submission,
            template=template,
            options=_options(submission.options, self._defaults, self._handicaps),
            user_validation=_count(users, verdicts),
            notices=notices,
        )
        return Plan(request=request, items=items)

    async def _template(self, submission: Submission) -> tuple[Template | None, list[Violation]]:
        known = await self._templates.all()
        violations: list[Violation] = []
        operations = {name for template in known for name in template.operations}
        if submission.operation and submission.operation not in operations:
            violations.append(
                _unknown("UNKNOWN_OPERATION", "operation", submission.operation, operations)
            )
        if submission.template_id:
            found = await self._templates.get(submission.template_id)
            if found is None:
                ids = [template.template_id for template in known]
                violations.append(
                    _unknown("UNKNOWN_TEMPLATE", "template_id", submission.template_id, ids)
                )
            return found, violations
        found = next((t for t in known if _is_default(t, submission)), None)
        if found is None and not violations:
            violations.append(
                Violation(
                    "template_id",
                    "Name a template, or an operation that has a default one "
                    f"({_listed(operations)}).",
                )
            )
        return found, violations

    async def _select(
        self, submission: Submission, *, tenant_id: str
    ) -> tuple[dict[str, list[SelectedItem]], list[Notice], list[Violation]]:
        """Returns the things by category, with what is odd and what is wrong."""
        if submission.items is not None:
            return {INLINE: _own(submission.items, submission)}, [], []
        groups: dict[str, list[SelectedItem]] = {}
        notices: list[Notice] = []
        violations: list[Violation] = []
        for category in submission.categories:
            if not await self._categories.exists(category, tenant_id=tenant_id):
                existing = await self._categories.categories(tenant_id=tenant_id)
                violations.append(_unknown("UNKNOWN_CATEGORY", "category", category, existing))
                continue
            found, odd, wrong = await self._select_from(category, submission, tenant_id=tenant_id)
            groups[category] = _own(found, submission)
            notices += odd
            violations += wrong
        if submission.preference_source is PreferenceSource.DYNAMIC and not violations:
            groups = await self._by_user(groups, submission, tenant_id=tenant_id)
        return groups, notices, violations

    async def _select_from(
        self, category: str, submission: Submission, *, tenant_id: str
    ) -> tuple[list[SelectedItem], list[Notice], list[Violation]]:
        path = "filters" if len(submission.categories) == 1 else f"filters.{category}"
        selection, violations = parse_filters(
            submission.filters_of(category),
            category=category,
            limit=submission.limit,
            now=self._clock.now(),
            path=path,
        )
        if violations:
            return [], [], violations
        found = await self._categories.select(selection, tenant_id=tenant_id)
        existing = await self._categories.field_names(category, tenant_id=tenant_id)
        notices = unmatched_filters(
            submission.filters_of(category), category=category, existing=existing, path=path
        )
        return found, list(notices), []

    async def _by_user(
        self,
        groups: Mapping[str, Sequence[SelectedItem]],
        submission: Submission,
        *,
        tenant_id: str,
    ) -> dict[str, list[SelectedItem]]:
        """Returns one thing for each user who wants the feature, with their overrides.

        What was selected from categories stands in each of them, at most as much as the user's
        ``item_limit`` says.
        """
        things = [item for group in groups.values() for item in group]
        users: list[SelectedItem] = []
        after: tuple[str, str] | None = None
        wanting = PreferenceFilter(
            tenant_id=tenant_id, feature_type=submission.feature_type, enabled=True
        )
        while True:
            page, after = await self._store.preferences.list(
                wanting, page_size=_PREFERENCES_PAGE, after=after
            )
            for preference in page:
                overrides = preference.template_overrides
                limit = overrides.get("item_limit")
                wanted = things[: max(0, int(limit))] if isinstance(limit, int | float) else things
                data = b'{"user_id":%b,"template_overrides":%b,"items":%b}' % (
                    orjson.dumps(preference.user_id),
                    orjson.dumps(overrides),
                    array_of(wanted),
                )
                users.append(
                    SelectedItem(
                        item_id=preference.user_id,
                        user_id=preference.user_id,
                        data_json=data.decode(),
                    )
                )
            if after is None:
                return {submission.feature_type: users}


def _own(items: Iterable[SelectedItem], submission: Submission) -> list[SelectedItem]:
    """Gives each thing the user that it belongs to, and keeps those of the users asked for."""
    if submission.data_source is DataSource.USERS:
        items = [replace(item, user_id=item.user_id or item.item_id) for item in items]
    if submission.user_ids:
        return [item for item in items if item.user_id in submission.user_ids]
    return list(items)


def _is_default(template: Template, submission: Submission) -> bool:
    return (submission.operation != "" and submission.operation in template.operations) or (
        submission.feature_type != "" and submission.feature_type in template.feature_types
    )


def _count(users: Sequence[str], verdicts: Mapping[str, UserVerdict]) -> UserValidation:
    valid = sum(verdicts[user] is UserVerdict.VALID for user in users)
    return UserValidation(total=len(users), valid=valid, invalid=len(users) - valid)


def _check_sizes(items: Sequence[NewItem]) -> None:
    violations = []
    for index, item in enumerate(items):
        if len(item.data_json) * 4 <= LARGEST_ITEM:  # whatever its characters are
            continue
        size = len(item.data_json.encode())
        if size > LARGEST_ITEM:
            violations.append(
                Violation(
                    f"items[{index}].data_json",
                    f"The data of item {item.item_id!r} has {size} bytes; at most {LARGEST_ITEM} "
                    "are allowed. Narrow the selection with filters or a limit.",
                    "PAYLOAD_TOO_LARGE",
                    limit=LARGEST_ITEM,
                )
            )
    if violations:
        raise InvalidArgument(violations)


def _options(
    requested: RequestedOptions, defaults: BatchOptions, handicaps: Mapping[Priority, timedelta]
) -> BatchOptions:
    priority = requested.priority or Priority.MEDIUM
    return BatchOptions(
        chunk_size=requested.chunk_size or defaults.chunk_size,
        item_timeout=requested.item_timeout or defaults.item_timeout,
        retry=_retry(requested, defaults.retry),
        priority=priority,
        handicap=handicaps[priority],
        max_concurrent_items=requested.max_concurrent_items or 0,
        model=requested.model,
        batch_timeout=requested.batch_timeout or defaults.batch_timeout,
        failure_policy=requested.failure_policy or defaults.failure_policy,
    )


def _retry(requested: RequestedOptions, default: RetryPolicy) -> RetryPolicy:
    policy = requested.retry.over(default)
    if requested.retry_limit is None:
        return policy
    return replace(policy, retry_limit=requested.retry_limit)


def _request(
    submission: Submission,
    *,
    template: Template,
    options: BatchOptions,
    user_validation: UserValidation,
    notices: Sequence[Notice],
) -> BatchRequest:
    return BatchRequest(
        template=template,
        options=options,
        source=submission.source,
        operation=submission.operation,
        display_name=submission.display_name,
        description=submission.description,
        job_id=submission.job_id,
        job_revision=submission.job_revision,
        purpose_id=submission.purpose_id,
        feature_type=submission.feature_type,
        batch_type=submission.batch_type,
        categories=submission.categories,
        filters=submission.filters,
        labels=submission.labels,
        batch_metadata=submission.batch_metadata,
        user_validation=user_validation,
        notices=tuple(notices),
    )


def _unknown(reason: str, path: str, value: str, existing: Iterable[str]) -> Violation:
    what = path.removesuffix("_id")
    return Violation(path, f"There is no {what} {value!r}; there is {_listed(existing)}.", reason)


def _listed(names: Iterable[str]) -> str:
    known = sorted(names)
    more = f" and {len(known) - 20} more" if len(known) > 20 else ""
    return (", ".join(known[:20]) + more) or "none"
