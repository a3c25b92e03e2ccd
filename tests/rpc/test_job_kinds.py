"""Every kind of job, and what each of its fields does to the batch that it becomes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from batchwork.v1.batch_pb2 import Batch
from batchwork.v1.batch_service_pb2 import GetBatchRequest
from batchwork.v1.job_pb2 import (
    DATA_SOURCE_CATEGORIES,
    DATA_SOURCE_USERS,
    PREFERENCE_SOURCE_DYNAMIC,
    PREFERENCE_SOURCE_STATIC,
)
from batchwork.v1.job_service_pb2 import GetJobRequest, ListJobsRequest, RunJobRequest
from batchwork.v1.preference_pb2 import Preference
from batchwork.v1.preference_service_pb2 import SetPreferenceRequest
from batchwork_server.errors import ItemFailed

from tests.fakes import FakeProcessor
from tests.rpc.api import Api, make_job
from tests.rpc.sources import Thing, load_category, load_users

USERS = {"ada": {"plan": "free"}, "bob": {"plan": "paid"}, "nobody": {"plan": "paid"}}
TEAM = {"eve": {"plan": "staff"}}
SHOPS = {"shop-1": {"open": True}, "shop-2": {"open": False}}
TOPICS = {"topic-1": {"rank": 1}}


@pytest.fixture
async def world(server) -> None:
    await load_users(server, "ada", "bob", "eve")
    await load_category(server, "users", USERS)
    await load_category(server, "team", TEAM)
    await load_category(server, "shops", SHOPS)
    await load_category(server, "topics", TOPICS)


async def set_preference(api: Api, user_id: str, **overrides: Any) -> None:
    wish = Preference(user_id=user_id, feature_type="digest", enabled=True)
    wish.template_overrides.update(overrides)
    await api.preferences.SetPreference(SetPreferenceRequest(preference=wish))


async def run(api: Api, job_id: str = "job-1") -> Batch:
    """Runs a job to its end."""
    response = await api.jobs.RunJob(RunJobRequest(job_id=job_id))
    return await api.finished(response.batch.batch_id)


async def selected(api: Api, processor: FakeProcessor, **changes: Any) -> list[str]:
    """Returns the ids of what a job of the category ``posts`` has worked on, sorted."""
    await api.import_jobs(make_job("job-1", **changes))
    await run(api)
    return sorted(call.item_id for call in processor.calls)


# The matrix of the architecture document.

COMBINED_USERS = {"type": "combined", "category": None, "categories": ["users", "team"]}
COMBINED_SHOPS = {"type": "combined", "category": None, "categories": ["shops", "topics"]}
PREFERENCES = {"preference_based": True, "feature_type": "digest"}


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    ("changes", "batch_type"),
    [
        pytest.param({"category": "users"}, "INDIVIDUAL_USERS", id="individual users"),
        pytest.param(
            {"category": "team", "data_source": "users"}, "INDIVIDUAL_USERS", id="named users"
        ),
        pytest.param({"category": "shops"}, "INDIVIDUAL_CATEGORIES", id="individual categories"),
        pytest.param({"type": "object", "category": "users"}, "BATCH_USERS", id="object users"),
        pytest.param(
            {"type": "object", "category": "shops"}, "BATCH_CATEGORIES", id="object categories"
        ),
        pytest.param(COMBINED_USERS | {"data_source": "users"}, "BATCH_USERS", id="combined users"),
        pytest.param(COMBINED_SHOPS, "BATCH_CATEGORIES", id="combined categories"),
        pytest.param(
            {"type": "preference", "category": None, "feature_type": "digest"},
            "PREFERENCE_INDIVIDUAL_USERS",
            id="preference",
        ),
        pytest.param(
            PREFERENCES | {"category": None},
            "PREFERENCE_INDIVIDUAL_USERS",
            id="preference individual users",
        ),
        pytest.param(
            PREFERENCES | {"category": "shops"},
            "PREFERENCE_INDIVIDUAL_CATEGORIES",
            id="preference individual categories",
        ),
        pytest.param(
            PREFERENCES | {"type": "object", "category": None},
            "PREFERENCE_BATCH_USERS",
            id="preference object users",
        ),
        pytest.param(
            PREFERENCES | {"type": "object", "category": "shops"},
            "PREFERENCE_BATCH_CATEGORIES",
            id="preference object categories",
        ),
        pytest.param(
            PREFERENCES | COMBINED_SHOPS,
            "PREFERENCE_BATCH_CATEGORIES",
            id="preference combined categories",
        ),
    ],
)
async def test_the_place_in_the_matrix_is_read_from_the_job_and_from_its_batch(
    api, changes, batch_type
):
    await set_preference(api, "ada")
    await api.import_jobs(make_job("job-1", **changes))

    done = await run(api)

    job = (await api.jobs.GetJob(GetJobRequest(job_id="job-1"))).job
    [listed] = (await api.jobs.ListJobs(ListJobsRequest())).jobs
    stored = (await api.batches.GetBatch(GetBatchRequest(batch_id=done.batch_id))).batch
    assert {job.batch_type, listed.batch_type, stored.batch_type} == {batch_type}
    is_dynamic, is_of_users = "PREFERENCE" in batch_type, batch_type.endswith("USERS")
    assert job.preference_source == (
        PREFERENCE_SOURCE_DYNAMIC if is_dynamic else PREFERENCE_SOURCE_STATIC
    )
    assert job.data_source == (DATA_SOURCE_USERS if is_of_users else DATA_SOURCE_CATEGORIES)
    assert stored.counts.succeeded > 0


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    ("changes", "requests"),
    [
        pytest.param(
            {"category": "users"}, {"ada": USERS["ada"], "bob": USERS["bob"]}, id="individual users"
        ),
        pytest.param({"category": "shops"}, SHOPS, id="individual categories"),
        pytest.param(
            {"type": "object", "category": "users"},
            {
                "users": {
                    "category": "users",
                    "count": 2,
                    "items": [USERS["ada"], USERS["bob"]],
                }
            },
            id="object users",
        ),
        pytest.param(
            {"type": "object", "category": "shops", "filters": {"open": True}},
            {"shops": {"category": "shops", "count": 1, "items": [SHOPS["shop-1"]]}},
            id="object categories",
        ),
        pytest.param(
            COMBINED_USERS | {"data_source": "users", "filters": {"users": {"plan": "paid"}}},
            {
                "combined": {
                    "categories": {
                        "users": {"category": "users", "count": 1, "items": [USERS["bob"]]},
                        "team": {"category": "team", "count": 1, "items": [TEAM["eve"]]},
                    }
                }
            },
            id="combined users",
        ),
        pytest.param(
            COMBINED_SHOPS | {"filters": {"shops": {"open": False}, "topics": {"min_rank": 2}}},
            {
                "combined": {
                    "categories": {
                        "shops": {"category": "shops", "count": 1, "items": [SHOPS["shop-2"]]},
                        "topics": {"category": "topics", "count": 0, "items": []},
                    }
                }
            },
            id="combined categories",
        ),
    ],
)
async def test_a_kind_of_job_makes_the_requests_that_it_is_for(api, processor, changes, requests):
    await api.import_jobs(make_job("job-1", **changes))

    done = await run(api)

    assert done.counts.succeeded == len(requests)
    assert {call.item_id: call.data for call in processor.calls} == requests


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    ("changes", "valid", "invalid", "skipped"),
    [
        pytest.param({"category": "users"}, 2, 1, 1, id="individual"),
        pytest.param({"type": "object", "category": "users"}, 2, 1, 0, id="object"),
        pytest.param(COMBINED_USERS | {"data_source": "users"}, 3, 1, 0, id="combined"),
        pytest.param({"category": "shops"}, 0, 0, 0, id="no users"),
    ],
)
async def test_unknown_users_are_counted_and_left_out(api, changes, valid, invalid, skipped):
    await api.import_jobs(make_job("job-1", **changes))

    done = await run(api)

    validation = done.user_validation
    assert (validation.total, validation.valid) == (valid + invalid, valid)
    assert (validation.invalid, done.counts.skipped) == (invalid, skipped)


@pytest.mark.usefixtures("world")
async def test_a_preference_based_object_job_of_users_is_one_request_of_all_who_want_it(
    api, processor
):
    for user_id in ("ada", "bob", "nobody"):
        await set_preference(api, user_id)
    await api.import_jobs(make_job("job-1", type="object", category=None, **PREFERENCES))

    done = await run(api)

    [call] = processor.calls
    [members] = [value for value in call.data.values() if isinstance(value, list)]
    assert [member["user_id"] for member in members] == ["ada", "bob"]
    assert (done.user_validation.valid, done.user_validation.invalid) == (2, 1)


# Filters.

NOW = datetime.now(UTC)

POSTS: Mapping[str, Thing] = {
    "plain": {"@create_time": datetime(2022, 12, 31, 23, 59, tzinfo=UTC)},
    "less": {
        "followers": 999,
        "likes": 99,
        "engagement": 3.4,
        "size": 999,
        "posts": 99,
        "profile_pic": "",
        "tags": ["food"],
        "@active_time": NOW - timedelta(days=31),
        "@create_time": datetime(2022, 1, 1, tzinfo=UTC),
    },
    "more": {
        "followers": 1000,
        "likes": 100,
        "engagement": 3.5,
        "size": 1000,
        "posts": 100,
        "profile_pic": "me.png",
        "tags": ["beauty", "food"],
        "@active_time": NOW - timedelta(days=29),
        "@create_time": datetime(2023, 1, 1, tzinfo=UTC),
    },
}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        pytest.param({}, ["less", "more", "plain"], id="none"),
        pytest.param({"min_followers": 1000}, ["more"], id="min_followers"),
        pytest.param({"min_likes": 100}, ["more"], id="min_likes"),
        pytest.param({"min_engagement": 3.5}, ["more"], id="min_engagement"),
        pytest.param({"min_size": 1000}, ["more"], id="min_size"),
        pytest.param({"min_posts": 100}, ["more"], id="min_posts"),
        pytest.param({"has_profile_pic": True}, ["more"], id="has_profile_pic"),
        pytest.param({"has_profile_pic": False}, ["less", "plain"], id="has no profile_pic"),
        pytest.param({"active_last_days": 30}, ["more"], id="active_last_days"),
        pytest.param({"tags": ["fashion", "beauty"]}, ["more"], id="tags"),
        pytest.param({"tags": "food"}, ["less", "more"], id="one tag"),
        pytest.param({"created_after": "2023-01-01"}, ["more"], id="created_after"),
        pytest.param({"max_items": 2}, ["less", "plain"], id="max_items"),
        pytest.param({"min_size": 1, "tags": ["food"], "max_items": 1}, ["less"], id="several"),
    ],
)
async def test_a_filter_selects_what_the_guide_says(server, api, processor, filters, expected):
    await load_category(server, "posts", POSTS)

    assert await selected(api, processor, filters=filters) == expected


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        pytest.param({}, 1000, id="the default"),
        pytest.param({"limit": 3}, 3, id="limit"),
        pytest.param({"filters": {"max_items": 4}}, 4, id="max_items"),
        pytest.param({"limit": 3, "filters": {"max_items": 4}}, 3, id="limit below max_items"),
        pytest.param({"limit": 4, "filters": {"max_items": 3}}, 3, id="max_items below limit"),
        pytest.param({"limit": 2000}, 1001, id="more than there is"),
    ],
)
async def test_the_smaller_of_limit_and_max_items_counts(server, api, processor, changes, count):
    await load_category(server, "posts", {f"post-{n}": {"n": n} for n in range(1001)})
    await api.import_jobs(make_job("job-1", **changes))

    done = await run(api)

    assert done.counts.succeeded == count
    assert {call.data["n"] for call in processor.calls} == set(range(count))


@pytest.mark.parametrize("kind", ["object", "combined"])
async def test_the_limit_of_a_job_of_one_request_bounds_each_category(server, api, processor, kind):
    await load_category(server, "posts", {f"post-{n}": {"n": n} for n in range(5)})
    await load_category(server, "shops", {f"shop-{n}": {"n": n} for n in range(5)})
    categories = ["posts", "shops"] if kind == "combined" else ["posts"]
    filters = {"shops": {"max_items": 2}} if kind == "combined" else {"max_items": 4}
    await api.import_jobs(
        make_job("job-1", type=kind, category=None, categories=categories, filters=filters, limit=3)
    )

    await run(api)

    [call] = processor.calls
    groups = call.data["categories"].values() if kind == "combined" else [call.data]
    counts = {group["category"]: (group["count"], len(group["items"])) for group in groups}
    assert counts == {"posts": (3, 3)} | ({"shops": (2, 2)} if kind == "combined" else {})


# How a job is processed, and for whom.


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    ("changes", "attempts"),
    [
        pytest.param({}, 4, id="the default"),
        pytest.param({"retry_limit": 0}, 1, id="none"),
        pytest.param({"retry_limit": 2}, 3, id="two"),
    ],
)
async def test_a_failing_item_is_tried_again_as_often_as_the_job_says(
    api, processor, changes, attempts
):
    processor.on("topic-1", *[ItemFailed("AWAY", retryable=True)] * 10)
    await api.import_jobs(make_job("job-1", category="topics", **changes))

    done = await run(api)

    assert done.counts.failed == 1
    assert processor.attempts("topic-1") == attempts


async def test_what_fails_keeps_nothing_else_from_being_done(server, api, processor):
    await load_category(server, "posts", {f"post-{n}": {"n": n} for n in range(3)})
    processor.on("post-1", ItemFailed("BROKEN"))
    await api.import_jobs(make_job("job-1"))

    done = await run(api)

    assert (done.counts.succeeded, done.counts.failed) == (2, 1)


@pytest.mark.usefixtures("world")
async def test_the_purpose_labels_the_job_and_its_batch_and_finds_the_job(api):
    await api.import_jobs(
        make_job("job-1", category="shops", purpose_id="growth"), make_job("job-2")
    )

    done = await run(api)

    found = await api.jobs.ListJobs(ListJobsRequest(purpose_id="growth"))
    assert [job.job_id for job in found.jobs] == ["job-1"]
    assert done.purpose_id == "growth"


@pytest.mark.usefixtures("world")
async def test_the_users_who_get_the_results_are_kept_and_checked(api):
    job = make_job(
        "job-1",
        category="shops",
        distribute_results=True,
        distribution={"users": ["ada", "nobody"]},
    )

    imported = await api.import_jobs(job)

    stored = (await api.jobs.GetJob(GetJobRequest(job_id="job-1"))).job
    assert stored.distribute_results
    assert list(stored.distribution_user_ids) == ["ada", "nobody"]
    [warning] = imported.warnings
    assert warning.reason == "UNKNOWN_USER"
    assert warning.path == "$.batch_processing_jobs[0].distribution.users[1]"


class TestPriority:
    @pytest.fixture
    def settings(self, settings):
        return replace(settings, max_concurrent_items=1)

    async def test_of_jobs_that_wait_together_the_most_urgent_runs_first(
        self, server, api, processor
    ):
        urgency = ("critical", "high", "medium", "low")
        for name in ("first", *urgency):
            await load_category(server, name, {f"{name}-{n}": {} for n in range(8)})
        first = make_job("job-first", category="first")
        waiting = [make_job(f"job-{name}", category=name, priority=name) for name in urgency]
        await api.import_jobs(first, *waiting)
        processor.gate = asyncio.Event()
        await api.jobs.RunJob(RunJobRequest(job_id="job-first"))
        await processor.started.wait()

        batches = [
            (await api.jobs.RunJob(RunJobRequest(job_id=f"job-{name}"))).batch
            for name in reversed(urgency)
        ]
        processor.gate.set()
        for batch in batches:
            await api.finished(batch.batch_id)

        order = dict.fromkeys(call.item_id.partition("-")[0] for call in processor.calls)
        assert list(order) == ["first", *urgency]
