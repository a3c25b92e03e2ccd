"""The jobs of the configuration guide run as they stand there, over data made for them.

``tests/data/guide_batch_config.json`` is its example with three jobs, to the letter. Each category
has things that only just match, and for each filter one that only just does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from batchwork.v1.batch_pb2 import (
    BATCH_STATE_FAILED,
    BATCH_STATE_SUCCEEDED,
    Batch,
    UserValidation,
)
from batchwork.v1.batch_service_pb2 import GetItemRequest, ListItemsRequest, StreamResultsRequest
from batchwork.v1.item_pb2 import ITEM_STATE_FAILED
from batchwork.v1.job_pb2 import PRIORITY_HIGH, PRIORITY_MEDIUM
from batchwork.v1.job_service_pb2 import (
    ExportJobsRequest,
    GetJobRequest,
    ImportJobsRequest,
    ListUpcomingRunsRequest,
    RunJobRequest,
)
from batchwork.v1.preference_pb2 import Preference
from batchwork.v1.preference_service_pb2 import SetPreferenceRequest
from batchwork_server.config import Settings
from batchwork_server.errors import ItemFailed
from batchwork_server.rpc.values import timestamp_to
from google.protobuf.json_format import MessageToDict

from tests.rpc.api import Api, settings_in
from tests.rpc.sources import Thing, data_of, load_category, load_users

DATA = Path(__file__).parents[1] / "data"
GUIDE = (DATA / "guide_batch_config.json").read_text()
JOBS: list[dict[str, Any]] = json.loads((DATA / "document_jobs.json").read_text())

POSTS = "bat_scheduled_job_20230415123045_a1b2c3d4"
PRODUCTS = "bat_scheduled_job_20230416091530_b2c3d4e5"
CROSS = "bat_scheduled_job_20230417103000_c3d4e5f6"

TEMPLATES = {
    "tpl_api_20230414153012_f7g8h9j0": "Write a post.",
    "tpl_api_20230414160045_g7h8i9j0": "Analyze a category.",
    "tpl_api_20230415143022_h8i9j0k1": "Compare two categories.",
    "tpl_instagram_post_generator": "Write as the user likes it.",
}
DEFAULT_TEMPLATE = {
    "template_id": "posts-by-default",
    "processor": "fake",
    "feature_types": ["instagram_posts"],
}

RECIPIENTS = ("admin_1", "content_manager_1", "marketing_manager", "strategy_director")


def days_ago(days: int) -> datetime:
    """Returns a time that is safely inside of so many days, however long the tests take."""
    return datetime.now(UTC) - timedelta(days=days) + timedelta(hours=12)


USERS: Mapping[str, Thing] = {
    "just-enough": {"followers": 1000, "profile_pic": "me.png"},
    "flagged": {"followers": 250_000, "has_profile_pic": True},
    "one-too-few": {"followers": 999, "profile_pic": "me.png"},
    "faceless": {"followers": 5000, "profile_pic": ""},
    "flagged-faceless": {"followers": 5000, "has_profile_pic": False, "profile_pic": "old.png"},
    "gone": {"followers": 5000, "profile_pic": "me.png"},
    "never-here": {"followers": 5000, "profile_pic": "me.png"},
}
ETSY_PRODUCTS: Mapping[str, Thing] = {
    "mug": {"likes": 1000, "engagement": 4.5},
    "lamp": {"likes": 20_000, "engagement": 7},
    "unliked": {"likes": 999, "engagement": 9.0},
    "unseen": {"likes": 5000, "engagement": 4.4},
    "unmeasured": {"likes": 5000},
    "in-words": {"likes": "5000", "engagement": 9.0},
}
AUDIENCE: Mapping[str, Thing] = {
    "runners": {"size": 1000, "posts": 1, "@active_time": days_ago(30)},
    "small": {"size": 999, "@active_time": days_ago(1)},
    "asleep": {"size": 90_000, "@active_time": days_ago(31)},
    "silent": {"size": 90_000},
}
NICHE: Mapping[str, Thing] = {
    "trails": {"engagement": 5.0, "posts": 100, "size": 3},
    "boards": {"engagement": 8.5, "posts": 2400},
    "dull": {"engagement": 4.9, "posts": 100},
    "young": {"engagement": 5.0, "posts": 99},
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A server that has the templates which the documents name."""
    settings = settings_in(tmp_path)
    assert settings.templates_dir is not None
    templates = [DEFAULT_TEMPLATE] + [
        {"template_id": template_id, "processor": "fake", "parameters": {"prompt": prompt}}
        for template_id, prompt in TEMPLATES.items()
    ]
    for template in templates:
        path = settings.templates_dir / f"{template['template_id']}.json"
        path.write_text(json.dumps(template))
    return settings


@pytest.fixture(autouse=True)
async def world(server) -> None:
    """What the jobs of the guide work on, and whom they work for."""
    active = [user for user in USERS if user not in ("gone", "never-here")]
    await load_users(server, *active, *RECIPIENTS, inactive=("gone",))
    await load_category(server, "users", USERS)
    await load_category(server, "etsy_products", ETSY_PRODUCTS)
    await load_category(server, "audience", AUDIENCE)
    await load_category(server, "niche", NICHE)


async def import_guide(api) -> Any:
    return await api.jobs.ImportJobs(ImportJobsRequest(jobs_json=GUIDE))


async def run(api: Api, job_id: str) -> Batch:
    """Runs a job to its end."""
    response = await api.jobs.RunJob(RunJobRequest(job_id=job_id))
    return await api.finished(response.batch.batch_id)


async def results(api, batch: Batch) -> Mapping[str, Any]:
    """Returns the result of each item that has one."""
    stream = api.batches.StreamResults(StreamResultsRequest(batch_id=batch.batch_id))
    items = [item async for response in stream for item in response.items]
    return {item.item_id: json.loads(item.result_json) for item in items if item.result_json}


async def skipped(api, batch: Batch) -> Mapping[str, str]:
    request = ListItemsRequest(batch_id=batch.batch_id)
    items = (await api.batches.ListItems(request)).items
    return {item.item_id: item.skip_reason for item in items if item.skip_reason}


def group(category: str, *things: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a selection as the processor gets it."""
    return {"category": category, "count": len(things), "items": data_of(*things)}


# The three complete examples.


async def test_the_file_of_the_guide_is_imported_without_a_warning(api):
    imported = await import_guide(api)

    assert [change.job_id for change in imported.changes] == [POSTS, PRODUCTS, CROSS]
    assert not imported.warnings


async def test_the_individual_example_makes_a_request_for_each_user(api, processor):
    await import_guide(api)

    batch = await run(api, POSTS)

    assert batch.state == BATCH_STATE_SUCCEEDED
    assert (batch.counts.total, batch.counts.succeeded, batch.counts.skipped) == (4, 2, 2)
    assert batch.user_validation == UserValidation(total=4, valid=2, invalid=2)
    assert await skipped(api, batch) == {"gone": "USER_INACTIVE", "never-here": "USER_NOT_FOUND"}
    worked_on = {call.item_id: (call.user_id, call.data) for call in processor.calls}
    assert worked_on == {
        "just-enough": ("just-enough", USERS["just-enough"]),
        "flagged": ("flagged", USERS["flagged"]),
    }
    assert {call.parameters["prompt"] for call in processor.calls} == {"Write a post."}
    assert await results(api, batch) == {name: USERS[name] for name in ("just-enough", "flagged")}


async def test_the_object_example_makes_one_request_of_the_category(api, processor):
    await import_guide(api)

    batch = await run(api, PRODUCTS)

    assert batch.state == BATCH_STATE_SUCCEEDED
    assert (batch.counts.total, batch.counts.succeeded) == (1, 1)
    [call] = processor.calls
    selection = group("etsy_products", ETSY_PRODUCTS["mug"], ETSY_PRODUCTS["lamp"])
    assert (call.item_id, call.user_id, call.data) == ("etsy_products", None, selection)
    assert call.parameters["prompt"] == "Analyze a category."
    assert await results(api, batch) == {"etsy_products": selection}


async def test_the_combined_example_makes_one_request_of_both_categories(api, processor):
    await import_guide(api)

    batch = await run(api, CROSS)

    assert batch.state == BATCH_STATE_SUCCEEDED
    assert (batch.counts.total, batch.counts.succeeded) == (1, 1)
    selections = {
        "categories": {
            "audience": group("audience", AUDIENCE["runners"]),
            "niche": group("niche", NICHE["trails"], NICHE["boards"]),
        }
    }
    [call] = processor.calls
    assert call.data == selections
    assert call.parameters["prompt"] == "Compare two categories."
    assert await results(api, batch) == {"combined": selections}


@pytest.mark.parametrize(
    ("job_id", "batch_type", "priority", "purpose_id"),
    [
        pytest.param(POSTS, "INDIVIDUAL_USERS", PRIORITY_MEDIUM, "content_generation", id="posts"),
        pytest.param(PRODUCTS, "BATCH_CATEGORIES", PRIORITY_HIGH, "market_research", id="products"),
        pytest.param(CROSS, "BATCH_CATEGORIES", PRIORITY_HIGH, "marketing_strategy", id="cross"),
    ],
)
async def test_a_batch_of_an_example_says_what_its_job_says(
    api, job_id, batch_type, priority, purpose_id
):
    await import_guide(api)

    batch = await run(api, job_id)

    [written] = [j for j in json.loads(GUIDE)["batch_processing_jobs"] if j["id"] == job_id]
    job = (await api.jobs.GetJob(GetJobRequest(job_id=job_id))).job
    assert (batch.job_id, batch.job_revision) == (job_id, 1)
    assert batch.batch_type == job.batch_type == batch_type
    assert batch.options.priority == job.priority == priority
    assert batch.purpose_id == job.purpose_id == purpose_id
    assert batch.options.retry_limit == job.retry_limit == written["retry_limit"]
    assert batch.template_id == job.template_id == written["template_id"]
    assert (batch.display_name, batch.description) == (written["name"], written["description"])
    assert batch.filters == job.filters
    assert job.distribute_results is written["distribute_results"]
    recipients = written.get("distribution", {}).get("users", [])
    assert list(job.distribution_user_ids) == recipients


@pytest.mark.parametrize(
    ("job_id", "item_id", "attempts"),
    [
        pytest.param(POSTS, "flagged", 4, id="three retries"),
        pytest.param(PRODUCTS, "etsy_products", 3, id="two retries"),
        pytest.param(CROSS, "combined", 2, id="one retry"),
    ],
)
async def test_an_item_of_an_example_is_retried_as_often_as_it_says(
    api, processor, job_id, item_id, attempts
):
    processor.on(item_id, *[ItemFailed("MODEL_AWAY", retryable=True)] * attempts)
    await import_guide(api)

    batch = await run(api, job_id)

    request = GetItemRequest(batch_id=batch.batch_id, item_id=item_id)
    item = (await api.batches.GetItem(request)).item
    assert (item.state, item.attempt_count) == (ITEM_STATE_FAILED, attempts)
    assert (batch.state == BATCH_STATE_FAILED) is (batch.counts.total == 1)
    assert batch.counts.retries == attempts - 1


async def test_the_schedules_of_the_examples_are_due_when_the_guide_says(api):
    await import_guide(api)
    start, end = datetime(2026, 3, 2, 2, tzinfo=UTC), datetime(2026, 3, 16, tzinfo=UTC)

    response = await api.jobs.ListUpcomingRuns(
        ListUpcomingRunsRequest(start_time=timestamp_to(start), end_time=timestamp_to(end))
    )

    assert [(run.job_id, run.due_time.ToDatetime().isoformat()) for run in response.runs] == [
        (PRODUCTS, "2026-03-04T02:00:00"),
        (POSTS, "2026-03-09T01:00:00"),
        (PRODUCTS, "2026-03-11T02:00:00"),
        (CROSS, "2026-03-15T05:00:00"),
    ]


async def test_the_examples_come_back_out_as_they_went_in(api):
    await import_guide(api)

    exported = (await api.jobs.ExportJobs(ExportJobsRequest())).jobs_json

    [posts, products, cross] = json.loads(GUIDE)["batch_processing_jobs"]
    defaults = {"limit": 1000}
    assert json.loads(exported)["batch_processing_jobs"] == [
        posts,
        defaults | products,
        defaults | cross,
    ]


# The smaller ones.


def job_of(job_id: str, *, with_schedule: bool) -> dict[str, Any]:
    """Returns the one example with an id that has a schedule, or the one that has none."""
    spellings = [job for job in JOBS if job_id in (job.get("id"), job.get("job_id"))]
    [job] = [job for job in spellings if ("schedule" in job) is with_schedule]
    return job


async def test_the_short_individual_example_selects_the_same_users(api, processor):
    imported = await api.import_jobs(job_of(POSTS, with_schedule=False))

    batch = await run(api, POSTS)

    assert not imported.warnings
    assert batch.batch_type == "INDIVIDUAL_USERS"
    assert {call.item_id for call in processor.calls} == {"just-enough", "flagged"}


async def test_the_short_object_example_is_one_request_of_what_has_enough_posts(api, processor):
    await api.import_jobs(job_of(PRODUCTS, with_schedule=False))

    batch = await run(api, PRODUCTS)

    assert batch.batch_type == "BATCH_CATEGORIES"
    [call] = processor.calls
    assert call.data == group("niche", NICHE["trails"], NICHE["boards"], NICHE["dull"])


async def test_the_short_combined_example_filters_each_category_by_its_own(api, processor):
    await api.import_jobs(job_of(CROSS, with_schedule=False))

    batch = await run(api, CROSS)

    assert batch.batch_type == "BATCH_CATEGORIES"
    [call] = processor.calls
    large = (AUDIENCE[name] for name in ("runners", "asleep", "silent"))
    lively = (NICHE[name] for name in ("trails", "boards", "young"))
    assert call.data["categories"] == {
        "audience": group("audience", *large),
        "niche": group("niche", *lively),
    }


async def set_preference(api, user_id: str, *, enabled: bool = True, **overrides: Any) -> None:
    wish = Preference(user_id=user_id, feature_type="instagram_posts", enabled=enabled)
    wish.template_overrides.update(overrides)
    await api.preferences.SetPreference(SetPreferenceRequest(preference=wish))


@pytest.mark.parametrize(
    ("job_id", "prompt"),
    [
        pytest.param(
            "bat_pref_instagram_posts_20230501123045_d4e5f6g7", "Write a post.", id="short"
        ),
        pytest.param(
            "bat_pref_instagram_posts_20230601", "Write as the user likes it.", id="in full"
        ),
        pytest.param("instagram_post_preference_based", None, id="job_id and individual_batch"),
    ],
)
async def test_a_preference_based_example_has_a_request_for_each_user_who_wants_it(
    api, processor, job_id, prompt
):
    await set_preference(api, "flagged", tone="professional")
    await set_preference(api, "just-enough", enabled=False)
    await set_preference(api, "gone")
    imported = await api.import_jobs(job_of(job_id, with_schedule=False))

    batch = await run(api, job_id)

    job = (await api.jobs.GetJob(GetJobRequest(job_id=job_id))).job
    assert not imported.warnings
    assert batch.batch_type == job.batch_type == "PREFERENCE_INDIVIDUAL_USERS"
    assert (batch.feature_type, batch.options.priority) == ("instagram_posts", PRIORITY_HIGH)
    assert (batch.counts.succeeded, batch.counts.skipped) == (1, 1), "gone is inactive"
    [call] = processor.calls
    assert (call.item_id, call.user_id) == ("flagged", "flagged")
    of_job = MessageToDict(job.default_preferences).get("template_overrides", {})
    assert call.data["template_overrides"] == {**of_job, "tone": "professional"}
    assert call.parameters.get("prompt") == prompt
