"""PreferenceService: checks, delegates, translates."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any

from batchwork.v1 import preference_service_pb2 as messages
from batchwork.v1.preference_service_pb2_grpc import PreferenceServiceServicer

from batchwork_server.application.forecast import DEFAULT_LENGTH
from batchwork_server.application.override_notices import SaidOverrides
from batchwork_server.application.preferences import (
    MAX_PREFERENCES,
    WISH_FIELDS,
    masked_fields,
    repeated_keys,
)
from batchwork_server.application.use_cases import PreferenceUseCases
from batchwork_server.domain.forecast import (
    LONGEST_BUCKET,
    LONGEST_FORECAST,
    SHORTEST_BUCKET,
)
from batchwork_server.domain.json_object import MAX_INTEGER, child_path
from batchwork_server.domain.preference import DefaultPreference, Preference, check_schedule
from batchwork_server.rpc.batch_conversion import warnings_to
from batchwork_server.rpc.checks import MAX_PAGE_SIZE, Checks
from batchwork_server.rpc.explaining_conversion import (
    explained_span,
    source_note_to,
    user_period_to,
)
from batchwork_server.rpc.filters import preference_filter_from
from batchwork_server.rpc.idempotency import idempotency_from
from batchwork_server.rpc.interceptors import caller_of
from batchwork_server.rpc.page_tokens import (
    change_place_from,
    group_place_from,
    name_from,
    preference_place_from,
    token_after_name,
    token_after_owned,
)
from batchwork_server.rpc.preference_conversion import (
    category_to,
    change_to,
    default_to,
    effective_to,
    forecast_to,
    group_to,
    imported_to,
    origin_to,
    preference_to,
    result_to,
    told_to,
    wish_from,
    wished_from,
)
from batchwork_server.rpc.schedule_conversion import schedule_from
from batchwork_server.rpc.upcoming_conversion import upcoming_run_to

_PREVIEWED = 10


class PreferenceServicer(PreferenceServiceServicer):
    """Answers for what users wish; the contract says what each call means."""

    def __init__(self, use_cases: PreferenceUseCases) -> None:
        self._preferences = use_cases.preferences
        self._defaults = use_cases.defaults
        self._views = use_cases.views
        self._changes = use_cases.changes
        self._imports = use_cases.imports
        self._categories = use_cases.categories
        self._forecast = use_cases.forecast
        self._explaining = use_cases.explaining
        self._source_notes = use_cases.source_notes
        self._overrides = use_cases.overrides

    async def GetPreference(
        self, request: messages.GetPreferenceRequest, context: Any
    ) -> messages.GetPreferenceResponse:
        checks = Checks()
        user_id = checks.name("user_id", request.user_id)
        feature_type = checks.name("feature_type", request.feature_type)
        tenant_id = checks.tenant(caller_of(), request.tenant_id)
        checks.done()
        preference = await self._preferences.get_preference(
            user_id=user_id, feature_type=feature_type, tenant_id=tenant_id
        )
        return messages.GetPreferenceResponse(preference=preference_to(preference))

    async def SetPreference(
        self, request: messages.SetPreferenceRequest, context: Any
    ) -> messages.SetPreferenceResponse:
        checks, tenant_id = Checks(), caller_of().tenant_id
        wished = wished_from("preference", request.preference, checks=checks)
        update_mask = checks.mask("update_mask", request.update_mask, WISH_FIELDS)
        idempotency = idempotency_from(request, checks=checks)
        checks.done()
        done = await self._preferences.set_preference(
            wished.wish,
            user_id=wished.user_id,
            feature_type=wished.feature_type,
            tenant_id=tenant_id,
            etag=wished.etag,
            update_mask=update_mask,
            idempotency=idempotency,
        )
        next_runs = await self._views.next_runs(done.preference, tenant_id=tenant_id)
        said = _said("preference", done.preference)
        notices = await self._overrides.of([said], tenant_id=tenant_id)
        return messages.SetPreferenceResponse(
            preference=preference_to(done.preference),
            group_left=done.group_left,
            group_joined=done.group_joined,
            next_runs=[upcoming_run_to(run) for run in next_runs],
            warnings=warnings_to(notices),
        )

    async def DeletePreference(
        self, request: messages.DeletePreferenceRequest, context: Any
    ) -> messages.DeletePreferenceResponse:
        checks = Checks()
        user_id = checks.name("user_id", request.user_id)
        feature_type = checks.name("feature_type", request.feature_type)
        etag = checks.line("etag", request.etag)
        idempotency = idempotency_from(request, checks=checks)
        checks.done()
        group_left = await self._preferences.delete_preference(
            user_id=user_id,
            feature_type=feature_type,
            tenant_id=caller_of().tenant_id,
            etag=etag,
            idempotency=idempotency,
        )
        return messages.DeletePreferenceResponse(group_left=group_left)

    async def BatchSetPreferences(
        self, request: messages.BatchSetPreferencesRequest, context: Any
    ) -> messages.BatchSetPreferencesResponse:
        checks = Checks()
        checks.count("preferences", request.preferences, least=1, most=MAX_PREFERENCES)
        wished = [
            wished_from(f"preferences[{index}]", given, checks=checks)
            for index, given in enumerate(request.preferences[:MAX_PREFERENCES])
        ]
        checks.add(repeated_keys(wished))
        update_mask = checks.mask("update_mask", request.update_mask, WISH_FIELDS)
        idempotency = idempotency_from(request, checks=checks)
        checks.done()
        tenant_id = caller_of().tenant_id
        results = await self._preferences.batch_set_preferences(
            wished,
            tenant_id=tenant_id,
            update_mask=update_mask,
            idempotency=idempotency,
        )
        said = [
            SaidOverrides(
                path=f"preferences[{index}].template_overrides",
                feature_type=each.feature_type,
                overrides=each.wish.template_overrides,
            )
            for index, each in enumerate(wished)
            if "template_overrides" in masked_fields(update_mask)
        ]
        return messages.BatchSetPreferencesResponse(
            results=[result_to(result) for result in results],
            warnings=warnings_to(await self._overrides.of(said, tenant_id=tenant_id)),
        )

    async def ListPreferences(
        self, request: messages.ListPreferencesRequest, context: Any
    ) -> messages.ListPreferencesResponse:
        checks = Checks()
        wanted = preference_filter_from(request, caller=caller_of(), checks=checks)
        page_size = checks.page_size(request.page_size)
        after = preference_place_from(request, tenant_id=wanted.tenant_id, checks=checks)
        checks.done()
        preferences, last = await self._preferences.list_preferences(
            wanted, page_size=page_size, after=after
        )
        return messages.ListPreferencesResponse(
            preferences=[preference_to(preference) for preference in preferences],
            next_page_token=token_after_owned(request, last, tenant_id=wanted.tenant_id),
        )

    async def ImportPreferences(
        self, request: messages.ImportPreferencesRequest, context: Any
    ) -> messages.ImportPreferencesResponse:
        checks = Checks()
        idempotency = idempotency_from(request, checks=checks)
        checks.done()
        tenant_id = caller_of().tenant_id
        users = await self._imports.read(request.preferences_json)
        imported = await self._imports.import_preferences(
            users,
            tenant_id=tenant_id,
            idempotency=idempotency,
            validate_only=request.validate_only,
        )
        said = [
            SaidOverrides(
                path=f"{child_path(user.path, feature_type)}.template_overrides",
                feature_type=feature_type,
                overrides=wish.template_overrides,
            )
            for user in users
            for feature_type, wish in user.wishes.items()
        ]
        return messages.ImportPreferencesResponse(
            preferences=[imported_to(each) for each in imported],
            warnings=warnings_to(await self._overrides.of(said, tenant_id=tenant_id)),
        )

    async def GetDefaultPreference(
        self, request: messages.GetDefaultPreferenceRequest, context: Any
    ) -> messages.GetDefaultPreferenceResponse:
        checks = Checks()
        feature_type = checks.name("feature_type", request.feature_type)
        tenant_id = checks.tenant(caller_of(), request.tenant_id)
        checks.done()
        default = await self._defaults.get_default_preference(feature_type, tenant_id=tenant_id)
        return messages.GetDefaultPreferenceResponse(default_preference=default_to(default))

    async def SetDefaultPreference(
        self, request: messages.SetDefaultPreferenceRequest, context: Any
    ) -> messages.SetDefaultPreferenceResponse:
        checks, given = Checks(), request.default_preference
        feature_type = checks.name("default_preference.feature_type", given.feature_type)
        wish = wish_from("default_preference", given, checks=checks)
        update_mask = checks.mask("update_mask", request.update_mask, WISH_FIELDS)
        idempotency = idempotency_from(request, checks=checks)
        checks.done()
        tenant_id = caller_of().tenant_id
        default = await self._defaults.set_default_preference(
            wish,
            feature_type=feature_type,
            tenant_id=tenant_id,
            etag=given.etag,
            update_mask=update_mask,
            idempotency=idempotency,
        )
        said = _said("default_preference", default)
        return messages.SetDefaultPreferenceResponse(
            default_preference=default_to(default),
            warnings=warnings_to(await self._overrides.of([said], tenant_id=tenant_id)),
        )

    async def GetEffectivePreference(
        self, request: messages.GetEffectivePreferenceRequest, context: Any
    ) -> messages.GetEffectivePreferenceResponse:
        checks = Checks()
        user_id = checks.name("user_id", request.user_id)
        feature_type = checks.name("feature_type", request.feature_type)
        job_id = checks.optional_id("job_id", request.job_id)
        tenant_id = checks.tenant(caller_of(), request.tenant_id)
        checks.done()
        view = await self._views.get_effective_preference(
            user_id=user_id, feature_type=feature_type, tenant_id=tenant_id, job_id=job_id
        )
        return effective_to(view)

    async def ExplainUser(
        self, request: messages.ExplainUserRequest, context: Any
    ) -> messages.ExplainUserResponse:
        checks = Checks()
        user_id = checks.name("user_id", request.user_id)
        feature_type = checks.name("feature_type", request.feature_type)
        job_id = checks.optional_id("job_id", request.job_id)
        start, end = explained_span(request, checks=checks)
        tenant_id = checks.tenant(caller_of(), request.tenant_id)
        checks.done()
        periods, next_runs = await self._explaining.explain_user(
            user_id=user_id,
            feature_type=feature_type,
            tenant_id=tenant_id,
            job_id=job_id,
            start=start,
            end=end,
        )
        note = await self._source_notes.of(user_id, feature_type=feature_type, tenant_id=tenant_id)
        return messages.ExplainUserResponse(
            periods=[user_period_to(period) for period in periods],
            next_runs=[upcoming_run_to(run) for run in next_runs],
            source_note=source_note_to(note),
        )

    async def PreviewSchedule(
        self, request: messages.PreviewScheduleRequest, context: Any
    ) -> messages.PreviewScheduleResponse:
        checks = Checks()
        schedule = schedule_from("schedule", request.schedule, checks=checks)
        if schedule is not None:
            checks.add(check_schedule(schedule, path="schedule"))
        feature_type = checks.line("feature_type", request.feature_type)
        after = None
        if request.HasField("start_time"):
            after = checks.moment("start_time", request.start_time)
        count = checks.set_whole("count", request.count, least=1, most=MAX_PAGE_SIZE)
        tenant_id = checks.tenant(caller_of(), request.tenant_id)
        checks.done()
        assert schedule is not None  # noqa: S101  else it was refused
        runs, zone_origin = await self._views.preview_schedule(
            schedule,
            feature_type=feature_type,
            tenant_id=tenant_id,
            after=after,
            count=count or _PREVIEWED,
        )
        return messages.PreviewScheduleResponse(
            runs=[upcoming_run_to(run) for run in runs], time_zone_origin=origin_to(zone_origin)
        )

    async def ListPreferenceGroups(
        self, request: messages.ListPreferenceGroupsRequest, context: Any
    ) -> messages.ListPreferenceGroupsResponse:
        checks = Checks()
        feature_type = checks.line("feature_type", request.feature_type)
        tenant_id = checks.scope(caller_of(), request.tenant_id)
        page_size = checks.page_size(request.page_size)
        after = group_place_from(request, tenant_id=tenant_id, checks=checks)
        checks.done()
        views, last = await self._views.list_preference_groups(
            tenant_id=tenant_id,
            feature_type=feature_type,
            with_empty=request.with_empty,
            page_size=page_size,
            after=after,
        )
        return messages.ListPreferenceGroupsResponse(
            groups=[group_to(view) for view in views],
            next_page_token=token_after_owned(request, last, tenant_id=tenant_id),
        )

    async def ForecastLoad(
        self, request: messages.ForecastLoadRequest, context: Any
    ) -> messages.ForecastLoadResponse:
        checks = Checks()
        feature_type = checks.line("feature_type", request.feature_type)
        tenant_id = checks.tenant(caller_of(), request.tenant_id)
        start, end = self._stretch_of(request, checks=checks)
        bucket = SHORTEST_BUCKET
        if request.HasField("bucket"):
            bucket = checks.duration(
                "bucket", request.bucket, least=SHORTEST_BUCKET, most=LONGEST_BUCKET
            )
        checks.done()
        buckets = await self._forecast.forecast_load(
            tenant_id=tenant_id, feature_type=feature_type, start=start, end=end, bucket=bucket
        )
        return forecast_to(buckets)

    def _stretch_of(
        self, request: messages.ForecastLoadRequest, *, checks: Checks
    ) -> tuple[datetime, datetime]:
        start = end = None
        if request.HasField("start_time"):
            start = checks.moment("start_time", request.start_time)
        start = start or self._forecast.now()
        if request.HasField("end_time"):
            end = checks.moment("end_time", request.end_time)
        end = end or start + DEFAULT_LENGTH
        if not timedelta(0) < end - start <= LONGEST_FORECAST:
            checks.refuse(
                "end_time", f"It is not after the start, or more than {LONGEST_FORECAST.days} days."
            )
        return start, end

    async def ListGroupMembers(
        self, request: messages.ListGroupMembersRequest, context: Any
    ) -> messages.ListGroupMembersResponse:
        checks = Checks()
        group_key = checks.whole("group_key", request.group_key, least=1, most=MAX_INTEGER)
        tenant_id = checks.tenant(caller_of(), request.tenant_id)
        page_size = checks.page_size(request.page_size)
        after = name_from(request, checks=checks)
        checks.done()
        members, last = await self._views.list_group_members(
            group_key, tenant_id=tenant_id, page_size=page_size, after=after
        )
        return messages.ListGroupMembersResponse(
            preferences=[preference_to(member) for member in members],
            next_page_token=token_after_name(request, last),
        )

    async def ListCompatibleCategories(
        self, request: messages.ListCompatibleCategoriesRequest, context: Any
    ) -> messages.ListCompatibleCategoriesResponse:
        checks = Checks()
        feature_type = checks.name("feature_type", request.feature_type)
        user_id = checks.line("user_id", request.user_id)
        tenant_id = checks.tenant(caller_of(), request.tenant_id)
        page_size = checks.page_size(request.page_size)
        after = name_from(request, checks=checks)
        checks.done()
        found, last = await self._categories.list_compatible_categories(
            feature_type, user_id=user_id, tenant_id=tenant_id, page_size=page_size, after=after
        )
        return messages.ListCompatibleCategoriesResponse(
            categories=[category_to(each) for each in found],
            next_page_token=token_after_name(request, last),
        )

    async def ListPreferenceChanges(
        self, request: messages.ListPreferenceChangesRequest, context: Any
    ) -> messages.ListPreferenceChangesResponse:
        checks = Checks()
        after = _after_from(request, checks=checks)
        tenant_id = checks.scope(caller_of(), request.tenant_id)
        page_size = checks.page_size(request.page_size)
        place = change_place_from(request, tenant_id=tenant_id, checks=checks)
        if tenant_id is None and after is not None:
            checks.refuse("after", "Each tenant counts its own changes; name one, or leave it out.")
        checks.done()
        if tenant_id is None:
            listed = await self._changes.list_changes_of_all(after=place, page_size=page_size)
        else:
            listed = await self._changes.list_preference_changes(
                tenant_id=tenant_id,
                after=after if place is None else place[1],
                page_size=page_size,
            )
        return messages.ListPreferenceChangesResponse(
            changes=[change_to(change) for change in listed.changes],
            newest=listed.newest,
            next_page_token=token_after_owned(request, listed.last, tenant_id=tenant_id),
        )

    async def WatchPreferenceChanges(
        self, request: messages.WatchPreferenceChangesRequest, context: Any
    ) -> AsyncGenerator[messages.WatchPreferenceChangesResponse, None]:
        checks = Checks()
        after = _after_from(request, checks=checks)
        tenant_id = checks.tenant(caller_of(), request.tenant_id)
        checks.done()
        told = self._changes.watch_preference_changes(tenant_id=tenant_id, after=after)
        async with aclosing(told):
            async for message in told:
                yield told_to(message)


def _after_from(
    request: messages.ListPreferenceChangesRequest | messages.WatchPreferenceChangesRequest,
    *,
    checks: Checks,
) -> int | None:
    """Returns the number of the change after which to go on; none when it is unset."""
    if not request.HasField("after"):
        return None
    return checks.whole("after", request.after, least=0, most=MAX_INTEGER)


def _said(path: str, preference: Preference | DefaultPreference) -> SaidOverrides:
    return SaidOverrides(
        path=f"{path}.template_overrides",
        feature_type=preference.feature_type,
        overrides=preference.template_overrides,
    )
