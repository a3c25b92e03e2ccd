"""BatchSetPreferences sets many wishes, all of them or none."""

from __future__ import annotations

import grpc
import pytest
from batchwork.v1.preference_service_pb2 import (
    BatchSetPreferencesRequest,
    ListPreferencesRequest,
)
from google.protobuf.field_mask_pb2 import FieldMask

from tests.rpc.api import refused
from tests.rpc.preferences import daily, groups_of, make_preference, put


async def batch_set(api, *preferences, **fields):
    request = BatchSetPreferencesRequest(preferences=preferences, **fields)
    return list((await api.preferences.BatchSetPreferences(request)).results)


async def stored_users(api) -> list[str]:
    response = await api.preferences.ListPreferences(ListPreferencesRequest())
    return [preference.user_id for preference in response.preferences]


async def test_a_thousand_are_set_at_once(api):
    wishes = [make_preference(f"user-{n:04}", schedule=daily()) for n in range(1000)]

    results = await batch_set(api, *wishes)

    assert [result.user_id for result in results] == [wish.user_id for wish in wishes]
    assert all(result.changed and result.etag for result in results)
    [group] = await groups_of(api)
    assert group.member_count == 1000
    assert {result.group_joined for result in results} == {group.group_key}


async def test_what_is_so_already_is_not_changed(api):
    first = await put(api, "ada")

    ada, bob = await batch_set(api, make_preference("ada"), make_preference("bob"))

    assert (ada.changed, ada.etag) == (False, first.preference.etag)
    assert bob.changed
    assert not ada.HasField("group_joined")


async def test_a_mask_counts_for_each(api):
    await put(api, "ada", schedule=daily())

    await batch_set(
        api, make_preference("ada", enabled=False), update_mask=FieldMask(paths=["enabled"])
    )

    assert await groups_of(api) == []
    [group] = await groups_of(api, with_empty=True)
    assert group.schedule == daily()


async def test_all_that_is_wrong_with_any_is_answered_and_nothing_is_set(api):
    wishes = (
        make_preference("ada"),
        make_preference("bob", schedule=daily("25:00")),
        make_preference("", template_overrides={"item_limit": 0}),
        make_preference("ada"),
    )

    refusal = await refused(batch_set(api, *wishes))
    twice = await refused(batch_set(api, wishes[0], wishes[3]))

    assert sorted(refusal.violations) == [
        "preferences[1].schedule.daily.at",
        "preferences[2].template_overrides.item_limit",
        "preferences[2].user_id",
        "preferences[3]",
    ]
    assert list(twice.violations) == ["preferences[1]"]
    assert await stored_users(api) == []


async def test_one_etag_that_is_out_of_date_keeps_all_from_being_set(api):
    await put(api, "ada")

    refusal = await refused(
        batch_set(api, make_preference("bob"), make_preference("ada", etag="r9"))
    )

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert await stored_users(api) == ["ada"]


async def test_the_same_request_id_gets_the_first_answer(api):
    first = await batch_set(api, make_preference(schedule=daily()), request_id="request-1")
    await put(api, enabled=False)

    again = await batch_set(api, make_preference(schedule=daily()), request_id="request-1")

    assert again == first
    assert await groups_of(api) == []


@pytest.mark.parametrize("count", [0, 1001])
async def test_one_to_a_thousand_are_taken(api, count):
    wishes = [make_preference(f"user-{n}") for n in range(count)]

    refusal = await refused(batch_set(api, *wishes))

    assert list(refusal.violations) == ["preferences"]
