"""DeletePreference takes a wish back."""

from __future__ import annotations

import grpc
import pytest
from batchwork.v1.preference_service_pb2 import (
    DeletePreferenceRequest,
    GetPreferenceRequest,
    SetPreferenceRequest,
)

from tests.rpc.api import refused
from tests.rpc.preferences import daily, groups_of, make_preference, put


def deletion(**fields: str) -> DeletePreferenceRequest:
    return DeletePreferenceRequest(**{"user_id": "ada", "feature_type": "posts"} | fields)


async def test_what_is_deleted_is_gone_and_the_user_left_their_group(api):
    stored = await put(api, schedule=daily())

    answer = await api.preferences.DeletePreference(deletion())

    assert answer.group_left == stored.group_joined
    read = GetPreferenceRequest(user_id="ada", feature_type="posts")
    refusal = await refused(api.preferences.GetPreference(read))
    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert await groups_of(api) == []


async def test_the_same_request_id_gets_the_first_answer(api):
    await put(api, schedule=daily())
    request = deletion(request_id="request-1")

    first = await api.preferences.DeletePreference(request)
    await put(api, schedule=daily())
    again = await api.preferences.DeletePreference(request)

    assert again == first
    assert len(await groups_of(api)) == 1


async def test_an_etag_that_is_out_of_date_is_refused(api):
    first = await put(api)
    await put(api, enabled=False)

    refusal = await refused(api.preferences.DeletePreference(deletion(etag=first.preference.etag)))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")


async def test_a_preference_that_is_not_set_is_not_found(api):
    refusal = await refused(api.preferences.DeletePreference(deletion()))

    assert refusal.code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("path", ["user_id", "feature_type"])
async def test_what_it_is_found_by_has_to_be_given(api, path):
    refusal = await refused(api.preferences.DeletePreference(deletion(**{path: ""})))

    assert list(refusal.violations) == [path]


async def test_an_etag_of_what_was_deleted_fits_nothing_that_is_set_later(api):
    """The revision began again at 1, so an etag from before passed for that of the new one."""
    first = await put(api)
    await api.preferences.DeletePreference(deletion())
    second = await put(api)

    refusal = await refused(api.preferences.DeletePreference(deletion(etag=first.preference.etag)))

    assert second.preference.etag != first.preference.etag
    assert refusal.reason == "ETAG_MISMATCH"


async def test_a_repeated_request_answers_the_etag_of_the_first(api):
    request = SetPreferenceRequest(preference=make_preference(), request_id="request-1")
    first = await api.preferences.SetPreference(request)
    again = await api.preferences.SetPreference(request)
    read = GetPreferenceRequest(user_id="ada", feature_type="posts")
    stored = await api.preferences.GetPreference(read)

    assert first.preference.etag == again.preference.etag == stored.preference.etag
