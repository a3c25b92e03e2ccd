"""Importing, exporting and reading jobs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from batchwork_server.application.job_imports import (
    ImportedJobs,
    JobChange,
    JobChangeKind,
    JobImports,
)
from batchwork_server.application.jobs import JobReading, Jobs
from batchwork_server.application.notices import MAX_NOTICES, JobNotices
from batchwork_server.domain.filters import JobFilter
from batchwork_server.domain.job import parse_job
from batchwork_server.domain.submission import Idempotency
from batchwork_server.errors import InvalidArgument, NotFound, RequestIdReused, Unavailable
from batchwork_server.store.database import open_database
from batchwork_server.store.sql_store import SqlStore
from batchwork_server.wakeups import Wakeups

from tests.factories import TENANT, make_loaded_item, make_template
from tests.fakes import START, FakeCategories, FakeClock, FakeTemplates, FakeUsers

FIRST = "$.batch_processing_jobs[0]"


def make_job(**changes: Any) -> dict[str, Any]:
    job = {
        "id": "job_posts",
        "name": "Posts",
        "type": "individual",
        "category": "users",
        "template_id": "tpl_posts",
    } | changes
    return {name: value for name, value in job.items() if value is not None}


def make_file(*jobs: dict[str, Any]) -> str:
    return json.dumps({"batch_processing_jobs": list(jobs or (make_job(),))})


@pytest.fixture
async def store(sqlite_url: str) -> AsyncIterator[SqlStore]:
    database = await open_database(sqlite_url)
    yield SqlStore(database)
    await database.close()


@pytest.fixture
def categories() -> FakeCategories:
    categories = FakeCategories()
    data = {"followers": 5, "has_bio": True}
    categories.add("users", make_loaded_item("user_1", data=data))
    return categories


@pytest.fixture
def users() -> FakeUsers:
    return FakeUsers("admin_1")


@pytest.fixture
def templates() -> FakeTemplates:
    return FakeTemplates(
        make_template(
            template_id="tpl_posts", operations=("render",), feature_types=("instagram_posts",)
        )
    )


@pytest.fixture
def wakeups() -> Wakeups:
    return Wakeups()


@pytest.fixture
def notices(
    store: SqlStore, categories: FakeCategories, users: FakeUsers, templates: FakeTemplates
) -> JobNotices:
    return JobNotices(
        categories=categories, users=users, templates=templates, preferences=store.preferences
    )


@pytest.fixture
def jobs(
    store: SqlStore,
    notices: JobNotices,
    templates: FakeTemplates,
    clock: FakeClock,
    wakeups: Wakeups,
) -> Jobs:
    return Jobs(
        store=store,
        notices=notices,
        templates=templates,
        clock=clock,
        wakeups=wakeups,
        zone="UTC",
    )


@pytest.fixture
def imports(
    store: SqlStore,
    notices: JobNotices,
    templates: FakeTemplates,
    clock: FakeClock,
    wakeups: Wakeups,
) -> JobImports:
    return JobImports(
        store=store,
        notices=notices,
        templates=templates,
        clock=clock,
        wakeups=wakeups,
        zone="UTC",
    )


async def imported(imports: JobImports, *documents: dict[str, Any], **options: Any) -> ImportedJobs:
    return await imports.import_jobs(make_file(*documents), **{"tenant_id": TENANT} | options)


# Importing.


async def test_a_new_job_is_created_with_its_first_revision(
    jobs: Jobs, imports: JobImports
) -> None:
    answer = await imported(imports, make_job(), source="nightly")

    assert answer == ImportedJobs(
        changes=(JobChange(job_id="job_posts", kind=JobChangeKind.CREATED, revision=1),),
        notices=(),
    )
    stored = await jobs.get_job("job_posts", tenant_id=TENANT)
    assert (stored.revision, stored.source) == (1, "nightly")
    assert (stored.create_time, stored.update_time) == (START, START)


async def test_the_same_file_again_changes_nothing(
    jobs: Jobs, imports: JobImports, clock: FakeClock
) -> None:
    await imported(imports)
    clock.advance(timedelta(hours=1))

    answer = await imported(imports)

    [change] = answer.changes
    assert (change.kind, change.revision) == (JobChangeKind.UNCHANGED, 1)
    assert (await jobs.get_job("job_posts", tenant_id=TENANT)).update_time == START


async def test_a_job_that_differs_gets_a_new_revision(
    jobs: Jobs, imports: JobImports, clock: FakeClock
) -> None:
    await imported(imports)
    clock.advance(timedelta(hours=1))

    answer = await imported(imports, make_job(name="More posts", limit=5))

    assert answer.changes == (
        JobChange(
            job_id="job_posts",
            kind=JobChangeKind.UPDATED,
            revision=2,
            changed_fields=("display_name", "limit"),
        ),
    )
    stored = await jobs.get_job("job_posts", tenant_id=TENANT)
    assert stored.definition.display_name == "More posts"
    assert (stored.create_time, stored.update_time) == (START, START + timedelta(hours=1))


async def test_the_changes_are_told_in_the_order_of_the_file(imports: JobImports) -> None:
    answer = await imported(imports, make_job(id="job_zz"), make_job(id="job_aa"))

    assert [change.job_id for change in answer.changes] == ["job_zz", "job_aa"]


async def test_a_file_with_one_wrong_job_stores_none(jobs: Jobs, imports: JobImports) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await imported(imports, make_job(), make_job(id="job_wrong", limit=0))

    assert [v.path for v in refused.value.violations] == ["$.batch_processing_jobs[1].limit"]
    with pytest.raises(NotFound):
        await jobs.get_job("job_posts", tenant_id=TENANT)


async def test_an_unknown_template_is_refused_and_those_that_exist_are_named(
    imports: JobImports,
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await imported(imports, make_job(template_id="tpl_nothing"))

    [violation] = refused.value.violations
    assert violation.reason == refused.value.reason == "UNKNOWN_TEMPLATE"
    assert violation.path == f"{FIRST}.template_id"
    assert "tpl_posts" in violation.message


async def test_an_unknown_operation_is_refused(imports: JobImports) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await imported(imports, make_job(operation="annotate", template_id=None))

    [violation] = refused.value.violations
    assert (violation.reason, violation.path) == ("UNKNOWN_OPERATION", f"{FIRST}.operation")


async def test_what_the_file_and_what_the_world_find_wrong_is_told_at_once(
    imports: JobImports,
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await imported(
            imports,
            make_job(limit=0),
            make_job(id="job_more", template_id="tpl_nothing"),
            source="no source",
        )

    assert [v.path for v in refused.value.violations] == [
        f"{FIRST}.limit",
        "$.batch_processing_jobs[1].template_id",
        "source",
    ]


@pytest.mark.parametrize(
    "named", [{"operation": "render"}, {"feature_type": "instagram_posts"}], ids=str
)
async def test_a_default_template_does_for_one_that_is_not_named(
    imports: JobImports, named: dict[str, str]
) -> None:
    answer = await imported(imports, make_job(template_id=None, **named))

    assert answer.changes[0].kind is JobChangeKind.CREATED


async def test_a_feature_without_a_default_template_needs_one_that_is_named(
    imports: JobImports,
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await imported(imports, make_job(template_id=None, feature_type="etsy_analysis"))

    [violation] = refused.value.violations
    assert (violation.reason, violation.path) == ("FIELD_VIOLATION", f"{FIRST}.template_id")


async def test_a_trial_tells_what_would_change_and_stores_nothing(
    jobs: Jobs, imports: JobImports
) -> None:
    await imported(imports)

    answer = await imported(imports, make_job(limit=5), make_job(id="job_more"), validate_only=True)

    assert [change.kind for change in answer.changes] == [
        JobChangeKind.UPDATED,
        JobChangeKind.CREATED,
    ]
    page, _ = await jobs.list_jobs(JobFilter(tenant_id=TENANT), page_size=10)
    assert [(job.definition.job_id, job.revision) for job in page] == [("job_posts", 1)]


async def test_tenants_do_not_touch_each_other(jobs: Jobs, imports: JobImports) -> None:
    await imported(imports)

    answer = await imported(imports, make_job(limit=5), tenant_id="other")

    assert answer.changes[0].kind is JobChangeKind.CREATED
    assert (await jobs.get_job("job_posts", tenant_id=TENANT)).definition.limit == 1000


# The same request again.


async def test_the_same_request_gets_the_first_answer_whatever_has_changed(
    jobs: Jobs, imports: JobImports, users: FakeUsers
) -> None:
    request = Idempotency(request_id="request-1", request_hash="a")
    document = make_job(filters={"min_folowers": 1})
    first = await imported(imports, document, idempotency=request)
    await imported(imports, make_job(limit=5))
    users.away = True

    again = await imported(imports, document, idempotency=request)

    assert again == first
    assert (await jobs.get_job("job_posts", tenant_id=TENANT)).definition.limit == 5


async def test_a_request_id_with_other_content_is_refused(imports: JobImports) -> None:
    await imported(imports, idempotency=Idempotency(request_id="request-1", request_hash="a"))

    with pytest.raises(RequestIdReused):
        await imported(imports, idempotency=Idempotency(request_id="request-1", request_hash="b"))


async def test_a_refused_file_does_not_use_up_its_request_id(imports: JobImports) -> None:
    with pytest.raises(InvalidArgument):
        await imported(
            imports,
            make_job(limit=0),
            idempotency=Idempotency(request_id="request-1", request_hash="a"),
        )

    answer = await imported(
        imports, idempotency=Idempotency(request_id="request-1", request_hash="b")
    )

    assert answer.changes[0].kind is JobChangeKind.CREATED


# What may not be meant.


@pytest.mark.parametrize(
    "changes, reason, path, named",
    [
        pytest.param(
            {"category": "nothing"},
            "CATEGORY_WITHOUT_ITEMS",
            f"{FIRST}.category",
            "nothing",
            id="a category without items",
        ),
        pytest.param(
            {"type": "combined", "category": None, "categories": ["users", "nothing"]},
            "CATEGORY_WITHOUT_ITEMS",
            f"{FIRST}.categories[1]",
            "nothing",
            id="one of several categories",
        ),
        pytest.param(
            {"filters": {"min_folowers": 1}},
            "FILTER_MATCHES_NO_FIELD",
            f"{FIRST}.filters.min_folowers",
            "followers",
            id="a filter on a field that no item has",
        ),
        pytest.param(
            {
                "type": "combined",
                "category": None,
                "categories": ["users", "users2"],
                "filters": {"users": {"country": "BR"}},
            },
            "FILTER_MATCHES_NO_FIELD",
            f"{FIRST}.filters.users.country",
            "followers",
            id="a filter of one of several categories",
        ),
        pytest.param(
            {"distribution": {"users": ["admin_1", "admin_2"]}},
            "UNKNOWN_USER",
            f"{FIRST}.distribution.users[1]",
            "admin_2",
            id="a user who does not exist",
        ),
    ],
)
async def test_what_may_not_be_meant_is_noticed_and_accepted(
    imports: JobImports,
    categories: FakeCategories,
    changes: dict[str, Any],
    reason: str,
    path: str,
    named: str,
) -> None:
    categories.add("users2", make_loaded_item("user_1"))

    answer = await imported(imports, make_job(**changes))

    [notice] = answer.notices
    assert (notice.reason, notice.path) == (reason, path)
    assert named in notice.message
    assert answer.changes[0].kind is JobChangeKind.CREATED


async def test_filters_that_match_a_field_or_need_none_are_not_noticed(imports: JobImports) -> None:
    filters = {"min_followers": 1, "has_bio": True, "max_items": 5, "created_after": "2023-01-01"}

    answer = await imported(imports, make_job(filters=filters))

    assert answer.notices == ()


async def test_beyond_a_thousand_notices_are_only_counted(imports: JobImports) -> None:
    strangers = [f"stranger_{number}" for number in range(MAX_NOTICES + 5)]

    answer = await imported(imports, make_job(distribution={"users": strangers}))

    assert len(answer.notices) == MAX_NOTICES + 1
    assert "5 more" in answer.notices[-1].message


async def test_a_source_that_is_away_stops_the_import(
    jobs: Jobs, imports: JobImports, categories: FakeCategories
) -> None:
    categories.away = True

    with pytest.raises(Unavailable):
        await imported(imports)

    with pytest.raises(NotFound):
        await jobs.get_job("job_posts", tenant_id=TENANT)


# Waking the scheduler.


def reading(**changes: Any) -> JobReading:
    return lambda _stored: parse_job(make_job(schedule={"frequency": "hourly"}, **changes))


Change = Callable[[Jobs, JobImports], Awaitable[object]]

CHANGES: dict[str, Change] = {
    "importing": lambda _jobs, imports: imported(
        imports, make_job(schedule={"frequency": "hourly"})
    ),
    "creating": lambda jobs, _imports: jobs.create_job(reading(id="job_more"), tenant_id=TENANT),
    "updating": lambda jobs, _imports: jobs.update_job("job_posts", reading(), tenant_id=TENANT),
    "resuming": lambda jobs, _imports: jobs.resume_job("job_posts", tenant_id=TENANT),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_a_job_that_may_be_due_earlier_wakes_the_scheduler(
    jobs: Jobs, imports: JobImports, wakeups: Wakeups, change: Change
) -> None:
    await imported(imports)
    await jobs.pause_job("job_posts", tenant_id=TENANT)
    wakeups.schedules.clear()

    await change(jobs, imports)

    assert wakeups.schedules.is_set()


async def test_a_change_that_is_only_looked_at_wakes_nobody(
    jobs: Jobs, imports: JobImports, wakeups: Wakeups
) -> None:
    await imported(imports, validate_only=True)
    await jobs.create_job(reading(), tenant_id=TENANT, validate_only=True)

    assert not wakeups.schedules.is_set()


# Exporting and reading.


async def test_an_export_imports_as_no_change(imports: JobImports) -> None:
    await imported(imports, make_job(), make_job(id="job_more", filters={"min_followers": 1}))

    text = await imports.export_jobs(tenant_id=TENANT)
    answer = await imports.import_jobs(text, tenant_id=TENANT)

    assert [(change.job_id, change.kind) for change in answer.changes] == [
        ("job_more", JobChangeKind.UNCHANGED),
        ("job_posts", JobChangeKind.UNCHANGED),
    ]


async def test_named_jobs_are_exported_in_the_order_of_their_names_each_once(
    imports: JobImports,
) -> None:
    await imported(imports, make_job(), make_job(id="job_more"), make_job(id="job_other"))

    text = await imports.export_jobs(["job_posts", "job_more", "job_posts"], tenant_id=TENANT)

    assert [job["id"] for job in json.loads(text)["batch_processing_jobs"]] == [
        "job_posts",
        "job_more",
    ]


async def test_exporting_a_job_that_is_not_there_names_it(imports: JobImports) -> None:
    await imported(imports)

    with pytest.raises(NotFound) as missing:
        await imports.export_jobs(["job_posts", "job_lost"], tenant_id=TENANT)

    assert missing.value.resource_id == "job_lost"


async def test_the_jobs_of_another_tenant_are_not_there(jobs: Jobs, imports: JobImports) -> None:
    await imported(imports, tenant_id="other")

    with pytest.raises(NotFound):
        await jobs.get_job("job_posts", tenant_id=TENANT)
    with pytest.raises(NotFound):
        await imports.export_jobs(["job_posts"], tenant_id=TENANT)
