"""The overrides that the service knows have types; the others are kept as they are given."""

from __future__ import annotations

from typing import Any, cast

import pytest
from batchwork.v1.preference_pb2 import KnownOverrides, SortOrder
from batchwork.v1.preference_service_pb2 import (
    GetEffectivePreferenceRequest,
    GetPreferenceRequest,
)
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct

from tests.rpc.api import refused
from tests.rpc.preferences import daily, make_driven_job, put, put_default


def struct(**values: Any) -> Struct:
    made = Struct()
    made.update(values)
    return made


EVERY_ONE = KnownOverrides(
    tone="professional",
    length="medium",
    categories=["fashion", "beauty"],
    tags=["trendy", "seasonal"],
    focus_areas=["engagement", "growth"],
    sort_by="popularity",
    sort_order=SortOrder.SORT_ORDER_DESC,
    item_limit=10,
    custom_filters=struct(min_engagement=3.5),
)

AS_THE_DOCUMENTS_HAVE_IT = {
    "tone": "professional",
    "length": "medium",
    "categories": ["fashion", "beauty"],
    "tags": ["trendy", "seasonal"],
    "focus_areas": ["engagement", "growth"],
    "sort_by": "popularity",
    "sort_order": "desc",
    "item_limit": 10,
    "custom_filters": {"min_engagement": 3.5},
}


async def stored(api, user_id="ada"):
    request = GetPreferenceRequest(user_id=user_id, feature_type="posts")
    return (await api.preferences.GetPreference(request)).preference


async def test_typed_overrides_are_the_same_as_those_by_name(api):
    await put(api, "typed", known_overrides=EVERY_ONE)
    await put(api, "named", template_overrides=struct(**AS_THE_DOCUMENTS_HAVE_IT))

    typed, named = await stored(api, "typed"), await stored(api, "named")

    assert MessageToDict(typed.template_overrides) == AS_THE_DOCUMENTS_HAVE_IT
    assert typed.known_overrides == named.known_overrides == EVERY_ONE


async def test_other_overrides_are_kept_beside_them(api):
    await put(api, known_overrides=KnownOverrides(tone="dry"), template_overrides=struct(emoji=3))

    preference = await stored(api)

    assert MessageToDict(preference.template_overrides) == {"tone": "dry", "emoji": 3}
    assert preference.known_overrides == KnownOverrides(tone="dry")


async def test_what_was_read_can_be_set_again(api):
    await put(api, known_overrides=EVERY_ONE, template_overrides=struct(emoji=3))
    before = await stored(api)

    answer = await put(
        api,
        known_overrides=before.known_overrides,
        template_overrides=before.template_overrides,
    )

    assert answer.preference.etag == before.etag


async def test_an_override_that_is_said_twice_and_differently_is_refused(api):
    error = await refused(
        put(api, known_overrides=KnownOverrides(tone="dry"), template_overrides=struct(tone="wet"))
    )

    assert list(error.violations) == ["preference.known_overrides.tone"]
    assert "dry" in error.violations["preference.known_overrides.tone"]


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        (KnownOverrides(tone="two\nlines"), "tone"),
        (KnownOverrides(tags=["a", ""]), "tags[1]"),
        (KnownOverrides(item_limit=0), "item_limit"),
        (KnownOverrides(sort_by="no field!"), "sort_by"),
        (KnownOverrides(sort_order=cast("SortOrder.ValueType", 9)), "sort_order"),
        (KnownOverrides(custom_filters=struct(min_age="old")), "custom_filters.min_age"),
        (KnownOverrides(custom_filters=struct(min_age=float("inf"))), "custom_filters.min_age"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
async def test_a_wrong_one_is_named_where_it_stands(api, wrong, path):
    error = await refused(put(api, known_overrides=wrong))

    assert list(error.violations) == [f"preference.known_overrides.{path}"]


async def test_defaults_and_effective_preferences_have_them_too(api):
    await api.import_jobs(make_driven_job())
    default = await put_default(api, known_overrides=KnownOverrides(tone="dry", length="short"))
    await put(api, schedule=daily(), known_overrides=KnownOverrides(tone="wet", item_limit=3))

    effective = await api.preferences.GetEffectivePreference(
        GetEffectivePreferenceRequest(user_id="ada", feature_type="posts")
    )

    assert default.known_overrides == KnownOverrides(tone="dry", length="short")
    assert effective.known_overrides == KnownOverrides(tone="wet", length="short", item_limit=3)
