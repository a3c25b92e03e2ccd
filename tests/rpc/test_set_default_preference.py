"""SetDefaultPreference keeps what a tenant wishes for users who say nothing."""

from __future__ import annotations

import grpc
from batchwork.v1.preference_service_pb2 import (
    GetDefaultPreferenceRequest,
    SetDefaultPreferenceRequest,
)
from google.protobuf.field_mask_pb2 import FieldMask

from tests.rpc.api import refused
from tests.rpc.preferences import daily, groups_of, make_default, put, put_default


def request_of(**fields) -> SetDefaultPreferenceRequest:
    return SetDefaultPreferenceRequest(default_preference=make_default(**fields))


async def test_a_default_is_kept_as_it_was_set(api):
    stored = await put_default(api, schedule=daily(), template_overrides={"tone": "warm"})

    read = await api.preferences.GetDefaultPreference(
        GetDefaultPreferenceRequest(feature_type="posts")
    )
    assert read.default_preference == stored
    assert (stored.schedule, dict(stored.template_overrides)) == (daily(), {"tone": "warm"})


async def test_a_mask_sets_only_what_it_names(api):
    await put_default(api, schedule=daily(), template_overrides={"tone": "warm"})
    request = request_of(enabled=False)
    request.update_mask.CopyFrom(FieldMask(paths=["enabled"]))

    answer = await api.preferences.SetDefaultPreference(request)

    assert not answer.default_preference.enabled
    assert answer.default_preference.schedule == daily()


async def test_the_etag_changes_with_the_default_and_guards_it(api):
    first = await put_default(api)
    same = await put_default(api)
    await put_default(api, enabled=False)

    refusal = await refused(api.preferences.SetDefaultPreference(request_of(etag=first.etag)))

    assert same.etag == first.etag
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")


async def test_the_same_request_id_gets_the_first_answer(api):
    request = request_of(schedule=daily())
    request.request_id = "request-1"
    first = await api.preferences.SetDefaultPreference(request)
    await put_default(api, enabled=False)

    again = await api.preferences.SetDefaultPreference(request)

    assert again == first


async def test_it_moves_the_due_time_of_a_group_and_none_of_its_members(api):
    stored = await put(api)
    [before] = await groups_of(api)

    await put_default(api, schedule=daily(time_zone="Asia/Tokyo"))

    [after] = await groups_of(api)
    assert before.group_key == after.group_key == stored.group_joined
    assert (len(before.next_runs), len(after.next_runs)) == (0, 1)
    assert after.next_runs[0].local_time.endswith("T09:00:00+09:00")


async def test_all_that_is_wrong_is_answered_at_once(api):
    request = request_of(feature_type="", schedule=daily("9"))
    request.default_preference.template_overrides.update({"sort_order": "up"})

    refusal = await refused(api.preferences.SetDefaultPreference(request))

    assert sorted(refusal.violations) == [
        "default_preference.feature_type",
        "default_preference.schedule.daily.at",
        "default_preference.template_overrides.sort_order",
    ]
