"""GetDefaultPreference returns what a tenant wishes for a feature."""

from __future__ import annotations

import grpc
from batchwork.v1.preference_service_pb2 import GetDefaultPreferenceRequest

from tests.rpc.api import refused
from tests.rpc.preferences import put_default


async def test_the_default_of_a_feature_comes_back(api):
    stored = await put_default(api)

    answer = await api.preferences.GetDefaultPreference(
        GetDefaultPreferenceRequest(feature_type="posts")
    )

    assert answer.default_preference == stored


async def test_a_feature_without_one_is_not_found(api):
    request = GetDefaultPreferenceRequest(feature_type="reports")

    refusal = await refused(api.preferences.GetDefaultPreference(request))

    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert "reports" in refusal.message


async def test_the_feature_has_to_be_given(api):
    refusal = await refused(api.preferences.GetDefaultPreference(GetDefaultPreferenceRequest()))

    assert list(refusal.violations) == ["feature_type"]
