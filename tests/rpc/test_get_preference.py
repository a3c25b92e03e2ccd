"""GetPreference returns one user's wish for one feature."""

from __future__ import annotations

import grpc
from batchwork.v1.preference_pb2 import Preference
from batchwork.v1.preference_service_pb2 import GetPreferenceRequest, SetPreferenceRequest

from tests.rpc.api import refused


async def test_a_preference_that_was_set_is_found(api):
    preference = Preference(user_id="ada", feature_type="posts", enabled=True)
    stored = await api.preferences.SetPreference(SetPreferenceRequest(preference=preference))

    found = await api.preferences.GetPreference(
        GetPreferenceRequest(user_id="ada", feature_type="posts")
    )

    assert found.preference == stored.preference


async def test_a_preference_that_was_never_set_is_not_found(api):
    refusal = await refused(
        api.preferences.GetPreference(GetPreferenceRequest(user_id="ada", feature_type="posts"))
    )

    assert refusal.code is grpc.StatusCode.NOT_FOUND


async def test_all_that_is_wrong_is_answered_at_once(api):
    request = GetPreferenceRequest(user_id="a\0", tenant_id="-")

    refusal = await refused(api.preferences.GetPreference(request))

    assert sorted(refusal.violations) == ["feature_type", "tenant_id", "user_id"]
