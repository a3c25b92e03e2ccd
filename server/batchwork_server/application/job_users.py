"""The users for whom a run on request of a preference-based job is, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from batchwork_server.application.group_pages import PAGE_USERS, silent_preference
from batchwork_server.domain.declared_overrides import merged_overrides
from batchwork_server.domain.filters import PreferenceFilter
from batchwork_server.domain.group_schedules import MemberSkip
from batchwork_server.domain.preference import DefaultPreference, Preference
from batchwork_server.domain.submission import Submission
from batchwork_server.store.store import PreferencePlace, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class JobUsers:
    """Users of a run.

    Attributes:
        preferences: Their wishes, with what counts where they say nothing.
        skipped: Those for whom nothing is to be done, and why.
    """

    preferences: Sequence[Preference]
    skipped: Mapping[str, str]


async def users_of_run(
    submission: Submission, *, store: Store, tenant_id: str, now: datetime
) -> AsyncIterator[JobUsers]:
    """Yields everybody who wants the feature, or those of the users whom the submission names."""
    default = await store.preferences.get_default(submission.feature_type, tenant_id=tenant_id)
    reader = _Reader(submission, default, store=store, tenant_id=tenant_id, now=now)
    async for page in reader.named() if submission.user_ids else reader.everybody():
        yield JobUsers(
            preferences=[_merged(submission, default, each) for each in page],
            skipped={each.user_id: MemberSkip.TENANT_INACTIVE for each in page if not each.active},
        )


class _Reader:
    """Reads the preferences of a run, and finds who says nothing and is served as well."""

    def __init__(
        self,
        submission: Submission,
        default: DefaultPreference | None,
        *,
        store: Store,
        tenant_id: str,
        now: datetime,
    ) -> None:
        self._submission = submission
        self._feature_type = submission.feature_type
        self._serves_silent = _serves_silent(submission, default)
        self._store = store
        self._tenant_id = tenant_id
        self._now = now

    async def named(self) -> AsyncIterator[Sequence[Preference]]:
        """Yields the wishes of the users whom the run is restricted to, by user.

        Of those who say nothing the validation of users tells who is none.
        """
        users = sorted(self._submission.user_ids)
        for first in range(0, len(users), PAGE_USERS):
            page = users[first : first + PAGE_USERS]
            stored = await self._store.preferences.of_users(page, tenant_id=self._tenant_id)
            found = [(user, stored.get((self._feature_type, user))) for user in page]
            wished = [
                preference or self._silent(user)
                for user, preference in found
                if (self._serves_silent if preference is None else preference.enabled)
            ]
            yield wished

    async def everybody(self) -> AsyncIterator[Sequence[Preference]]:
        """Yields the wishes of all who want the feature, and then those who say nothing."""
        wanting = PreferenceFilter(
            tenant_id=self._tenant_id, feature_type=self._feature_type, enabled=True
        )
        seen: set[str] = set()
        after: PreferencePlace | None = None
        while True:
            page, after = await self._store.preferences.list(
                wanting, page_size=PAGE_USERS, after=after
            )
            yield page
            if self._serves_silent:
                seen.update(each.user_id for each in page)
            if after is None:
                break
        if self._serves_silent:
            async for users in self._without_preference():
                # Who has just deleted their preference has been read before.
                yield [self._silent(user) for user in users if user not in seen]

    async def _without_preference(self) -> AsyncIterator[Iterable[str]]:
        after: str | None = ""
        while after is not None:
            page, after = await self._store.group_members.without_preference(
                self._feature_type, tenant_id=self._tenant_id, page_size=PAGE_USERS, after=after
            )
            yield page

    def _silent(self, user_id: str) -> Preference:
        return silent_preference(
            user_id,
            feature_type=self._feature_type,
            tenant_id=self._tenant_id,
            now=self._now,
        )


def _serves_silent(submission: Submission, default: DefaultPreference | None) -> bool:
    is_wanted = submission.default_enabled if default is None else default.enabled
    return submission.include_all_users and is_wanted


def _merged(
    submission: Submission, default: DefaultPreference | None, preference: Preference
) -> Preference:
    of_tenant = {} if default is None else default.template_overrides
    overrides = merged_overrides(
        submission.default_overrides, of_tenant, preference.template_overrides
    )
    return replace(preference, template_overrides=overrides)
