"""ListPreferences shows wishes by feature and user, a page at a time."""

from __future__ import annotations

import grpc
import pytest
from batchwork.v1.preference_pb2 import Preference
from batchwork.v1.preference_service_pb2 import ListPreferencesRequest, SetPreferenceRequest

from tests.rpc.api import refused

ADA_POSTS, ADA_STORIES, BOB_POSTS = ("posts", "ada"), ("stories", "ada"), ("posts", "bob")


async def keys(api, **fields) -> list[tuple[str, str]]:
    response = await api.preferences.ListPreferences(ListPreferencesRequest(**fields))
    return [(found.feature_type, found.user_id) for found in response.preferences]


@pytest.fixture
async def preferences(api) -> None:
    for (feature_type, user_id), enabled in (
        (ADA_STORIES, True),
        (BOB_POSTS, False),
        (ADA_POSTS, True),
    ):
        preference = Preference(user_id=user_id, feature_type=feature_type, enabled=enabled)
        await api.preferences.SetPreference(SetPreferenceRequest(preference=preference))


@pytest.mark.usefixtures("preferences")
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({}, [ADA_POSTS, BOB_POSTS, ADA_STORIES], id="all"),
        pytest.param({"user_id": "ada"}, [ADA_POSTS, ADA_STORIES], id="user"),
        pytest.param({"feature_type": "posts"}, [ADA_POSTS, BOB_POSTS], id="feature"),
        pytest.param({"enabled": True}, [ADA_POSTS, ADA_STORIES], id="enabled"),
        pytest.param({"enabled": False}, [BOB_POSTS], id="not enabled"),
    ],
)
async def test_filters_keep_what_was_asked_for(api, fields, expected):
    assert await keys(api, **fields) == expected


@pytest.mark.usefixtures("preferences")
async def test_pages_add_up_to_the_whole(api):
    request = ListPreferencesRequest(page_size=2)
    first = await api.preferences.ListPreferences(request)

    rest = await keys(api, page_size=2, page_token=first.next_page_token)

    assert len(first.preferences) == 2
    assert rest == [ADA_STORIES]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        pytest.param({"page_size": -1}, "page_size", id="negative page size"),
        pytest.param({"page_token": "garbage"}, "page_token", id="garbage for a token"),
        pytest.param({"user_id": "a\n"}, "user_id", id="control character"),
    ],
)
async def test_bad_filters_are_violations(api, fields, path):
    refusal = await refused(api.preferences.ListPreferences(ListPreferencesRequest(**fields)))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == [path]
