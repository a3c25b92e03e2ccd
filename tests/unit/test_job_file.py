"""Job files: what is read, what is written, and what is refused with which path."""

from __future__ import annotations

import json
from datetime import time, timedelta
from typing import Any

import pytest
from batchwork_server.domain.batch import Priority
from batchwork_server.domain.failure import FailureAction, FailurePolicy
from batchwork_server.domain.job import (
    DataSource,
    JobDefinition,
    JobShape,
    PreferenceSource,
    changed_fields,
    default_data_source,
    parse_job,
)
from batchwork_server.domain.job_file import (
    MAX_FILE_BYTES,
    MAX_JOBS,
    parse_job_file,
    read_job_file,
    render_job_file,
)
from batchwork_server.domain.job_policies import CatchUp, Overlap
from batchwork_server.domain.retry import REASON_PATTERN, RequestedRetry
from batchwork_server.domain.schedule import Daily, Schedule, Weekday, Weekly
from hypothesis import given, settings
from hypothesis import strategies as st

FIRST = "$.batch_processing_jobs[0]"


def make_job(**changes: Any) -> dict[str, Any]:
    """Makes a job as a file has it; a change to None leaves the field out."""
    job = {
        "id": "job_posts",
        "name": "Posts",
        "type": "individual",
        "category": "users",
        "template_id": "tpl_posts",
    } | changes
    return {name: value for name, value in job.items() if value is not None}


def make_file(*jobs: Any) -> str:
    return json.dumps({"batch_processing_jobs": list(jobs)})


def parse_one(**changes: Any) -> JobDefinition:
    [job], violations = parse_job_file(make_file(make_job(**changes)))
    assert violations == []
    return job


def paths_of(**changes: Any) -> list[str]:
    _, violations = parse_job(make_job(**changes))
    return [violation.path for violation in violations]


# What is written is read again.

lines = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=40)
ids = st.from_regex(r"\A[A-Za-z0-9_-]{4,63}\Z")
filters = st.dictionaries(
    st.from_regex(r"\A(min|max)_[a-z]{1,8}\Z").filter(lambda name: name != "max_items"),
    st.integers(0, 1000),
    max_size=1,
) | st.dictionaries(st.sampled_from(["country", "has_bio"]), st.booleans(), max_size=2)
schedules = st.none() | st.builds(
    Schedule,
    cadence=st.builds(Daily, at=st.just(time(9, 30))),
    time_zone=st.sampled_from([None, "Asia/Tokyo"]),
)
reasons = st.from_regex(REASON_PATTERN, fullmatch=True)
retry_policies = st.builds(
    RequestedRetry,
    initial_backoff=st.none() | st.timedeltas(timedelta(0), timedelta(hours=1)),
    max_backoff=st.none() | st.timedeltas(timedelta(0), timedelta(days=1)),
    multiplier=st.none() | st.floats(1, 10),
    non_retryable_reasons=st.none() | st.frozensets(reasons, min_size=1, max_size=32),
)
failure_policies = st.builds(
    FailurePolicy,
    max_failed=st.none() | st.integers(0, 2**63 - 1),
    max_failed_ratio=st.none() | st.floats(0, 1),
    min_sample=st.integers(1, 1_000_000),
    action=st.sampled_from(FailureAction),
)


@st.composite
def definitions(draw: st.DrawFn) -> JobDefinition:
    shape = draw(st.sampled_from(JobShape))
    source = draw(st.sampled_from(PreferenceSource))
    least = 2 if shape is JobShape.COMBINED else int(source is PreferenceSource.STATIC)
    most = 4 if shape is JobShape.COMBINED else 1
    categories = tuple(draw(st.lists(lines, min_size=least, max_size=most, unique=True)))
    if shape is JobShape.COMBINED:
        narrowed: Any = draw(st.dictionaries(st.sampled_from(categories), filters, max_size=3))
    else:
        narrowed = draw(filters) if categories else {}
    return JobDefinition(
        job_id=draw(ids),
        display_name=draw(lines),
        description=draw(lines | st.just("") | st.just("two\nlines")),
        shape=shape,
        preference_source=source,
        data_source=draw(st.sampled_from(DataSource)),
        priority=draw(st.sampled_from(Priority)),
        categories=categories,
        template_id=draw(lines),
        operation=draw(lines | st.just("")),
        schedule=draw(schedules),
        filters=narrowed,
        limit=draw(st.integers(1, 1_000_000)),
        retry_limit=draw(st.none() | st.integers(0, 100)),
        retry_policy=draw(retry_policies),
        batch_timeout=draw(
            st.none() | st.timedeltas(timedelta(seconds=1), timedelta(days=30)),
        ),
        failure_policy=draw(st.none() | failure_policies),
        catch_up=draw(st.sampled_from(CatchUp)),
        catch_up_window=draw(
            st.none() | st.timedeltas(timedelta(seconds=1), timedelta(days=366)),
        ),
        overlap=draw(st.sampled_from(Overlap)),
        distribute_results=draw(st.booleans()),
        distribution_user_ids=tuple(draw(st.lists(lines, max_size=3, unique=True))),
        purpose_id=draw(lines | st.just("")),
        feature_type=draw(lines),
        default_preferences=draw(
            st.just({})
            | st.fixed_dictionaries({"template_overrides": st.dictionaries(lines, lines)})
        ),
    )


@settings(deadline=None)
@given(st.lists(definitions(), max_size=4, unique_by=lambda job: job.job_id))
def test_a_written_file_is_read_as_equal_jobs(jobs: list[JobDefinition]) -> None:
    text = render_job_file(jobs)

    assert parse_job_file(text) == (jobs, [])


@settings(deadline=None)
@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_no_text_makes_the_reader_stumble(text: str) -> None:
    jobs, violations = parse_job_file(text)

    assert jobs or violations or json.loads(text) == {"batch_processing_jobs": []}


# What is read.


def test_what_a_job_leaves_out_has_the_defaults_of_the_guide() -> None:
    job = parse_one()

    assert job == JobDefinition(
        job_id="job_posts",
        display_name="Posts",
        description="",
        shape=JobShape.INDIVIDUAL,
        data_source=DataSource.USERS,
        preference_source=PreferenceSource.STATIC,
        priority=Priority.MEDIUM,
        categories=("users",),
        template_id="tpl_posts",
        schedule=None,
        limit=1000,
        retry_limit=None,
        retry_policy=RequestedRetry(),
        batch_timeout=None,
        failure_policy=None,
        distribute_results=False,
    )


def test_everything_that_a_job_says_is_kept() -> None:
    job = parse_one(
        description="One a day\nfor everybody.",
        priority="critical",
        operation="render",
        schedule={"frequency": "weekly", "days": ["Monday"], "at": "01:00"},
        filters={"min_followers": 1000},
        limit=500,
        retry_limit=0,
        retry_policy={
            "initial_backoff": 0.5,
            "max_backoff": 60,
            "multiplier": 3,
            "non_retryable_reasons": ["ACCOUNT_GONE"],
        },
        batch_timeout=7200,
        failure_policy={"max_failed": 0, "max_failed_ratio": 0.1, "action": "FAIL"},
        catch_up="all",
        catch_up_window=3600,
        overlap="Allow",
        distribute_results=True,
        distribution={"users": ["admin_1", "editor_1"]},
        purpose_id="growth",
    )

    assert job.description == "One a day\nfor everybody."
    assert job.priority is Priority.CRITICAL
    assert job.operation == "render"
    assert job.schedule == Schedule(cadence=Weekly(days=(Weekday.MONDAY,), at=time(1)))
    assert job.filters == {"min_followers": 1000}
    assert (job.limit, job.retry_limit) == (500, 0)
    assert job.retry_policy == RequestedRetry(
        initial_backoff=timedelta(milliseconds=500),
        max_backoff=timedelta(minutes=1),
        multiplier=3,
        non_retryable_reasons=frozenset({"ACCOUNT_GONE"}),
    )
    assert job.batch_timeout == timedelta(hours=2)
    assert job.failure_policy == FailurePolicy(
        max_failed=0, max_failed_ratio=0.1, min_sample=20, action=FailureAction.FAIL
    )
    assert (job.catch_up, job.overlap) == (CatchUp.ALL, Overlap.ALLOW)
    assert job.catch_up_window == timedelta(hours=1)
    assert job.distribute_results
    assert job.distribution_user_ids == ("admin_1", "editor_1")
    assert job.purpose_id == "growth"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"id": None, "job_id": "job_posts"}, id="job_id"),
        pytest.param({"job_id": "job_posts"}, id="both, with one value"),
        pytest.param({"type": "individual_batch"}, id="individual_batch"),
        pytest.param({"type": "Individual"}, id="capital letters"),
        pytest.param({"category": None, "categories": ["users"]}, id="categories"),
        pytest.param({"categories": ["users"]}, id="category and categories"),
        pytest.param({"priority": "medium", "limit": 1000.0}, id="defaults in full"),
        pytest.param(
            {"retry_policy": {"multiplier": None}, "failure_policy": None, "batch_timeout": None},
            id="policies that say nothing",
        ),
    ],
)
def test_other_spellings_say_the_same(changes: dict[str, Any]) -> None:
    assert parse_one(**changes) == parse_one()


def test_a_job_without_a_name_is_called_by_its_id() -> None:
    assert parse_one(name=None).display_name == "job_posts"


@pytest.mark.parametrize("by", [{"operation": "render"}, {"feature_type": "instagram_posts"}])
def test_a_template_may_be_left_to_the_operation_or_the_feature(by: dict[str, str]) -> None:
    assert parse_one(template_id=None, **by).template_id == ""


@pytest.mark.parametrize(
    "changes",
    [{"type": "preference"}, {"type": "preference_batch"}, {"preference_based": True}],
    ids=["preference", "preference_batch", "preference_based"],
)
def test_a_preference_based_job_may_do_without_a_category(changes: dict[str, Any]) -> None:
    job = parse_one(category=None, feature_type="instagram_posts", **changes)

    assert job.shape is JobShape.INDIVIDUAL
    assert job.preference_source is PreferenceSource.DYNAMIC
    assert job.data_source is DataSource.USERS
    assert job.categories == ()


@pytest.mark.parametrize(
    "changes, batch_type",
    [
        ({}, "INDIVIDUAL_USERS"),
        ({"category": "niche"}, "INDIVIDUAL_CATEGORIES"),
        ({"type": "object"}, "BATCH_USERS"),
        ({"type": "object", "category": "niche"}, "BATCH_CATEGORIES"),
        ({"preference_based": True}, "PREFERENCE_INDIVIDUAL_USERS"),
        ({"preference_based": True, "category": "niche"}, "PREFERENCE_INDIVIDUAL_CATEGORIES"),
        ({"preference_based": True, "type": "object"}, "PREFERENCE_BATCH_USERS"),
        (
            {"preference_based": True, "type": "object", "category": "niche"},
            "PREFERENCE_BATCH_CATEGORIES",
        ),
        ({"category": "niche", "data_source": "users"}, "INDIVIDUAL_USERS"),
        ({"data_source": "categories"}, "INDIVIDUAL_CATEGORIES"),
    ],
)
def test_a_job_has_a_place_in_the_matrix(changes: dict[str, Any], batch_type: str) -> None:
    assert parse_one(feature_type="instagram_posts", **changes).batch_type == batch_type


def test_a_combined_job_selects_from_each_category_by_its_own_filters() -> None:
    job = parse_one(
        type="combined",
        category=None,
        categories=["audience", "niche"],
        filters={"audience": {"min_size": 1000, "max_items": 5}},
    )

    assert job.filters_of("audience") == {"min_size": 1000, "max_items": 5}
    assert job.filters_of("niche") == {}


def test_a_job_of_one_category_selects_by_all_its_filters() -> None:
    job = parse_one(filters={"country": "BR"}, limit=7)

    assert job.filters_of("users") == {"country": "BR"}
    assert job.limit == 7


def test_the_jobs_are_told_by_their_paths() -> None:
    text = make_file(make_job(), make_job(id="no"), make_job(id="job_more"))

    jobs = read_job_file(text).jobs

    assert {job.path: bool(job.violations) for job in jobs} == {
        FIRST: False,
        "$.batch_processing_jobs[1]": True,
        "$.batch_processing_jobs[2]": False,
    }


def test_what_is_right_about_a_broken_job_is_read() -> None:
    file = read_job_file(make_file(make_job(id="no", template_id="tpl", limit="many")))

    [job] = file.jobs
    assert job.definition is not None
    assert job.definition.template_id == "tpl"
    assert [violation.path for violation in job.violations] == [f"{FIRST}.id", f"{FIRST}.limit"]


def test_a_file_may_start_with_a_byte_order_mark() -> None:
    assert parse_job_file("\ufeff" + make_file(make_job()))[1] == []


# What is refused.


@pytest.mark.parametrize(
    "changes, path",
    [
        pytest.param({"id": None}, "$.id", id="no id"),
        pytest.param({"id": "abc"}, "$.id", id="short id"),
        pytest.param({"id": "job posts"}, "$.id", id="blank in the id"),
        pytest.param({"id": None, "job_id": 1234}, "$.job_id", id="other spelling, no text"),
        pytest.param({"job_id": "job_other"}, "$.job_id", id="two ids"),
        pytest.param({"name": "x" * 257}, "$.name", id="long name"),
        pytest.param({"name": "two\nlines"}, "$.name", id="name of two lines"),
        pytest.param({"description": "x" * 4097}, "$.description", id="long description"),
        pytest.param({"description": "\x07"}, "$.description", id="bell in the description"),
        pytest.param({"type": None}, "$.type", id="no type"),
        pytest.param({"type": "group"}, "$.type", id="unknown type"),
        pytest.param({"priority": "urgent"}, "$.priority", id="unknown priority"),
        pytest.param({"data_source": "files"}, "$.data_source", id="unknown data source"),
        pytest.param({"template_id": None}, "$.template_id", id="no template"),
        pytest.param({"template_id": 7}, "$.template_id", id="template is a number"),
        pytest.param({"category": None}, "$.category", id="no category"),
        pytest.param({"categories": ["niche"]}, "$.categories", id="two spellings differ"),
        pytest.param(
            {"category": None, "categories": ["users", "niche"]},
            "$.categories",
            id="two, not combined",
        ),
        pytest.param({"type": "combined"}, "$.categories", id="combined of one"),
        pytest.param(
            {"type": "combined", "category": None, "categories": ["a", "b", "a"]},
            "$.categories[2]",
            id="a category twice",
        ),
        pytest.param({"filters": ["x"]}, "$.filters", id="filters are a list"),
        pytest.param({"filters": {"min_x": "y"}}, "$.filters.min_x", id="bad filter"),
        pytest.param(
            {
                "type": "combined",
                "category": None,
                "categories": ["a", "b"],
                "filters": {"c": {}},
            },
            "$.filters.c",
            id="filters of another category",
        ),
        pytest.param(
            {
                "type": "combined",
                "category": None,
                "categories": ["a", "b"],
                "filters": {"a": {"min_x": "y"}},
            },
            "$.filters.a.min_x",
            id="bad filter of a category",
        ),
        pytest.param({"schedule": {"frequency": "daily"}}, "$.schedule.at", id="no time"),
        pytest.param({"limit": 0}, "$.limit", id="limit 0"),
        pytest.param({"limit": 1_000_001}, "$.limit", id="limit beyond a million"),
        pytest.param({"limit": "10"}, "$.limit", id="limit is text"),
        pytest.param({"retry_limit": -1}, "$.retry_limit", id="fewer than no retries"),
        pytest.param({"retry_limit": 101}, "$.retry_limit", id="too many retries"),
        pytest.param({"retry_policy": 3}, "$.retry_policy", id="retry policy is a number"),
        pytest.param(
            {"retry_policy": {"retry_limit": 3}},
            "$.retry_policy.retry_limit",
            id="the limit of retries stands beside the policy",
        ),
        pytest.param(
            {"retry_policy": {"initial_backoff": 3600.1}},
            "$.retry_policy.initial_backoff",
            id="first backoff beyond an hour",
        ),
        pytest.param(
            {"retry_policy": {"max_backoff": -1}},
            "$.retry_policy.max_backoff",
            id="negative backoff",
        ),
        pytest.param(
            {"retry_policy": {"max_backoff": "60s"}},
            "$.retry_policy.max_backoff",
            id="backoff is text",
        ),
        pytest.param(
            {"retry_policy": {"multiplier": 0.9}}, "$.retry_policy.multiplier", id="backoff shrinks"
        ),
        pytest.param(
            {"retry_policy": {"non_retryable_reasons": ["TIMEOUT", "gone"]}},
            "$.retry_policy.non_retryable_reasons[1]",
            id="reason is no code",
        ),
        pytest.param(
            {"retry_policy": {"non_retryable_reasons": [f"R{n}" for n in range(33)]}},
            "$.retry_policy.non_retryable_reasons",
            id="33 reasons",
        ),
        pytest.param({"catch_up": "some"}, "$.catch_up", id="unknown catch-up"),
        pytest.param({"overlap": "queue"}, "$.overlap", id="unknown overlap"),
        pytest.param({"catch_up_window": 0}, "$.catch_up_window", id="no window at all"),
        pytest.param({"batch_timeout": 0.999}, "$.batch_timeout", id="less than a second"),
        pytest.param({"batch_timeout": 2_592_001}, "$.batch_timeout", id="more than 30 days"),
        pytest.param({"failure_policy": []}, "$.failure_policy", id="failure policy is a list"),
        pytest.param(
            {"failure_policy": {"max_failed": -1}},
            "$.failure_policy.max_failed",
            id="fewer than none may fail",
        ),
        pytest.param(
            {"failure_policy": {"max_failed_ratio": 1.1}},
            "$.failure_policy.max_failed_ratio",
            id="more than all may fail",
        ),
        pytest.param(
            {"failure_policy": {"max_failed_ratio": True}},
            "$.failure_policy.max_failed_ratio",
            id="true is no share",
        ),
        pytest.param(
            {"failure_policy": {"min_sample": 0}}, "$.failure_policy.min_sample", id="no sample"
        ),
        pytest.param(
            {"failure_policy": {"action": "stop"}}, "$.failure_policy.action", id="unknown action"
        ),
        pytest.param({"distribute_results": 1}, "$.distribute_results", id="1 is not true"),
        pytest.param({"distribution": ["admin_1"]}, "$.distribution", id="distribution is a list"),
        pytest.param(
            {"distribution": {"users": ["admin_1", ""]}}, "$.distribution.users[1]", id="empty user"
        ),
        pytest.param(
            {"distribution": {"groups": ["a"]}}, "$.distribution.groups", id="unknown distribution"
        ),
        pytest.param({"preference_based": True}, "$.feature_type", id="preferences of no feature"),
        pytest.param({"include_all_users": True}, "$.include_all_users", id="all users of nothing"),
        pytest.param(
            {"type": "preference", "preference_based": False, "feature_type": "posts"},
            "$.preference_based",
            id="contradiction",
        ),
        pytest.param(
            {
                "preference_based": True,
                "feature_type": "posts",
                "category": None,
                "filters": {"min_x": 1},
            },
            "$.filters",
            id="filters of no category",
        ),
        pytest.param(
            {"default_preferences": {"frequency": "daily"}},
            "$.default_preferences.preferred_time",
            id="default preference without a time",
        ),
        pytest.param({"a b": 1}, '$["a b"]', id="unknown field in brackets"),
    ],
)
def test_what_is_wrong_with_a_job_is_told_with_its_path(changes: dict[str, Any], path: str) -> None:
    assert paths_of(**changes) == [path]


def test_an_unknown_field_names_the_closest_known_one() -> None:
    _, [violation] = parse_job_file(make_file(make_job(shedule={"frequency": "hourly"})))

    assert violation.path == f"{FIRST}.shedule"
    assert "did you mean `schedule`" in violation.message


def test_everything_that_is_wrong_with_a_file_is_told_at_once() -> None:
    text = make_file(
        make_job(type="group", limit=0, schedule={"frequency": "daily", "at": "25:00"}),
        "no job",
        make_job(id="job_more", priority="urgent"),
    )

    jobs, violations = parse_job_file(text)

    assert jobs == []
    assert [violation.path for violation in violations] == [
        f"{FIRST}.type",
        f"{FIRST}.limit",
        f"{FIRST}.schedule.at",
        "$.batch_processing_jobs[1]",
        "$.batch_processing_jobs[2].priority",
    ]


def test_an_id_may_stand_once_whatever_its_spelling() -> None:
    text = make_file(make_job(), make_job(id=None, job_id="job_posts", type="group"))

    _, violations = parse_job_file(text)

    assert [violation.path for violation in violations] == [
        "$.batch_processing_jobs[1].type",
        "$.batch_processing_jobs[1].job_id",
    ]


def test_text_that_is_no_json_is_refused_with_line_and_column() -> None:
    jobs, [violation] = parse_job_file('{\n  "batch_processing_jobs": [}\n')

    assert jobs == []
    assert "line 2, column 29" in violation.message


@pytest.mark.parametrize(
    "text, path",
    [
        pytest.param("[]", "$", id="a list"),
        pytest.param("{}", "$.batch_processing_jobs", id="no jobs"),
        pytest.param('{"batch_processing_jobs": {}}', "$.batch_processing_jobs", id="no list"),
        pytest.param('{"batch_processing_jobs": [], "x": 1}', "$.x", id="unknown field"),
        pytest.param('{"a": 1, "a": 2}', "$.a", id="a key twice"),
        pytest.param('{"a": {"b": [{"c": 1, "c": 1}]}}', "$.a.b[0].c", id="a key twice, deep"),
        pytest.param('{"a": NaN}', "$", id="not a number"),
        pytest.param('{"a": 1e999}', "$.a", id="a number beyond all"),
        pytest.param('{"a": ' + "9" * 5000 + "}", "$", id="thousands of digits"),
        pytest.param('{"a": "\\ud800"}', "$.a", id="half a surrogate pair"),
        pytest.param('{"a": "\\u0000"}', "$.a", id="a null character"),
        pytest.param("[" * 100_000, "$", id="nested without end"),
    ],
)
def test_a_file_that_could_not_be_kept_is_refused(text: str, path: str) -> None:
    jobs, violations = parse_job_file(text)

    assert jobs == []
    assert [violation.path for violation in violations] == [path]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('"' + "x" * MAX_FILE_BYTES + '"', id="4 MiB"),
        pytest.param(make_file(*[None] * (MAX_JOBS + 1)), id="10,000 jobs"),
    ],
)
def test_a_file_beyond_the_limits_is_refused_as_too_large(text: str) -> None:
    _, [violation] = parse_job_file(text)

    assert violation.reason == "PAYLOAD_TOO_LARGE"


# What differs.


def test_changes_are_named_by_the_fields_of_the_contract_sorted() -> None:
    old = parse_one()
    new = parse_one(name="More posts", filters={"min_followers": 1}, limit=5)

    assert changed_fields(old, new) == ("display_name", "filters", "limit")


def test_a_change_of_a_policy_is_named_by_the_policy() -> None:
    old = parse_one(retry_policy={"multiplier": 2}, failure_policy={"max_failed": 1})
    new = parse_one(retry_policy={"multiplier": 3}, batch_timeout=60)

    assert changed_fields(old, new) == ("batch_timeout", "failure_policy", "retry_policy")


def test_true_instead_of_one_is_a_change() -> None:
    old, new = parse_one(filters={"flag": 1}), parse_one(filters={"flag": True})

    assert changed_fields(old, new) == ("filters",)


def test_the_order_of_filters_is_no_change() -> None:
    old, new = parse_one(filters={"a": 1, "b": 2}), parse_one(filters={"b": 2, "a": 1})

    assert changed_fields(old, new) == ()


def test_users_are_the_data_when_the_category_says_so() -> None:
    static = PreferenceSource.STATIC

    assert default_data_source(("users",), static) is DataSource.USERS
    assert default_data_source(("users", "niche"), static) is DataSource.CATEGORIES
