"""Preferences between the contract and the domain."""

from __future__ import annotations

from collections.abc import Sequence

from batchwork.v1 import preference_pb2 as messages
from batchwork.v1 import preference_service_pb2 as service

from batchwork_server.application.compatible_categories import CompatibleCategory
from batchwork_server.application.preference_changes import ToldChange
from batchwork_server.application.preference_imports import ImportedPreference
from batchwork_server.application.preference_views import EffectiveView, GroupView
from batchwork_server.application.preferences import SetResult, WishedPreference
from batchwork_server.domain.forecast import LoadBucket
from batchwork_server.domain.preference import (
    DefaultPreference,
    Preference,
    Wish,
    check_key,
    check_wish,
)
from batchwork_server.domain.preference_groups import (
    ChangeKind,
    EffectiveSchedule,
    Origin,
    PreferenceChange,
)
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.override_conversion import (
    known_overrides_to,
    overrides_from,
    where_they_stand,
)
from batchwork_server.rpc.schedule_conversion import schedule_from, schedule_to
from batchwork_server.rpc.upcoming_conversion import upcoming_run_to
from batchwork_server.rpc.values import set_timestamp, struct_to, timestamp_to

_ORIGINS = {
    origin: messages.PreferenceOrigin.Value(f"PREFERENCE_ORIGIN_{origin}") for origin in Origin
}
_KINDS = {
    kind: messages.PreferenceChangeKind.Value(f"PREFERENCE_CHANGE_KIND_{kind}")
    for kind in ChangeKind
}


def wish_from(
    path: str, given: messages.Preference | messages.DefaultPreference, *, checks: Checks
) -> Wish:
    """Returns what a preference, or a default, wishes."""
    checks.line(f"{path}.etag", given.etag)
    schedule = None
    if given.HasField("schedule"):
        schedule = schedule_from(f"{path}.schedule", given.schedule, checks=checks)
    wish = Wish(
        enabled=given.enabled,
        schedule=schedule,
        template_overrides=overrides_from(path, given, checks=checks),
    )
    checks.add(where_they_stand(list(check_wish(wish, path=path)), path, given))
    return wish


def wished_from(path: str, given: messages.Preference, *, checks: Checks) -> WishedPreference:
    """Returns a preference that is to be set, with the names that it is found by."""
    checks.add(check_key(given.user_id, given.feature_type, path=path))
    return WishedPreference(
        user_id=given.user_id,
        feature_type=given.feature_type,
        wish=wish_from(path, given, checks=checks),
        etag=given.etag,
    )


def preference_to(preference: Preference) -> messages.Preference:
    schedule = preference.schedule
    return messages.Preference(
        tenant_id=preference.tenant_id,
        user_id=preference.user_id,
        feature_type=preference.feature_type,
        enabled=preference.enabled,
        schedule=None if schedule is None else schedule_to(schedule),
        template_overrides=struct_to(preference.template_overrides),
        known_overrides=known_overrides_to(preference.template_overrides),
        etag=preference.etag,
        create_time=timestamp_to(preference.create_time),
        update_time=timestamp_to(preference.update_time),
        inactive=not preference.active,
    )


def default_to(default: DefaultPreference) -> messages.DefaultPreference:
    schedule = default.schedule
    return messages.DefaultPreference(
        tenant_id=default.tenant_id,
        feature_type=default.feature_type,
        enabled=default.enabled,
        schedule=None if schedule is None else schedule_to(schedule),
        template_overrides=struct_to(default.template_overrides),
        known_overrides=known_overrides_to(default.template_overrides),
        etag=default.etag,
        create_time=timestamp_to(default.create_time),
        update_time=timestamp_to(default.update_time),
    )


def result_to(result: SetResult) -> service.SetPreferenceResult:
    return service.SetPreferenceResult(
        user_id=result.user_id,
        feature_type=result.feature_type,
        etag=result.etag,
        changed=result.changed,
        group_left=result.group_left,
        group_joined=result.group_joined,
    )


def origin_to(origin: Origin) -> messages.PreferenceOrigin.ValueType:
    return _ORIGINS[origin]


def effective_to(view: EffectiveView) -> service.GetEffectivePreferenceResponse:
    effective = view.preference
    response = service.GetEffectivePreferenceResponse(
        enabled=effective.enabled,
        enabled_origin=_ORIGINS[effective.enabled_origin],
        template_overrides=struct_to(effective.template_overrides),
        known_overrides=known_overrides_to(effective.template_overrides),
        override_origins={
            name: _ORIGINS[origin] for name, origin in effective.override_origins.items()
        },
        inactive=not effective.active,
        job_id=view.job_id,
        next_runs=[upcoming_run_to(run) for run in view.next_runs],
        period_done=view.period_done,
    )
    if effective.schedule is not None:
        response.schedule.CopyFrom(schedule_to(effective.schedule.schedule))
        response.schedule_origin = _ORIGINS[effective.schedule.origin]
        response.time_zone_origin = _ORIGINS[effective.schedule.zone_origin]
    return response


def group_to(view: GroupView) -> service.PreferenceGroup:
    group = view.group
    message = service.PreferenceGroup(
        group_key=group.group_key,
        tenant_id=group.tenant_id,
        feature_type=group.feature_type,
        schedule=None if group.schedule is None else schedule_to(group.schedule),
        member_count=group.member_count,
        next_runs=[upcoming_run_to(run) for run in view.next_runs],
        create_time=timestamp_to(group.create_time),
    )
    effective: EffectiveSchedule | None = view.schedule
    if effective is not None:
        message.effective_schedule.CopyFrom(schedule_to(effective.schedule))
        message.schedule_origin = _ORIGINS[effective.origin]
        message.time_zone_origin = _ORIGINS[effective.zone_origin]
    return message


def change_to(change: PreferenceChange) -> messages.PreferenceChange:
    return messages.PreferenceChange(
        tenant_id=change.tenant_id,
        sequence=change.sequence,
        change_time=timestamp_to(change.change_time),
        kind=_KINDS[change.kind],
        feature_type=change.feature_type,
        user_id=change.user_id,
        revision=change.revision,
        enabled=change.enabled,
        group_left=change.group_left,
        group_joined=change.group_joined,
    )


def told_to(told: ToldChange) -> service.WatchPreferenceChangesResponse:
    return service.WatchPreferenceChangesResponse(
        kind=service.PreferenceWatchKind.Value(f"PREFERENCE_WATCH_KIND_{told.kind}"),
        change=None if told.change is None else change_to(told.change),
        after=told.after,
    )


def imported_to(imported: ImportedPreference) -> service.ImportedPreference:
    return service.ImportedPreference(
        user_id=imported.user_id,
        feature_type=imported.feature_type,
        kind=service.PreferenceImportKind.Value(f"PREFERENCE_IMPORT_KIND_{imported.kind}"),
        changed_fields=imported.changed_fields,
    )


def category_to(compatible: CompatibleCategory) -> service.CompatibleCategory:
    return service.CompatibleCategory(
        category=compatible.category,
        job_ids=compatible.job_ids,
        matching_fields=compatible.matching_fields,
        missing_fields=compatible.missing_fields,
    )


def forecast_to(buckets: Sequence[LoadBucket]) -> service.ForecastLoadResponse:
    answer = service.ForecastLoadResponse(
        user_count=sum(bucket.user_count for bucket in buckets),
        run_count=sum(bucket.run_count for bucket in buckets),
    )
    for bucket in buckets:
        added = answer.buckets.add(user_count=bucket.user_count, run_count=bucket.run_count)
        set_timestamp(added.start_time, bucket.start_time)
    return answer
