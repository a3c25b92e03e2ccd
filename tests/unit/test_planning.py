"""From a submission to the items of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, cast

import orjson
import pytest
from batchwork_server.application.planning import Planning
from batchwork_server.application.validation import Validation
from batchwork_server.domain.batch import HANDICAPS, Priority, UserValidation
from batchwork_server.domain.failure import FailureAction, FailurePolicy
from batchwork_server.domain.job import DataSource, JobShape
from batchwork_server.domain.reference_validation import (
    NOTHING_FOUND,
    CategoryCounts,
    ReferenceCounts,
    ReferenceValidation,
)
from batchwork_server.domain.retry import RequestedRetry, RetryPolicy
from batchwork_server.domain.selection import SelectedItem
from batchwork_server.domain.submission import RequestedOptions, Submission
from batchwork_server.errors import InvalidArgument
from batchwork_server.store.store import Store

from tests.factories import TENANT, make_loaded_item, make_options, make_template
from tests.fakes import START, FakeCategories, FakeClock, FakeTemplates, FakeUsers


class World:
    """Everything that planning looks at, in memory."""

    def __init__(
        self,
        *,
        retry: RetryPolicy | None = None,
        handicaps: Mapping[Priority, timedelta] = HANDICAPS,
    ) -> None:
        self.users = FakeUsers("ann", "bob")
        self.categories = FakeCategories()
        self.planning = Planning(
            store=cast("Store", None),  # only preference-based runs look there
            categories=self.categories,
            validation=Validation(self.users),
            templates=FakeTemplates(
                make_template(template_id="plain"),
                make_template(template_id="annotation", operations=("annotate",)),
            ),
            defaults=make_options(retry=retry or RetryPolicy()),
            handicaps=handicaps,
            clock=FakeClock(),
        )

    def fill(self, category: str, *items: tuple[str, dict[str, Any]]) -> None:
        self.categories.add(category, *(make_loaded_item(i, data=data) for i, data in items))

    async def plan(self, **changes):
        submission = Submission(**{"template_id": "plain"} | changes)
        return await self.planning.plan(submission, tenant_id=TENANT)

    async def refusal(self, **changes) -> dict[str, str]:
        with pytest.raises(InvalidArgument) as error:
            await self.plan(**changes)
        return {violation.path: violation.reason for violation in error.value.violations}


@pytest.fixture
def world() -> World:
    return World()


def inline(*item_ids: str) -> tuple[SelectedItem, ...]:
    return tuple(SelectedItem(item_id=i, user_id=None, data_json='{"n":1}') for i in item_ids)


async def test_inline_items_become_items_as_they_are(world):
    plan = await world.plan(items=inline("a", "b"))

    assert [(item.item_id, item.data_json) for item in plan.items] == [
        ("a", '{"n":1}'),
        ("b", '{"n":1}'),
    ]
    assert plan.request.batch_type == "INDIVIDUAL_CATEGORIES"


async def test_items_of_unknown_users_are_skipped_with_the_reason(world):
    world.users.add("eve", active=False)

    plan = await world.plan(items=inline("ann", "eve", "nobody"), data_source=DataSource.USERS)

    assert [item.skip_reason for item in plan.items] == [None, "USER_INACTIVE", "USER_NOT_FOUND"]
    assert plan.request.user_validation == UserValidation(total=3, valid=1, invalid=2)
    assert plan.skips == {"USER_INACTIVE": 1, "USER_NOT_FOUND": 1}


async def test_a_category_is_narrowed_by_filters_and_limit(world):
    world.fill("accounts", *((f"a{n}", {"followers": n * 10}) for n in range(10)))

    plan = await world.plan(
        categories=("accounts",), filters={"min_followers": 30, "max_items": 4}, limit=5
    )

    assert [item.item_id for item in plan.items] == ["a3", "a4", "a5", "a6"]
    assert plan.request.notices == ()


async def test_filters_that_are_relative_to_now_count_from_the_due_time(world):
    for days in (1, 5, 9):
        active = START - timedelta(days=days)
        world.categories.add("accounts", make_loaded_item(f"seen-{days}", active_time=active))
    wanted = {"categories": ("accounts",), "filters": {"active_last_days": 3}}

    now = await world.plan(**wanted)
    then = await world.plan(**wanted, due_time=START - timedelta(days=4))

    assert [item.item_id for item in now.items] == ["seen-1"]
    assert [item.item_id for item in then.items] == ["seen-1", "seen-5"]
    assert (now.request.due_time, then.request.due_time) == (None, START - timedelta(days=4))


async def test_a_filter_on_a_field_that_no_item_has_is_noticed(world):
    world.fill("accounts", ("a", {"followers": 1}))

    plan = await world.plan(categories=("accounts",), filters={"min_folowers": 1})

    [notice] = plan.request.notices
    assert (notice.reason, notice.path) == ("FILTER_MATCHES_NO_FIELD", "filters.min_folowers")
    assert "followers" in notice.message


async def test_an_object_batch_is_one_item_with_the_whole_selection(world):
    world.fill("accounts", ("ann", {"n": 1}), ("nobody", {"n": 2}))

    plan = await world.plan(
        categories=("accounts",), shape=JobShape.OBJECT, data_source=DataSource.USERS
    )

    [item] = plan.items
    assert orjson.loads(item.data_json) == {
        "category": "accounts",
        "count": 1,
        "items": [{"n": 1}],
    }
    assert plan.request.user_validation == UserValidation(total=2, valid=1, invalid=1)
    assert plan.request.batch_type == "BATCH_USERS"


async def test_a_combined_batch_is_one_item_with_every_selection(world):
    world.fill("audience", ("a", {"size": 5}), ("b", {"size": 50}))
    world.fill("niche", ("c", {"posts": 1}))

    plan = await world.plan(
        categories=("audience", "niche"),
        shape=JobShape.COMBINED,
        filters={"audience": {"min_size": 10}},
    )

    [item] = plan.items
    assert orjson.loads(item.data_json) == {
        "categories": {
            "audience": {"category": "audience", "count": 1, "items": [{"size": 50}]},
            "niche": {"category": "niche", "count": 1, "items": [{"posts": 1}]},
        }
    }


async def test_references_are_taken_out_before_things_are_put_together(world):
    world.fill(
        "shops",
        ("mugs", {"user_ids": ["ann", "nobody"]}),
        ("lamps", {"user_ids": ["nobody"]}),
        ("pens", {"member_ids": ["bob"]}),
    )
    world.fill("towns", ("rome", {"member_ids": ["nobody", "ann"]}))

    one = await world.plan(categories=("shops",), shape=JobShape.OBJECT)
    several = await world.plan(categories=("shops", "towns"), shape=JobShape.COMBINED)

    shops = [{"user_ids": ["ann"]}, {"member_ids": ["bob"]}]
    [item] = one.items
    assert orjson.loads(item.data_json)["items"] == shops
    [item] = several.items
    categories = orjson.loads(item.data_json)["categories"]
    assert (categories["shops"]["items"], categories["towns"]["items"]) == (
        shops,
        [{"member_ids": ["ann"]}],
    )
    assert several.request.reference_validation == ReferenceValidation(
        categories=CategoryCounts(total=4, valid=3, invalid=1),
        user_references=ReferenceCounts(total=6, valid=3, invalid=3),
        things=CategoryCounts(total=4, valid=3, invalid=1),
    )
    assert [(each.category, each.item_id) for each in several.invalid_references] == [
        ("shops", "mugs"),
        ("shops", "lamps"),
        ("towns", "rome"),
    ]


async def test_users_and_references_are_asked_about_together(world):
    items = (
        SelectedItem(item_id="a", user_id="ann", data_json='{"user_ids":["bob","nobody"]}'),
        SelectedItem(item_id="b", user_id="nobody", data_json="{}"),
    )

    plan = await world.plan(items=items)

    assert world.users.calls == [("ann", "nobody", "bob")]
    assert plan.request.user_validation == UserValidation(total=2, valid=1, invalid=1)
    assert [item.skip_reason for item in plan.items] == [None, "USER_NOT_FOUND"]


async def test_lists_in_the_data_of_users_are_data(world):
    items = (SelectedItem(item_id="ann", user_id=None, data_json='{"user_ids":["nobody"]}'),)

    plan = await world.plan(items=items, data_source=DataSource.USERS)

    assert [item.data_json for item in plan.items] == ['{"user_ids":["nobody"]}']
    assert plan.request.reference_validation == NOTHING_FOUND


async def test_an_invalid_user_whose_thing_is_left_out_of_an_object_is_named(world):
    world.fill("accounts", ("ann", {"n": 1}), ("nobody", {"n": 2}))

    plan = await world.plan(
        categories=("accounts",), shape=JobShape.OBJECT, data_source=DataSource.USERS
    )

    assert [(each.item_id, each.field) for each in plan.invalid_references] == [
        ("nobody", "user_id")
    ]


async def test_a_selection_of_nothing_is_a_batch_of_nothing(world):
    world.fill("accounts", ("a", {"n": 1}))

    for shape in (JobShape.INDIVIDUAL, JobShape.OBJECT):
        plan = await world.plan(categories=("accounts",), shape=shape, filters={"min_n": 2})
        assert plan.items == []


async def test_everything_that_is_unknown_is_told_at_once(world):
    refusal = await world.refusal(template_id="none", operation="paint", categories=("nowhere",))

    assert refusal == {
        "template_id": "UNKNOWN_TEMPLATE",
        "operation": "UNKNOWN_OPERATION",
        "category": "UNKNOWN_CATEGORY",
    }


async def test_an_operation_brings_its_template(world):
    plan = await world.plan(items=inline("a"), template_id="", operation="annotate")

    assert plan.request.template.template_id == "annotation"
    assert await world.refusal(items=inline("a"), template_id="") == {
        "template_id": "FIELD_VIOLATION"
    }


async def test_what_a_request_leaves_open_comes_from_the_server(world):
    asked = RequestedOptions(chunk_size=7, retry_limit=0, priority=Priority.HIGH)

    plan = await world.plan(items=inline("a"), options=asked)

    options = plan.request.options
    assert (options.chunk_size, options.retry.retry_limit, options.priority) == (
        7,
        0,
        Priority.HIGH,
    )
    assert options.item_timeout == timedelta(seconds=30)
    assert options.retry == RetryPolicy(retry_limit=0)
    assert (options.batch_timeout, options.failure_policy) == (None, None)


async def test_what_a_request_names_of_its_retries_goes_over_the_settings():
    world = World(retry=RetryPolicy(retry_limit=5, multiplier=4))
    asked = RequestedRetry(
        initial_backoff=timedelta(0), non_retryable_reasons=frozenset({"ACCOUNT_GONE"})
    )

    plan = await world.plan(items=inline("a"), options=RequestedOptions(retry=asked))

    assert plan.request.options.retry == RetryPolicy(
        retry_limit=5,
        initial_backoff=timedelta(0),
        multiplier=4,
        non_retryable_reasons=frozenset({"ACCOUNT_GONE"}),
    )


async def test_a_bound_on_time_and_failures_is_taken_over(world):
    policy = FailurePolicy(max_failed=3, action=FailureAction.FAIL)
    asked = RequestedOptions(batch_timeout=timedelta(hours=2), failure_policy=policy)

    plan = await world.plan(items=inline("a"), options=asked)

    assert plan.request.options.batch_timeout == timedelta(hours=2)
    assert plan.request.options.failure_policy == policy


@pytest.mark.parametrize("priority", [None, *Priority])
async def test_a_batch_keeps_the_handicap_that_the_settings_give_its_priority(priority):
    handicaps = {each: timedelta(hours=place) for place, each in enumerate(Priority)}
    world = World(handicaps=handicaps)

    plan = await world.plan(items=inline("a"), options=RequestedOptions(priority=priority))

    assert plan.request.options.handicap == handicaps[priority or Priority.MEDIUM]


async def test_an_object_that_is_too_large_is_refused_with_the_limit(world):
    world.fill("accounts", *((f"a{n}", {"text": "x" * 300_000}) for n in range(4)))

    with pytest.raises(InvalidArgument) as error:
        await world.plan(categories=("accounts",), shape=JobShape.OBJECT)

    assert error.value.reason == "PAYLOAD_TOO_LARGE"
    assert error.value.metadata["limit"] == str(1024 * 1024)


async def test_a_run_can_be_restricted_to_users(world):
    plan = await world.plan(
        items=inline("ann", "bob"), data_source=DataSource.USERS, user_ids=frozenset({"bob"})
    )

    assert [item.item_id for item in plan.items] == ["bob"]
