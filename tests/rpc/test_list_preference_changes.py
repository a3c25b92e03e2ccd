"""ListPreferenceChanges tells what has changed, in order, from any change on."""

from __future__ import annotations

from datetime import timedelta

import grpc
import pytest
from batchwork.v1.preference_pb2 import (
    PREFERENCE_CHANGE_KIND_DEFAULT_SET,
    PREFERENCE_CHANGE_KIND_DELETED,
    PREFERENCE_CHANGE_KIND_SET,
)
from batchwork.v1.preference_service_pb2 import (
    DeletePreferenceRequest,
    ListPreferenceChangesRequest,
)
from batchwork_server.clock import SystemClock

from tests.rpc.api import refused
from tests.rpc.preferences import daily, put, put_default


def call(api, **fields):
    return api.preferences.ListPreferenceChanges(ListPreferenceChangesRequest(**fields))


async def test_each_change_is_told_once_and_in_order(api):
    joined = (await put(api, schedule=daily())).group_joined
    await put(api, schedule=daily())  # changes nothing
    await put_default(api)
    await api.preferences.DeletePreference(
        DeletePreferenceRequest(user_id="ada", feature_type="posts")
    )

    answer = await call(api)

    assert [(change.sequence, change.kind, change.user_id) for change in answer.changes] == [
        (1, PREFERENCE_CHANGE_KIND_SET, "ada"),
        (2, PREFERENCE_CHANGE_KIND_DEFAULT_SET, ""),
        (3, PREFERENCE_CHANGE_KIND_DELETED, "ada"),
    ]
    first, _, last = answer.changes
    assert (first.group_joined, last.group_left) == (joined, joined)
    assert not first.HasField("group_left")
    assert answer.newest == 3


async def test_pages_go_on_after_any_change(api):
    for user in ("ada", "bob", "cyd"):
        await put(api, user)

    first = await call(api, after=0, page_size=2)
    rest = await call(api, after=2, page_size=2)
    nothing = await call(api, after=3)

    assert [change.user_id for change in first.changes] == ["ada", "bob"]
    assert [change.user_id for change in rest.changes] == ["cyd"]
    assert (list(nothing.changes), nothing.newest) == ([], 3)


async def test_a_page_token_does_what_the_last_sequence_does(api):
    for user in ("ada", "bob", "cyd"):
        await put(api, user)

    first = await call(api, after=1, page_size=1)
    rest = await call(api, after=1, page_size=1, page_token=first.next_page_token)

    assert [change.sequence for change in (*first.changes, *rest.changes)] == [2, 3]
    assert (rest.newest, rest.next_page_token) == (3, "")


async def test_a_change_that_is_yet_to_come_is_out_of_range(api):
    refusal = await refused(call(api, after=1))

    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.OUT_OF_RANGE,
        "RESUME_TOKEN_EXPIRED",
    )


async def test_what_is_forgotten_is_never_passed_over(api, server):
    for user in ("ada", "bob", "cyd"):
        await put(api, user)
    changes = server.application.store.preference_changes
    tomorrow = SystemClock().now() + timedelta(days=1)
    await changes.forget(before=tomorrow, limit=2)

    refusals = [await refused(call(api, after=after)) for after in (0, 1)]
    kept = await call(api)
    rest = await call(api, after=2)
    await changes.forget(before=tomorrow, limit=10)
    all_gone = await refused(call(api, after=2))
    nothing = await call(api)

    assert [refusal.code for refusal in (*refusals, all_gone)] == [grpc.StatusCode.OUT_OF_RANGE] * 3
    assert [change.sequence for change in kept.changes] == [3]
    assert rest.changes == kept.changes
    assert (list(nothing.changes), nothing.newest) == ([], 3)


@pytest.mark.parametrize(
    "fields", [{"after": -1}, {"page_size": -1}, {"page_token": "garbage"}], ids=list
)
async def test_bad_requests_are_violations(api, fields):
    refusal = await refused(call(api, **fields))

    assert list(refusal.violations) == list(fields)
