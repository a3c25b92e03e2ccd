"""The lists of preferences, groups and changes show an operator all tenants, on each database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from batchwork.v1.preference_pb2 import (
    PREFERENCE_ORIGIN_TENANT_DEFAULT,
    PREFERENCE_ORIGIN_USER,
)
from batchwork.v1.preference_service_pb2 import (
    BatchSetPreferencesRequest,
    ExplainUserRequest,
    ForecastLoadRequest,
    GetDefaultPreferenceRequest,
    GetEffectivePreferenceRequest,
    GetPreferenceRequest,
    ListCompatibleCategoriesRequest,
    ListGroupMembersRequest,
    ListPreferenceChangesRequest,
    ListPreferenceGroupsRequest,
    ListPreferencesRequest,
    PreviewScheduleRequest,
    SetDefaultPreferenceRequest,
    SetPreferenceRequest,
    WatchPreferenceChangesRequest,
)
from batchwork_server.clock import SystemClock
from batchwork_server.config import Settings
from batchwork_server.setting_kinds import Secret
from google.protobuf.message import Message

from tests.rpc.api import ADA, BOB, OLGA, Api, as_caller, refused, settings_in
from tests.rpc.preferences import daily, make_default, make_preference, put, put_default

# Of the operations too, whose operator reads: hers are among those of all.
TENANTS = {"blue": ADA, "green": BOB, "operations": OLGA}
ALL = "-"

LISTS: dict[str, type[Message]] = {
    "ListPreferences": ListPreferencesRequest,
    "ListPreferenceGroups": ListPreferenceGroupsRequest,
    "ListPreferenceChanges": ListPreferenceChangesRequest,
}

ONE_TENANT_ONLY: dict[str, Message] = {
    "GetPreference": GetPreferenceRequest(user_id="ada", feature_type="posts"),
    "GetDefaultPreference": GetDefaultPreferenceRequest(feature_type="posts"),
    "GetEffectivePreference": GetEffectivePreferenceRequest(user_id="ada", feature_type="posts"),
    "ExplainUser": ExplainUserRequest(user_id="ada", feature_type="posts"),
    "PreviewSchedule": PreviewScheduleRequest(schedule=daily()),
    "ForecastLoad": ForecastLoadRequest(),
    "ListGroupMembers": ListGroupMembersRequest(group_key=1),
    "ListCompatibleCategories": ListCompatibleCategoriesRequest(feature_type="posts"),
    "WatchPreferenceChanges": WatchPreferenceChangesRequest(),
}


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    """Runs each test once on each database."""
    return replace(settings_in(tmp_path), database_url=Secret(database_url))


async def answer_of(api: Api, name: str, request: Message, key: str = OLGA) -> Any:
    call = getattr(api.preferences, name)(request, metadata=as_caller(key))
    return await anext(aiter(call)) if hasattr(call, "__aiter__") else await call


async def pages(api: Api, name: str, **fields: Any) -> AsyncIterator[Any]:
    """Yields the pages of a list of all tenants, two things each."""
    token = ""
    while True:
        request = LISTS[name](page_size=2, page_token=token, tenant_id=ALL, **fields)
        page = await answer_of(api, name, request)
        yield page
        token = page.next_page_token
        if not token:
            return


async def each_tenant(act: Callable[[Any], Awaitable[Any]]) -> None:
    """Acts for each tenant, not in the order of their names."""
    for tenant in ("green", "operations", "blue"):
        await act(as_caller(TENANTS[tenant]))


@pytest.fixture
async def wishes(guarded: Api) -> None:
    """The same two users wish for the same two features, in each tenant."""

    async def wish(caller: Any) -> None:
        for user, feature, enabled in (
            ("bob", "posts", True),
            ("ada", "stories", False),
            ("ada", "posts", True),
        ):
            await put(guarded, user, metadata=caller, feature_type=feature, enabled=enabled)

    await each_tenant(wish)


@pytest.mark.usefixtures("wishes")
@pytest.mark.parametrize(
    ("fields", "of_each"),
    [
        pytest.param({}, [("posts", "ada"), ("posts", "bob"), ("stories", "ada")], id="all"),
        pytest.param({"user_id": "ada"}, [("posts", "ada"), ("stories", "ada")], id="user"),
        pytest.param({"feature_type": "posts"}, [("posts", "ada"), ("posts", "bob")], id="feature"),
        pytest.param({"enabled": False}, [("stories", "ada")], id="not enabled"),
        pytest.param({"user_id": "bob", "enabled": False}, [], id="nothing"),
    ],
)
async def test_every_preference_is_on_one_page(guarded, fields, of_each):
    found = [
        (preference.tenant_id, preference.feature_type, preference.user_id)
        async for page in pages(guarded, "ListPreferences", **fields)
        for preference in page.preferences
    ]

    assert found == [(tenant, *key) for tenant in TENANTS for key in of_each]


@pytest.mark.parametrize(
    ("fields", "features"),
    [({}, ["posts", "posts", "stories"]), ({"feature_type": "posts"}, ["posts", "posts"])],
    ids=["all", "feature"],
)
async def test_every_group_is_on_one_page(guarded, fields, features):
    async def wish(caller: Any) -> None:
        await put(guarded, "ada", metadata=caller, feature_type="stories", schedule=daily())
        await put(guarded, "ada", metadata=caller, schedule=daily("08:00"))
        await put(guarded, "bob", metadata=caller, schedule=daily("09:00"))
        await put(guarded, "cyd", metadata=caller, feature_type="empty", schedule=daily())
        await put(guarded, "cyd", metadata=caller, feature_type="empty", enabled=False)

    await each_tenant(wish)

    groups = [
        group
        async for page in pages(guarded, "ListPreferenceGroups", **fields)
        for group in page.groups
    ]

    assert [(group.tenant_id, group.feature_type) for group in groups] == [
        (tenant, feature) for tenant in TENANTS for feature in features
    ]
    assert len({group.group_key for group in groups}) == len(groups)


async def test_each_group_goes_by_the_default_of_its_tenant(guarded):
    await put_default(guarded, metadata=as_caller(ADA), schedule=daily("07:00"))
    await put(guarded, metadata=as_caller(ADA))
    await put(guarded, metadata=as_caller(BOB))
    await put(guarded, metadata=as_caller(OLGA), schedule=daily("08:00"))

    groups = [
        group async for page in pages(guarded, "ListPreferenceGroups") for group in page.groups
    ]

    told = [(each.tenant_id, each.effective_schedule.daily.at) for each in groups]
    assert told == [("blue", "07:00"), ("green", ""), ("operations", "08:00")]
    assert [group.schedule_origin for group in groups] == [
        PREFERENCE_ORIGIN_TENANT_DEFAULT,
        0,
        PREFERENCE_ORIGIN_USER,
    ]


@pytest.mark.usefixtures("wishes")
async def test_every_change_is_on_one_page(guarded):
    await put_default(guarded, metadata=as_caller(BOB))

    listed = [page async for page in pages(guarded, "ListPreferenceChanges")]

    changes = [(each.tenant_id, each.sequence) for page in listed for each in page.changes]
    counts = {"blue": 3, "green": 4, "operations": 3}
    assert changes == [
        (tenant, sequence) for tenant in TENANTS for sequence in range(1, counts[tenant] + 1)
    ]
    assert {page.newest for page in listed} == {0}


@pytest.mark.usefixtures("wishes")
async def test_what_is_forgotten_of_a_tenant_is_never_passed_over(guarded, guarded_server):
    request = ListPreferenceChangesRequest(page_size=2, tenant_id=ALL)
    first = await answer_of(guarded, "ListPreferenceChanges", request)
    await guarded_server.application.store.preference_changes.forget(
        before=SystemClock().now() + timedelta(days=1), limit=100
    )
    await put(guarded, "eve", metadata=as_caller(ADA))

    request.page_token = first.next_page_token
    refusal = await refused(answer_of(guarded, "ListPreferenceChanges", request))
    kept = [page async for page in pages(guarded, "ListPreferenceChanges")]

    assert [(each.tenant_id, each.sequence) for each in first.changes] == [("blue", 1), ("blue", 2)]
    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.OUT_OF_RANGE,
        "RESUME_TOKEN_EXPIRED",
    )
    assert [(each.tenant_id, each.sequence) for page in kept for each in page.changes] == [
        ("blue", 4)
    ]


async def test_changes_of_all_tenants_begin_after_none_of_them(guarded):
    request = ListPreferenceChangesRequest(after=0, tenant_id=ALL)

    refusal = await refused(answer_of(guarded, "ListPreferenceChanges", request))

    assert list(refusal.violations) == ["after"]


@pytest.mark.usefixtures("wishes")
@pytest.mark.parametrize("name", sorted(LISTS))
@pytest.mark.parametrize("first, second", [(ALL, "blue"), ("blue", ALL)], ids=["one", "all"])
async def test_a_token_is_of_the_tenants_that_were_named(guarded, name, first, second):
    request = LISTS[name](page_size=1, tenant_id=first)
    if name == "ListPreferenceGroups":
        await put(guarded, "eve", metadata=as_caller(ADA), schedule=daily())
    page = await answer_of(guarded, name, request)

    other = LISTS[name](page_size=1, tenant_id=second, page_token=page.next_page_token)
    refusal = await refused(answer_of(guarded, name, other))

    assert page.next_page_token
    assert list(refusal.violations) == ["page_token"]


@pytest.mark.parametrize("tenant_id", [ALL, "green"], ids=["all", "another"])
@pytest.mark.parametrize("name", sorted(LISTS))
async def test_only_an_operator_lists_other_tenants(guarded, name, tenant_id):
    request = LISTS[name](tenant_id=tenant_id)

    refusal = await refused(answer_of(guarded, name, request, ADA))

    assert refusal.code is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("name", sorted(ONE_TENANT_ONLY))
async def test_all_else_is_about_one_tenant(guarded, name):
    request = ONE_TENANT_ONLY[name]
    request.tenant_id = ALL  # type: ignore[attr-defined]

    refusal = await refused(answer_of(guarded, name, request))

    assert refusal.violations == {"tenant_id": 'Name one tenant; "-" means all of them.'}


async def test_whoever_sets_is_told_their_own_tenant_whatever_they_name(guarded):
    caller = as_caller(ADA)
    preference = make_preference(tenant_id="green")
    default = make_default(tenant_id="green")
    request = SetPreferenceRequest(preference=preference, request_id="request-1")

    stored = await guarded.preferences.SetPreference(request, metadata=caller)
    again = await guarded.preferences.SetPreference(request, metadata=caller)
    await guarded.preferences.BatchSetPreferences(
        BatchSetPreferencesRequest(preferences=[make_preference("bob", tenant_id="green")]),
        metadata=caller,
    )
    set_default = SetDefaultPreferenceRequest(default_preference=default, request_id="request-2")
    defaults = [
        await guarded.preferences.SetDefaultPreference(set_default, metadata=caller)
        for _ in range(2)
    ]
    members = ListGroupMembersRequest(group_key=stored.group_joined)
    watch = WatchPreferenceChangesRequest(after=0)
    told = guarded.preferences.WatchPreferenceChanges(watch, metadata=caller)
    messages = aiter(told)
    watched = [await anext(messages) for _ in range(4)]
    told.cancel()

    one = GetPreferenceRequest(user_id="ada", feature_type="posts")
    read = await answer_of(guarded, "GetPreference", one, ADA)
    of_posts = GetDefaultPreferenceRequest(feature_type="posts")
    read_default = await answer_of(guarded, "GetDefaultPreference", of_posts, ADA)
    inside = await answer_of(guarded, "ListGroupMembers", members, ADA)
    of_bob = await answer_of(guarded, "ListPreferences", ListPreferencesRequest(), BOB)
    assert {each.preference.tenant_id for each in (stored, again, read)} == {"blue"}
    assert {each.default_preference.tenant_id for each in (*defaults, read_default)} == {"blue"}
    assert [each.tenant_id for each in inside.preferences] == ["blue", "blue"]
    assert [each.change.tenant_id for each in watched] == ["", "blue", "blue", "blue"]
    assert not of_bob.preferences
