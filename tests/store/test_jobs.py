"""Jobs in the store, on each database."""

from __future__ import annotations

import asyncio
from datetime import time, timedelta
from typing import Any

import pytest
from batchwork_server.domain.failure import FailureAction, FailurePolicy
from batchwork_server.domain.filters import JobFilter
from batchwork_server.domain.firing import NextRun
from batchwork_server.domain.job import (
    DataSource,
    JobDefinition,
    JobShape,
    PreferenceSource,
    StoredJob,
)
from batchwork_server.domain.retry import RequestedRetry
from batchwork_server.domain.schedule import Schedule, Weekday, Weekly
from batchwork_server.store.pages import PAGE_BYTES
from batchwork_server.store.store import Store

from tests.factories import TENANT
from tests.fakes import START


def make_definition(job_id: str = "job_posts", **changes: Any) -> JobDefinition:
    return JobDefinition(
        **{
            "job_id": job_id,
            "display_name": "Posts",
            "shape": JobShape.INDIVIDUAL,
            "data_source": DataSource.USERS,
            "categories": ("users",),
            "template_id": "tpl_posts",
        }
        | changes
    )


def make_stored(
    job_id: str = "job_posts",
    *,
    tenant_id: str = TENANT,
    revision: int = 1,
    source: str = "import",
    **changes: Any,
) -> StoredJob:
    return StoredJob(
        definition=make_definition(job_id, **changes),
        tenant_id=tenant_id,
        revision=revision,
        source=source,
        create_time=START,
        update_time=START + timedelta(hours=revision - 1),
    )


async def put(store: Store, *jobs: StoredJob) -> None:
    async with store.transaction() as tx:
        await store.jobs.put(tx, jobs)


async def ids(store: Store, wanted: JobFilter) -> list[str]:
    jobs, _ = await store.jobs.list(wanted, page_size=100, after=None)
    return [job.definition.job_id for job in jobs]


async def test_a_job_comes_back_as_it_was_stored(store: Store) -> None:
    job = make_stored(
        description="Zwei\nZeilen, ein 🎉",
        schedule=Schedule(
            cadence=Weekly(days=(Weekday.MONDAY,), at=time(1)), time_zone="Europe/Berlin"
        ),
        filters={"min_followers": 1000, "has_profile_pic": True},
        retry_limit=0,
        retry_policy=RequestedRetry(
            initial_backoff=timedelta(milliseconds=500),
            non_retryable_reasons=frozenset({"ACCOUNT_GONE"}),
        ),
        batch_timeout=timedelta(hours=2),
        failure_policy=FailurePolicy(max_failed=3, action=FailureAction.CONTINUE),
        distribution_user_ids=("admin_1", "editor_1"),
        feature_type="instagram_posts",
        default_preferences={"template_overrides": {"tone": "casual"}},
    )

    await put(store, job)

    assert await store.jobs.get("job_posts", tenant_id=TENANT) == job


async def test_a_job_that_is_stored_again_keeps_the_time_of_its_creation(store: Store) -> None:
    first = make_stored()
    second = make_stored(revision=2, display_name="More posts")
    await put(store, first)

    await put(store, second)

    stored = await store.jobs.get("job_posts", tenant_id=TENANT)
    assert stored == second


async def test_a_tenant_sees_its_own_jobs_only(store: Store) -> None:
    await put(store, make_stored(), make_stored("job_other", tenant_id="other"))

    assert await store.jobs.get("job_other", tenant_id=TENANT) is None
    assert await store.jobs.get_many(["job_posts", "job_other"], tenant_id=TENANT) == {
        "job_posts": make_stored()
    }
    assert await ids(store, JobFilter(tenant_id=TENANT)) == ["job_posts"]


async def test_an_operator_sees_the_jobs_of_every_tenant(store: Store) -> None:
    other = make_stored("job_other", tenant_id="other")
    await put(store, make_stored(), other)

    assert await store.jobs.get("job_other", tenant_id=None) == other
    assert await ids(store, JobFilter(tenant_id=None)) == ["job_posts", "job_other"]


async def test_two_tenants_may_use_one_id(store: Store) -> None:
    mine, theirs = make_stored(), make_stored(tenant_id="other", display_name="Theirs")

    await put(store, mine, theirs)

    assert await store.jobs.get("job_posts", tenant_id=TENANT) == mine
    assert await store.jobs.get("job_posts", tenant_id="other") == theirs


async def test_pages_follow_each_other_without_gap_or_repetition(store: Store) -> None:
    await put(store, *(make_stored(f"job_{number}") for number in range(5)))
    wanted = JobFilter(tenant_id=TENANT)

    first, after_first = await store.jobs.list(wanted, page_size=2, after=None)
    second, after_second = await store.jobs.list(wanted, page_size=2, after=after_first)
    third, after_third = await store.jobs.list(wanted, page_size=2, after=after_second)

    pages = [[job.definition.job_id for job in page] for page in (first, second, third)]
    assert pages == [["job_0", "job_1"], ["job_2", "job_3"], ["job_4"]]
    assert after_third is None


async def test_a_full_last_page_has_no_successor(store: Store) -> None:
    await put(store, make_stored("job_0"), make_stored("job_1"))

    _, after = await store.jobs.list(JobFilter(tenant_id=TENANT), page_size=2, after=None)

    assert after is None


async def test_a_page_ends_before_it_outgrows_a_message(store: Store) -> None:
    large = {"template_overrides": {"text": "x" * 60_000}}
    count = PAGE_BYTES // 60_000 + 5
    await put(store, *(make_stored(f"job_{n:03}", default_preferences=large) for n in range(count)))

    page, after = await store.jobs.list(JobFilter(tenant_id=TENANT), page_size=100, after=None)
    rest, _ = await store.jobs.list(JobFilter(tenant_id=TENANT), page_size=100, after=after)

    assert 0 < len(page) < count
    assert len(page) + len(rest) == count


@pytest.mark.parametrize(
    "wanted",
    [
        JobFilter(tenant_id=TENANT, shape=JobShape.OBJECT),
        JobFilter(tenant_id=TENANT, feature_type="posts"),
        JobFilter(tenant_id=TENANT, purpose_id="growth"),
        JobFilter(
            tenant_id=TENANT, shape=JobShape.OBJECT, feature_type="posts", purpose_id="growth"
        ),
    ],
    ids=["shape", "feature", "purpose", "all three"],
)
async def test_a_filter_keeps_what_meets_it(store: Store, wanted: JobFilter) -> None:
    special: dict[str, Any] = {
        "shape": JobShape.OBJECT,
        "feature_type": "posts",
        "purpose_id": "growth",
    }
    await put(store, make_stored("job_plain"), make_stored("job_special", **special))

    assert await ids(store, wanted) == ["job_special"]


async def test_more_jobs_than_fit_into_one_statement_are_found(store: Store) -> None:
    names = [f"job_{number:04}" for number in range(2500)]
    await put(store, *(make_stored(name) for name in names))

    found = await store.jobs.get_many(names, tenant_id=TENANT)

    assert sorted(found) == names


async def test_whoever_locks_the_jobs_second_sees_what_the_first_stored(store: Store) -> None:
    locked = asyncio.Event()

    async def first() -> None:
        async with store.transaction() as tx:
            assert await store.jobs.lock(tx, ["job_posts"], tenant_id=TENANT) == {}
            locked.set()
            await store.jobs.put(tx, [make_stored()])

    async def second() -> dict[str, StoredJob]:
        await locked.wait()
        async with store.transaction() as tx:
            return await store.jobs.lock(tx, ["job_posts"], tenant_id=TENANT)

    _, seen = await asyncio.gather(first(), second())

    assert seen == {"job_posts": make_stored()}


async def test_deleted_jobs_are_gone_and_those_of_another_tenant_stay(store: Store) -> None:
    names = [f"job_{number:04}" for number in range(1500)]
    theirs = make_stored(names[0], tenant_id="other")
    await put(store, *(make_stored(name) for name in names), theirs)

    async with store.transaction() as tx:
        await store.jobs.delete(tx, [*names[:-1], "job_lost"], tenant_id=TENANT)

    assert await ids(store, JobFilter(tenant_id=TENANT)) == [names[-1]]
    assert await store.jobs.get(names[0], tenant_id="other") == theirs


async def test_the_jobs_of_a_source_are_told_with_their_revisions(store: Store) -> None:
    await put(
        store,
        make_stored("job_b", source="nightly", revision=3),
        make_stored("job_a", source="nightly"),
        make_stored("job_c", source="deploy"),
        make_stored("job_d", source="nightly", tenant_id="other"),
    )

    owned = await store.jobs.owned_by("nightly", tenant_id=TENANT)

    assert list(owned.items()) == [("job_a", 1), ("job_b", 3)]


async def test_a_transaction_sees_whose_the_jobs_are_that_it_stored(store: Store) -> None:
    await put(store, make_stored("job_a", source="nightly"))

    async with store.transaction() as tx:
        await store.jobs.lock(tx, ["job_a"], tenant_id=TENANT)
        await store.jobs.put(tx, [make_stored("job_a", source="deploy")])
        owned = await store.jobs.owned_by("nightly", tenant_id=TENANT, tx=tx)

    assert owned == {}


async def test_what_a_failed_transaction_stored_is_not_there(store: Store) -> None:
    async def fail() -> None:
        async with store.transaction() as tx:
            await store.jobs.put(tx, [make_stored()])
            raise LookupError

    with pytest.raises(LookupError):
        await fail()

    assert await store.jobs.get("job_posts", tenant_id=TENANT) is None


async def test_jobs_come_by_their_next_run_a_page_at_a_time(store: Store):
    jobs = [make_stored(f"job_{n}") for n in range(5)]
    await put(store, *jobs, make_stored("job_0", tenant_id="other"), make_stored("job_idle"))
    hours = {"job_0": 3, "job_1": 1, "job_2": 2, "job_3": 1, "job_4": 9}
    at = {job_id: START + timedelta(hours=count) for job_id, count in hours.items()}
    runs = {
        job_id: NextRun(due_time=due, start_time=due + timedelta(hours=5 - hours[job_id]))
        for job_id, due in at.items()
    }
    async with store.transaction() as tx:
        await store.jobs.schedule(tx, runs, tenant_id=TENANT)
        await store.jobs.schedule(tx, {"job_0": runs["job_1"]}, tenant_id="other")

    pages, places, after = [], [], None
    while True:
        page, after = await store.jobs.next_to_run(tenant_id=TENANT, limit=2, after=after)
        pages.append([job.definition.job_id for job in page])
        places.append(after)
        if after is None:
            break

    assert pages == [["job_1", "job_3"], ["job_2", "job_0"], ["job_4"]]
    assert places == [(at["job_3"], "job_3"), (at["job_0"], "job_0"), None]


async def test_the_features_whose_preferences_drive_jobs_are_told(store: Store):
    dynamic: dict[str, Any] = {"preference_source": PreferenceSource.DYNAMIC}
    await put(
        store,
        make_stored("job_b", feature_type="tips", **dynamic),
        make_stored("job_c", feature_type="posts", **dynamic),
        make_stored("job_d", feature_type="posts", **dynamic),
        make_stored("job_e", feature_type="static"),
        make_stored("job_f", feature_type="others", tenant_id="acme", **dynamic),
    )

    assert list(await store.jobs.driven_features(tenant_id=TENANT, limit=9)) == ["posts", "tips"]
    assert list(await store.jobs.driven_features(tenant_id=TENANT, limit=1)) == ["posts"]
