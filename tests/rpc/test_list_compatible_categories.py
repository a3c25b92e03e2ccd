"""ListCompatibleCategories tells which categories suit a feature, and why."""

from __future__ import annotations

import pytest
from batchwork.v1.preference_service_pb2 import ListCompatibleCategoriesRequest
from batchwork_server.domain.selection import LoadedItem

from tests.fakes import START
from tests.rpc.api import ADA, BOB, OLGA, as_caller, refused
from tests.rpc.preferences import make_driven_job, put, put_default
from tests.rpc.sources import load_category


def call(api, *, metadata=(), **fields):
    request = ListCompatibleCategoriesRequest(**{"feature_type": "posts"} | fields)
    return api.preferences.ListCompatibleCategories(request, metadata=metadata)


async def found(api, **fields) -> list[tuple[str, list[str], list[str], list[str]]]:
    answer = await call(api, **fields)
    return [
        (
            each.category,
            list(each.job_ids),
            list(each.matching_fields),
            list(each.missing_fields),
        )
        for each in answer.categories
    ]


@pytest.fixture
async def categories(server) -> None:
    await load_category(server, "beauty", {"b1": {"engagement": 5, "tags": ["new"]}})
    await load_category(server, "fashion", {"f1": {"engagement": 4}})
    await load_category(server, "travel", {"t1": {"distance": 7}})


@pytest.mark.usefixtures("categories")
async def test_what_a_job_of_the_feature_selects_from_suits(api):
    await api.import_jobs(
        make_driven_job(category="travel"), make_driven_job("else", feature_type="other")
    )

    assert await found(api) == [("travel", ["driven-job"], [], [])]


@pytest.mark.usefixtures("categories")
async def test_what_has_all_fields_of_the_overrides_suits(api):
    await put_default(api, template_overrides={"custom_filters": {"min_engagement": 3.5}})
    await put(api, "ada", template_overrides={"tags": ["new"]})

    assert await found(api) == [
        ("beauty", [], ["engagement"], []),
        ("fashion", [], ["engagement"], []),
    ]
    assert await found(api, user_id="ada") == [("beauty", [], ["engagement", "tags"], [])]


@pytest.mark.usefixtures("categories")
async def test_what_a_job_selects_from_suits_also_without_a_field(api):
    await api.import_jobs(make_driven_job(category="travel"))
    await put_default(api, template_overrides={"sort_by": "engagement"})

    assert (await found(api))[-1] == ("travel", ["driven-job"], [], ["engagement"])


@pytest.mark.usefixtures("categories")
async def test_pages_add_up_also_when_one_is_empty(api):
    await put_default(api, template_overrides={"sort_by": "distance"})

    token, pages = "", []
    for _ in range(3):
        answer = await call(api, page_size=1, page_token=token)
        token = answer.next_page_token
        pages.append([each.category for each in answer.categories])

    assert (pages, token) == ([[], [], ["travel"]], "")


@pytest.mark.usefixtures("categories")
async def test_without_jobs_and_overrides_nothing_suits(api):
    assert await found(api) == []


async def test_a_caller_sees_the_categories_of_its_own_tenant_only(guarded, guarded_server):
    store = guarded_server.application.store
    item = LoadedItem(item_id="f1", data_json='{"engagement": 4}')
    async with store.transaction() as tx:
        await store.categories.load(
            tx, tenant_id="blue", category="fashion", items=[item], now=START
        )
    for key in (ADA, BOB):
        overrides = {"sort_by": "engagement"}
        await put_default(guarded, metadata=as_caller(key), template_overrides=overrides)

    ada = await call(guarded, metadata=as_caller(ADA))
    bob = await call(guarded, metadata=as_caller(BOB))
    olga = await call(guarded, metadata=as_caller(OLGA), tenant_id="blue")

    assert [each.category for each in ada.categories] == ["fashion"]
    assert list(bob.categories) == []
    assert olga == ada


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"feature_type": ""}, "feature_type"),
        ({"user_id": "a\n"}, "user_id"),
        ({"page_token": "garbage"}, "page_token"),
        ({"page_size": -1}, "page_size"),
    ],
)
async def test_bad_requests_are_violations(api, fields, path):
    refusal = await refused(call(api, **fields))

    assert list(refusal.violations) == [path]
