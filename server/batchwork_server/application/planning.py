"""From a submission to the items of a batch: template, selection, users, plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from batchwork_server.application.batch_requests import batch_request, merged_options
from batchwork_server.application.job_users import users_of_run
from batchwork_server.application.no_users import no_users_notice
from batchwork_server.application.notices import unmatched_filters
from batchwork_server.application.notifying import Choice, as_notices, chosen_targets
from batchwork_server.application.pacing import Pacing
from batchwork_server.application.personal_items import PersonalItems
from batchwork_server.application.recipients import needs_lookup, validated_recipients
from batchwork_server.application.template_choice import choose_template, unknown_name
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
from batchwork_server.domain.distribution import Distribution
from batchwork_server.domain.item import ItemUser, NewItem
from batchwork_server.domain.job import DataSource, JobShape, PreferenceSource
from batchwork_server.domain.notification import NO_TARGETS, NotificationTargets
from batchwork_server.domain.reference import Recipient
from batchwork_server.domain.reference_validation import (
    NOTHING_FOUND,
    InvalidReference,
    ReferenceValidation,
)
from batchwork_server.domain.selection import SelectedItem, Selection, parse_filters
from batchwork_server.domain.submission import Submission
from batchwork_server.domain.user import UsersAway
from batchwork_server.errors import InvalidArgument, Violation
from batchwork_server.planners import Selected, plan
from batchwork_server.planners.preference import MembersItem, users_of
from batchwork_server.planners.selected import INLINE, left_out
from batchwork_server.planners.user_references import UserReferences
from batchwork_server.ports import CategoryRepository, TemplateService
from batchwork_server.store.store import Store

LARGEST_ITEM = 1024 * 1024
"""The most bytes that an item's data may have as JSON text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonalRun:
    """A preference-based run to be: what its batch is, and what makes the items of its users."""

    request: BatchRequest
    items: PersonalItems
    recipients: Sequence[Recipient]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a batch would be.

    Attributes:
        recipients: Who gets a reference to its results.
        invalid_references: What was taken out of its items, or left out of the one item.
        item_users: The users of items that are for several together.
    """

    request: BatchRequest
    items: Sequence[NewItem]
    recipients: Sequence[Recipient] = ()
    invalid_references: Sequence[InvalidReference] = ()
    item_users: Sequence[ItemUser] = ()

    @property
    def is_deferred(self) -> bool:
        """Tells whether the batch begins only when its users are validated."""
        request = self.request
        if request.options.users_away is not UsersAway.DEFER:
            return False
        return request.user_validation.unknown > 0 or needs_lookup(self.recipients)

    @property
    def skips(self) -> Mapping[str, int]:
        """The number of items that would be skipped, by reason."""
        return Counter(item.skip_reason for item in self.items if item.skip_reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """The items of a batch, and what was found of the users whom they name."""

    items: Sequence[NewItem]
    users: UserValidation
    item_users: Sequence[ItemUser]
    references: ReferenceValidation = NOTHING_FOUND
    invalid_references: Sequence[InvalidReference] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _LookedUp:
    """What a submission means here.

    Attributes:
        notices: What is odd about it.
        options: With every default filled in.
    """

    template: Template
    selections: list[Selection]
    notices: list[Notice]
    options: BatchOptions


class Planning:
    """Plans batches; it changes nothing.

    Args:
        defaults: The options of requests and jobs that say nothing.
        handicaps: How much later than a critical batch one of each priority counts as due.
        targets: Who can be told of the end of a batch.
        pacing: Knows how long chunks take; none when nobody measures them.
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
        targets: NotificationTargets = NO_TARGETS,
        pacing: Pacing | None = None,
    ) -> None:
        self._store = store
        self._categories = categories
        self._validation = validation
        self._templates = templates
        self._defaults = defaults
        self._clock = clock
        self._handicaps = handicaps
        self._targets = targets
        self._pacing = pacing

    async def plan(self, submission: Submission, *, tenant_id: str) -> Plan:
        """Returns the items of the batch that the submission asks for.

        Raises:
            InvalidArgument: with every violation at once.
            Unavailable: a source is away.
        """
        looked_up = await self._looked_up(submission, tenant_id=tenant_id)
        if submission.preference_source is PreferenceSource.DYNAMIC:
            personal = self._personal_items(submission, looked_up, tenant_id=tenant_id)
            found = await self._personal(submission, personal, tenant_id=tenant_id)
            if not found.users.total:
                groups = self._store.preference_groups
                nobody = await no_users_notice(submission, groups, tenant_id=tenant_id)
                looked_up = replace(looked_up, notices=[*looked_up.notices, nobody])
        else:
            found = await self._shared(submission, looked_up.selections, tenant_id=tenant_id)
        _check_sizes(found.items)
        recipients = await self._recipients(
            submission, tenant_id=tenant_id, can_wait=_can_wait(submission, found.items)
        )
        request = self._request(
            submission,
            looked_up,
            user_validation=found.users,
            reference_validation=found.references,
            distribution=_distribution(submission, recipients),
        )
        return Plan(
            request=request,
            items=found.items,
            recipients=recipients,
            item_users=found.item_users,
            invalid_references=found.invalid_references,
        )

    async def problems(
        self, submission: Submission, *, tenant_id: str
    ) -> tuple[list[Violation], list[Notice]]:
        """Returns what is wrong and what is odd with what a submission names; it selects nothing.

        Raises:
            Unavailable: a source is away.
        """
        _, violations = await choose_template(self._templates, submission)
        _, notices, more = await self._selections(submission, tenant_id=tenant_id)
        return violations + more, notices

    async def _recipients(
        self, submission: Submission, *, tenant_id: str, can_wait: bool
    ) -> list[Recipient]:
        away = self._away_of(submission)
        return await validated_recipients(
            self._validation,
            submission.recipient_ids,
            tenant_id=tenant_id,
            away=away if can_wait else _without_deferring(away),
        )

    async def plan_personal(self, submission: Submission, *, tenant_id: str) -> PersonalRun:
        """Returns a preference-based run without its users, who come page by page.

        Raises:
            InvalidArgument: with every violation at once.
            Unavailable: a source is away.
        """
        looked_up = await self._looked_up(submission, tenant_id=tenant_id)
        recipients = await self._recipients(submission, tenant_id=tenant_id, can_wait=False)
        request = self._request(
            submission,
            looked_up,
            user_validation=UserValidation(),
            distribution=_distribution(submission, recipients),
        )
        items = self._personal_items(submission, looked_up, tenant_id=tenant_id)
        return PersonalRun(request=request, items=items, recipients=recipients)

    async def _looked_up(self, submission: Submission, *, tenant_id: str) -> _LookedUp:
        template, violations = await choose_template(self._templates, submission)
        selections, notices, more = await self._selections(submission, tenant_id=tenant_id)
        violations += more
        told, more = self._told(submission, tenant_id=tenant_id)
        if submission.job_id:
            notices += as_notices(more)
        else:
            violations += more
        if template is None or violations:
            raise InvalidArgument(violations)
        options = merged_options(submission.options, self._defaults, self._handicaps)
        options = replace(options, notification_targets=told)
        if self._pacing is not None:
            options = await self._pacing.paced(options, template.template_id, tenant_id=tenant_id)
        return _LookedUp(template=template, selections=selections, notices=notices, options=options)

    def _told(
        self, submission: Submission, *, tenant_id: str
    ) -> tuple[tuple[str, ...], list[Violation]]:
        options = submission.options
        choice = Choice(
            on_complete=options.notify_on_complete,
            names=options.notification_targets,
            path="" if submission.job_id else "options.",
        )
        return chosen_targets(choice, self._targets, tenant_id=tenant_id)

    def _request(
        self,
        submission: Submission,
        looked_up: _LookedUp,
        *,
        user_validation: UserValidation,
        distribution: Distribution,
        reference_validation: ReferenceValidation = NOTHING_FOUND,
    ) -> BatchRequest:
        return batch_request(
            submission,
            template=looked_up.template,
            options=looked_up.options,
            user_validation=user_validation,
            reference_validation=reference_validation,
            distribution=distribution,
            notices=looked_up.notices,
        )

    async def _selections(
        self, submission: Submission, *, tenant_id: str
    ) -> tuple[list[Selection], list[Notice], list[Violation]]:
        """Returns what is selected of each category, with what is odd and what is wrong."""
        selections: list[Selection] = []
        notices: list[Notice] = []
        violations: list[Violation] = []
        for category in submission.categories if submission.items is None else ():
            if not await self._categories.exists(category, tenant_id=tenant_id):
                existing = await self._categories.categories(tenant_id=tenant_id)
                violations.append(unknown_name("UNKNOWN_CATEGORY", "category", category, existing))
                continue
            selection, odd, wrong = await self._selection(category, submission, tenant_id=tenant_id)
            selections.append(selection)
            notices += odd
            violations += wrong
        return selections, notices, violations

    async def _selection(
        self, category: str, submission: Submission, *, tenant_id: str
    ) -> tuple[Selection, list[Notice], list[Violation]]:
        path = "filters" if len(submission.categories) == 1 else f"filters.{category}"
        selection, violations = parse_filters(
            submission.filters_of(category),
            category=category,
            limit=submission.limit,
            now=submission.due_time or self._clock.now(),
            path=path,
        )
        if violations:
            return selection, [], violations
        existing = await self._categories.field_names(category, tenant_id=tenant_id)
        notices = unmatched_filters(
            submission.filters_of(category), category=category, existing=existing, path=path
        )
        return selection, list(notices), []

    def _away_of(self, submission: Submission) -> UsersAway:
        return submission.options.users_away or self._defaults.users_away

    async def _shared(
        self, submission: Submission, selections: Sequence[Selection], *, tenant_id: str
    ) -> _Found:
        """Returns the items of a batch that asks no user what they wish."""
        groups: dict[str, list[SelectedItem]] = {}
        if submission.items is not None:
            groups[INLINE] = _own(submission.items, submission)
        for selection in selections:
            found = await self._categories.select(selection, tenant_id=tenant_id)
            groups[selection.category] = _own(found, submission)
        users = [item.user_id for group in groups.values() for item in group if item.user_id]
        of_categories = submission.data_source is DataSource.CATEGORIES
        references = UserReferences(groups if of_categories else {})
        named = [*users, *references.user_ids]
        away = self._away_of(submission)
        if away is UsersAway.DEFER and (references.user_ids or not _can_be_deferred(submission)):
            away = UsersAway.FAIL
        verdicts = await self._validation.verdicts(named, tenant_id=tenant_id, away=away)
        judged = references.judged(verdicts)
        selected = Selected(groups=groups | dict(judged.groups), verdicts=verdicts)
        is_one = submission.shape is not JobShape.INDIVIDUAL
        return _Found(
            items=plan(submission.shape, selected),
            users=UserValidation.of(verdicts[user] for user in users),
            item_users=selected.users_together() if is_one else (),
            references=judged.found,
            invalid_references=[*judged.invalid, *left_out(submission.shape, selected)],
        )

    async def _personal(
        self, submission: Submission, personal: PersonalItems, *, tenant_id: str
    ) -> _Found:
        """Returns the items for every user who wants the feature."""
        items: list[MembersItem] = []
        without: dict[str, str] = {}
        references = NOTHING_FOUND
        invalid: list[InvalidReference] = []
        now = submission.due_time or self._clock.now()
        async for page in users_of_run(submission, store=self._store, tenant_id=tenant_id, now=now):
            items += await personal.plan(page.preferences, skipped=page.skipped)
            without |= personal.without
            references += personal.references.found
            invalid += personal.references.invalid
        return _Found(
            items=[each.item for each in items],
            users=personal.users,
            references=references,
            invalid_references=invalid,
            item_users=users_of(items, without),
        )

    def _personal_items(
        self, submission: Submission, looked_up: _LookedUp, *, tenant_id: str
    ) -> PersonalItems:
        return PersonalItems(
            submission,
            looked_up.selections,
            declared=looked_up.template.overrides,
            tenant_id=tenant_id,
            categories=self._categories,
            validation=self._validation,
            away=_without_deferring(self._away_of(submission)),
            now=submission.due_time or self._clock.now(),
        )


def _can_be_deferred(submission: Submission) -> bool:
    """Tells whether users can be validated after the items were made of them.

    One item of several users is made without those who are not valid, and of a draft nothing
    begins.
    """
    return submission.shape is JobShape.INDIVIDUAL and not submission.is_draft


def _can_wait(submission: Submission, items: Iterable[NewItem]) -> bool:
    """Tells whether a batch can be begun later: it is no draft, and there is something to do."""
    return not submission.is_draft and any(item.skip_reason is None for item in items)


def _without_deferring(away: UsersAway) -> UsersAway:
    return UsersAway.FAIL if away is UsersAway.DEFER else away


def _own(items: Iterable[SelectedItem], submission: Submission) -> list[SelectedItem]:
    """Gives each thing the user that it belongs to, and keeps those of the users asked for."""
    if submission.data_source is DataSource.USERS:
        items = [replace(item, user_id=item.user_id or item.item_id) for item in items]
    if submission.user_ids:
        return [item for item in items if item.user_id in submission.user_ids]
    return list(items)


def _distribution(submission: Submission, recipients: Sequence[Recipient]) -> Distribution:
    invalid = sum(bool(recipient.problem) for recipient in recipients)
    return Distribution(named=len(recipients), invalid=invalid, own=submission.delivers_own)


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
