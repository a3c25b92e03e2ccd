"""ListGroupMembers shows who is in a group, a page at a time."""

from __future__ import annotations

import grpc
import pytest
from batchwork.v1.preference_service_pb2 import ListGroupMembersRequest

from tests.rpc.api import refused
from tests.rpc.preferences import daily, put


def call(api, group_key: int, **fields):
    return api.preferences.ListGroupMembers(ListGroupMembersRequest(group_key=group_key, **fields))


async def test_pages_of_members_add_up_to_the_group(api):
    for user in ("cyd", "ada", "bob"):
        stored = await put(api, user, schedule=daily())
    await put(api, "dan", schedule=daily("18:00"))

    first = await call(api, stored.group_joined, page_size=2)
    rest = await call(api, stored.group_joined, page_size=2, page_token=first.next_page_token)

    found = [member.user_id for page in (first, rest) for member in page.preferences]
    assert found == ["ada", "bob", "cyd"]
    assert rest.next_page_token == ""


async def test_whoever_moves_is_in_the_other_group(api):
    old = await put(api, schedule=daily())
    new = await put(api, schedule=daily("18:00"))

    left, joined = await call(api, old.group_joined), await call(api, new.group_joined)

    assert new.group_left == old.group_joined
    assert list(left.preferences) == []
    assert [member.user_id for member in joined.preferences] == ["ada"]


async def test_a_group_that_is_not_there_is_not_found(api):
    refusal = await refused(call(api, 12345))

    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert "12345" in refusal.message


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"group_key": 0}, "group_key"),
        ({"group_key": -1}, "group_key"),
        ({"group_key": 1, "page_token": "garbage"}, "page_token"),
    ],
)
async def test_bad_requests_are_violations(api, fields, path):
    refusal = await refused(call(api, **fields))

    assert list(refusal.violations) == [path]
