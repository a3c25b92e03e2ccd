"""ImportPreferences reads both shapes of the documents, all or nothing."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
from batchwork.v1.preference_service_pb2 import (
    PREFERENCE_IMPORT_KIND_CREATED as CREATED,
)
from batchwork.v1.preference_service_pb2 import (
    PREFERENCE_IMPORT_KIND_UNCHANGED as UNCHANGED,
)
from batchwork.v1.preference_service_pb2 import (
    PREFERENCE_IMPORT_KIND_UPDATED as UPDATED,
)
from batchwork.v1.preference_service_pb2 import (
    GetPreferenceRequest,
    ImportPreferencesRequest,
    ListPreferencesRequest,
)
from batchwork.v1.schedule_pb2 import WEEKDAY_MONDAY

from tests.rpc.api import refused
from tests.rpc.preferences import daily, groups_of, put

GUIDE: dict[str, Any] = {
    "features": {
        "instagram_posts": {
            "enabled": True,
            "frequency": "daily",
            "preferred_time": "09:00",
            "template_overrides": {
                "tone": "professional",
                "length": "medium",
                "categories": ["fashion", "beauty"],
                "tags": ["trendy", "seasonal"],
                "focus_areas": ["engagement", "growth"],
                "sort_by": "popularity",
                "sort_order": "desc",
                "item_limit": 10,
                "custom_filters": {"min_engagement": 3.5},
            },
        },
        "etsy_analysis": {
            "enabled": True,
            "frequency": "weekly",
            "preferred_day": "monday",
            "preferred_time": "10:00",
            "template_overrides": {"focus_areas": ["pricing", "description"]},
        },
    },
    "tenant_id": "tenant123",
    "active": True,
}
"""The example of the batch configuration guide."""

CONFIG: dict[str, Any] = {
    "tenant_id": "user123",
    "config_key": "feature_preferences",
    "config_value": {
        "posts": {
            "enabled": True,
            "frequency": "weekly",
            "preferred_time": "09:00",
            "preferred_day": "monday",
            "template_overrides": {},
        }
    },
}
"""The schema of the preference document, with one frequency of its three."""


def call(api, *documents: Any, text: str = "", **fields: Any):
    text = text or json.dumps(documents[0] if len(documents) == 1 else documents)
    request = ImportPreferencesRequest(preferences_json=text, **fields)
    return api.preferences.ImportPreferences(request)


async def stored_users(api) -> list[str]:
    response = await api.preferences.ListPreferences(ListPreferencesRequest())
    return [preference.user_id for preference in response.preferences]


async def get(api, user_id: str, feature_type: str):
    request = GetPreferenceRequest(user_id=user_id, feature_type=feature_type)
    return (await api.preferences.GetPreference(request)).preference


def one(tenant: str = "ada", **fields: Any) -> dict[str, Any]:
    feature = {"frequency": "daily", "preferred_time": "09:00"}
    return {"tenant_id": tenant, "features": {"posts": feature}} | fields


async def test_the_shape_of_the_guide_is_read(api):
    answer = await call(api, GUIDE)

    assert [(each.user_id, each.feature_type, each.kind) for each in answer.preferences] == [
        ("tenant123", "instagram_posts", CREATED),
        ("tenant123", "etsy_analysis", CREATED),
    ]
    posts = await get(api, "tenant123", "instagram_posts")
    assert (posts.enabled, posts.schedule) == (True, daily())
    assert posts.template_overrides["item_limit"] == 10
    assert len(await groups_of(api)) == 2


async def test_the_shape_of_the_preference_document_is_read_too(api):
    nested = CONFIG | {"tenant_id": "user124", "config_value": {"features": GUIDE["features"]}}

    answer = await call(api, CONFIG, nested)

    assert [each.user_id for each in answer.preferences] == ["user123", "user124", "user124"]
    stored = await get(api, "user123", "posts")
    assert list(stored.schedule.weekly.days) == [WEEKDAY_MONDAY]


async def test_a_user_id_goes_before_the_tenant_of_the_document(api):
    await call(api, one("acme", user_id="ada"))

    assert await stored_users(api) == ["ada"]


async def test_the_difference_names_what_changes(api):
    await put(api, "ada", schedule=daily())
    await put(api, "bob", schedule=daily("18:00"), template_overrides={"tone": "warm"})

    answer = await call(api, one("ada"), one("bob", active=False), one("cyd"))

    assert [
        (each.user_id, each.kind, list(each.changed_fields)) for each in answer.preferences
    ] == [
        ("ada", UNCHANGED, []),
        ("bob", UPDATED, ["active", "schedule", "template_overrides"]),
        ("cyd", CREATED, []),
    ]


async def test_inactive_counts_for_all_that_the_user_has_set_until_it_is_taken_back(api):
    await put(api, "ada", feature_type="reports")
    await put(api, "bob", feature_type="reports")

    answer = await call(api, one("ada", active=False))
    inactive = await get(api, "ada", "reports")
    await put(api, "ada", schedule=daily("18:00"))
    still = await get(api, "ada", "posts")
    await call(api, one("ada", active=True))

    assert [(each.feature_type, each.kind) for each in answer.preferences] == [
        ("posts", CREATED),
        ("reports", UPDATED),
    ]
    assert inactive.inactive
    assert still.inactive
    assert not (await get(api, "ada", "reports")).inactive
    assert not (await get(api, "bob", "reports")).inactive
    assert sum(group.member_count for group in await groups_of(api)) == 3


async def test_a_document_that_does_not_say_active_leaves_it(api):
    await call(api, one(active=False))

    answer = await call(api, one())

    assert [each.kind for each in answer.preferences] == [UNCHANGED]
    assert (await get(api, "ada", "posts")).inactive


async def test_validate_only_tells_the_difference_and_stores_nothing(api):
    request_id = {"request_id": "request-1"}

    told = await call(api, GUIDE, validate_only=True, **request_id)
    nothing = await stored_users(api)
    done = await call(api, GUIDE)

    assert told == done
    assert nothing == []


async def test_the_same_request_id_gets_the_first_answer(api):
    first = await call(api, one(), request_id="request-1")

    again = await call(api, one(), request_id="request-1")

    assert again == first
    assert again.preferences[0].kind == CREATED


async def test_all_that_is_wrong_is_answered_by_its_path_and_nothing_is_stored(api):
    wrong = one(
        "bob",
        features={
            "posts": {"frequency": "daily", "preferred_time": "25:00"},
            "reports": {"enabled": "yes", "template_overrides": {"sort_order": "up"}},
            "stories": {"template_overrides": {"item_limit": 0}},
        },
        surprise=1,
    )

    refusal = await refused(
        call(api, one(), wrong, one(), {"features": {}}, one("cyd", config_value={"a": {}}), 5)
    )

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert sorted(refusal.violations) == [
        "$[1].features.posts.preferred_time",
        "$[1].features.reports.enabled",
        "$[1].features.stories.template_overrides.item_limit",
        "$[1].surprise",
        "$[2]",
        "$[3].tenant_id",
        "$[4].features",
        "$[5]",
    ]
    assert await stored_users(api) == []


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("{", "$"),
        ("5", "$"),
        ('{"tenant_id": "a"}', "$.features"),
        ('{"tenant_id": "a", "features": {}, "features": {}}', "$.features"),
    ],
    ids=["no JSON", "no object", "no features", "key twice"],
)
async def test_text_that_is_no_document_is_refused(api, text, path):
    refusal = await refused(call(api, text=text))

    assert list(refusal.violations) == [path]


async def test_more_than_ten_thousand_preferences_are_refused(api):
    features: dict[str, Any] = {f"feature-{n}": {} for n in range(10_001)}

    refusal = await refused(call(api, one(features=features)))

    assert refusal.reasons == {"$": "PAYLOAD_TOO_LARGE"}


async def test_thousands_come_in_one_import(api):
    documents = [one(f"user-{n:04}") for n in range(2500)]

    answer = await call(api, *documents)

    assert len(answer.preferences) == 2500
    [group] = await groups_of(api)
    assert group.member_count == 2500
