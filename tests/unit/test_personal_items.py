"""What each user gets of what a preference-based job selects."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from batchwork_server.application.personal_items import PersonalItems
from batchwork_server.application.validation import Validation
from batchwork_server.domain.batch import UserValidation
from batchwork_server.domain.declared_overrides import DeclaredOverride, DeclaredOverrides
from batchwork_server.domain.job import DataSource, JobShape, PreferenceSource
from batchwork_server.domain.personal import chosen_categories, personal_selection
from batchwork_server.domain.preference import Preference
from batchwork_server.domain.reference_validation import (
    NOTHING_FOUND,
    CategoryCounts,
    ReferenceCounts,
    ReferenceValidation,
)
from batchwork_server.domain.selection import (
    NumberBound,
    Order,
    Selection,
    TagsAny,
    parse_filters,
)
from batchwork_server.domain.submission import Submission
from batchwork_server.domain.user import UsersAway
from batchwork_server.planners import preference as planner
from batchwork_server.planners.preference import MembersItem

from tests.factories import TENANT, make_loaded_item
from tests.fakes import START, FakeCategories, FakeUsers

POSTS = (
    ("p1", {"engagement": 2.0, "popularity": 10, "tags": ["trendy"]}),
    ("p2", {"engagement": 4.0, "popularity": 30, "tags": ["trendy", "seasonal"]}),
    ("p3", {"engagement": 5.0, "popularity": 20, "tags": ["plain"]}),
    ("p4", {"engagement": 9.0, "popularity": 5, "tags": ["seasonal"]}),
)
GUIDE = {
    "tone": "professional",
    "length": "medium",
    "categories": ["fashion", "beauty"],
    "tags": ["trendy", "seasonal"],
    "focus_areas": ["engagement", "growth"],
    "sort_by": "popularity",
    "sort_order": "desc",
    "item_limit": 10,
    "custom_filters": {"min_engagement": 3.5},
}


class CountingCategories(FakeCategories):
    """Counts the queries."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = 0

    async def select(self, selection, *, tenant_id):
        self.queries += 1
        return await super().select(selection, tenant_id=tenant_id)

    async def select_of_users(self, selection, user_ids, *, tenant_id):
        self.queries += 1
        return await super().select_of_users(selection, user_ids, tenant_id=tenant_id)


class World:
    """Categories and users in memory, and a run over them."""

    def __init__(self) -> None:
        self.categories = CountingCategories()
        self.categories.add("posts", *(make_loaded_item(i, data=data) for i, data in POSTS))
        self.users = FakeUsers("ann", "bob", "eve")

    def run(
        self,
        *categories: str,
        shape: JobShape = JobShape.INDIVIDUAL,
        data_source: DataSource = DataSource.CATEGORIES,
        limit: int = 1000,
        declared: DeclaredOverrides | None = None,
        **filters: Any,
    ) -> PersonalItems:
        selections = [
            parse_filters(filters, category=category, limit=limit, now=START)[0]
            for category in categories
        ]
        return PersonalItems(
            Submission(
                categories=categories,
                shape=shape,
                data_source=data_source,
                preference_source=PreferenceSource.DYNAMIC,
                feature_type="digest",
            ),
            selections,
            declared=declared,
            tenant_id=TENANT,
            categories=self.categories,
            validation=Validation(self.users),
            now=START,
            away=UsersAway.FAIL,
        )


@pytest.fixture
def world() -> World:
    return World()


def wish(user_id: str, **overrides: Any) -> Preference:
    return Preference(
        tenant_id=TENANT,
        user_id=user_id,
        feature_type="digest",
        enabled=True,
        schedule=None,
        template_overrides=overrides,
        revision=1,
        create_time=START,
        update_time=START,
    )


def data_of(planned: MembersItem) -> Any:
    return orjson.loads(planned.item.data_json)


def popularities(planned: MembersItem) -> list[int]:
    return [thing["popularity"] for thing in data_of(planned)["items"]]


def test_the_overrides_of_the_guide_narrow_order_and_bound_a_selection():
    selection, violations = personal_selection(
        Selection(category="posts", conditions=(NumberBound(field="likes", minimum=1),), limit=500),
        GUIDE,
        fields={"likes", "engagement", "popularity", "tags"},
        now=START,
    )

    assert violations == []
    assert selection == Selection(
        category="posts",
        conditions=(
            NumberBound(field="likes", minimum=1),
            NumberBound(field="engagement", minimum=3.5),
            TagsAny(tags=("trendy", "seasonal")),
        ),
        limit=10,
        order=Order(field="popularity", descending=True),
    )


def test_what_a_category_does_not_have_is_not_asked_of_it():
    base = Selection(category="posts", limit=5)

    selection, violations = personal_selection(base, GUIDE, fields={"title"}, now=START)

    assert violations == []
    assert selection == base


def test_the_limit_of_the_job_bounds_that_of_the_user():
    base = Selection(category="posts", limit=3)

    assert personal_selection(base, {"item_limit": 10}, fields=(), now=START)[0].limit == 3
    assert personal_selection(base, {"item_limit": 2.0}, fields=(), now=START)[0].limit == 2
    narrowed = {"item_limit": 2, "custom_filters": {"max_items": 1}}
    assert personal_selection(base, narrowed, fields=(), now=START)[0].limit == 1


def test_every_override_that_is_wrong_is_named():
    _, violations = personal_selection(
        Selection(category="posts"),
        {
            "item_limit": 0,
            "sort_by": "a b",
            "sort_order": "up",
            "custom_filters": {"min_likes": "many"},
        },
        fields={"likes"},
        now=START,
    )

    assert sorted(violation.path for violation in violations) == [
        "template_overrides.custom_filters.min_likes",
        "template_overrides.item_limit",
        "template_overrides.sort_by",
        "template_overrides.sort_order",
    ]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (None, ("a", "b", "c")),
        (["c", "a"], ("a", "c")),
        (["a", "elsewhere"], ("a",)),
        (["fashion"], ("a", "b", "c")),
        ("a", ("a", "b", "c")),
    ],
)
def test_a_user_chooses_among_the_categories_of_the_job(wanted, chosen):
    assert chosen_categories({"categories": wanted}, ("a", "b", "c")) == chosen


async def test_what_a_user_leaves_open_is_as_the_template_says(world):
    tone = DeclaredOverride(default="casual", choices=("casual", "formal"))
    run = world.run("posts", declared={"tone": tone, "item_limit": DeclaredOverride(default=1)})

    planned = await run.plan([wish("ann"), wish("bob", tone="formal"), wish("eve", tone="rude")])

    assert [data_of(each)["template_overrides"] for each in planned] == [
        {"tone": "casual", "item_limit": 1},
        {"tone": "formal", "item_limit": 1},
        {"tone": "casual", "item_limit": 1},
    ]
    assert [len(data_of(each)["items"]) for each in planned] == [1, 1, 1]


async def test_each_user_gets_what_they_wish_in_their_order(world):
    ann, bob = await world.run("posts").plan(
        [
            wish("ann", sort_by="popularity", sort_order="desc", item_limit=2),
            wish("bob", tags=["seasonal"], tone="dry"),
        ]
    )

    assert popularities(ann) == [30, 20]
    assert popularities(bob) == [30, 5]
    assert data_of(bob)["template_overrides"] == {"tags": ["seasonal"], "tone": "dry"}
    assert (bob.item.item_id, bob.item.user_id, bob.user_ids) == ("bob", "bob", ("bob",))


async def test_the_filters_of_the_job_hold_for_everybody(world):
    [ann] = await world.run("posts", min_engagement=5).plan([wish("ann", tags=["seasonal"])])

    assert popularities(ann) == [5]


async def test_users_who_wish_the_same_share_a_query(world):
    run = world.run("posts")

    await run.plan([wish("ann", tags=["trendy"], tone="dry"), wish("bob", tags=["trendy"])])
    await run.plan([wish("eve", tags=["trendy"])])

    assert world.categories.queries == 1


async def test_the_limit_of_a_user_bounds_all_categories_together(world):
    world.categories.add("songs", make_loaded_item("s1", data={"popularity": 99}))

    [ann] = await world.run("posts", "songs", limit=3).plan([wish("ann", item_limit=4)])
    [bob] = await world.run("posts", "songs", limit=3).plan([wish("bob", item_limit=3)])

    assert popularities(ann) == [10, 30, 20, 99]
    assert popularities(bob) == [10, 30, 20]


async def test_who_gets_nothing_is_skipped_and_told_why(world):
    world.users.add("ida", active=False)
    run = world.run("posts")

    planned = await run.plan(
        [
            wish("ann"),
            wish("bob", tags=["gothic"]),
            wish("eve", item_limit="many"),
            wish("ida"),
            wish("zoe"),
        ],
        skipped={"ann": "ALREADY_DONE"},
    )

    assert {each.item.item_id: each.item.skip_reason for each in planned} == {
        "ann": "ALREADY_DONE",
        "bob": "NOTHING_SELECTED",
        "eve": "INVALID_PREFERENCE",
        "ida": "USER_INACTIVE",
        "zoe": "USER_NOT_FOUND",
    }
    assert run.users == UserValidation(total=5, valid=3, invalid=2)


async def test_a_job_without_categories_hands_over_the_wish_alone(world):
    [ann] = await world.run(data_source=DataSource.USERS).plan([wish("ann", tone="dry")])

    assert ann.item.skip_reason is None
    assert data_of(ann) == {"user_id": "ann", "template_overrides": {"tone": "dry"}, "items": []}


async def test_where_the_things_are_users_each_gets_their_own(world):
    world.categories.add(
        "users",
        make_loaded_item("ann", data={"followers": 5000}),
        make_loaded_item("bob", data={"followers": 10}),
        make_loaded_item("card", data={"followers": 7000}, user_id="ann"),
    )
    run = world.run("users", data_source=DataSource.USERS, min_followers=1000)

    ann, bob = await run.plan([wish("ann"), wish("bob")])

    assert data_of(ann)["items"] == [{"followers": 5000}, {"followers": 7000}]
    assert bob.item.skip_reason == "NOTHING_SELECTED"


FOLLOWED = (
    *((f"a{n}", "ann", {"followers": n * 100, "tags": ["near", "old"][n % 2]}) for n in range(6)),
    *((f"b{n}", "bob", {"followers": n, "tags": "near"}) for n in range(3)),
)


def add_followed(world: World, category: str = "users") -> None:
    things = (make_loaded_item(i, user_id=user, data=data) for i, user, data in FOLLOWED)
    world.categories.add(category, *things)


def followers(planned: MembersItem) -> list[int]:
    return [thing["followers"] for thing in data_of(planned)["items"]]


async def test_where_the_things_are_users_nobody_takes_what_is_for_another(world):
    # The story: one limit for all together gave both things to ann, who stands first, and bob got
    # nothing.
    add_followed(world)

    ann, bob = await world.run("users", data_source=DataSource.USERS, limit=1).plan(
        [wish("ann"), wish("bob")]
    )

    assert (followers(ann), followers(bob)) == ([0], [0])


async def test_where_the_things_are_users_the_wish_of_each_counts(world):
    add_followed(world)
    run = world.run("users", data_source=DataSource.USERS)
    falling = {"sort_by": "followers", "sort_order": "desc"}

    planned = [
        (await run.plan([wish("ann", **overrides), wish("bob")]))[0]
        for overrides in (
            {"item_limit": 2},
            {"item_limit": 2, **falling},
            {"tags": ["old"]},
            {"custom_filters": {"max_followers": 250}},
            {"custom_filters": {"max_followers": 450}, "tags": ["near"], **falling},
        )
    ]

    assert [followers(each) for each in planned] == [
        [0, 100],
        [500, 400],
        [100, 300, 500],
        [0, 100, 200],
        [400, 200, 0],
    ]


async def test_where_the_things_are_users_a_wrong_wish_is_told(world):
    add_followed(world)
    run = world.run("users", data_source=DataSource.USERS)

    ann, bob = await run.plan([wish("ann", item_limit="many"), wish("bob", tags=["old"])])

    assert (ann.item.skip_reason, bob.item.skip_reason) == (
        "INVALID_PREFERENCE",
        "NOTHING_SELECTED",
    )


async def test_where_the_things_are_users_each_chooses_among_the_categories(world):
    add_followed(world, "near")
    add_followed(world, "far")
    run = world.run("near", "far", data_source=DataSource.USERS, limit=5)

    ann, bob = await run.plan([wish("ann", categories=["far"]), wish("bob", item_limit=4)])

    assert followers(ann) == [0, 100, 200, 300, 400]
    assert followers(bob) == [0, 1, 2, 0]


async def test_users_who_wish_the_same_share_a_query_for_their_own_things(world):
    add_followed(world)
    run = world.run("users", data_source=DataSource.USERS)

    await run.plan([wish("ann", tone="dry"), wish("bob"), wish("eve", item_limit=1)])

    assert world.categories.queries == 2


async def test_users_together_are_one_item_with_the_wish_of_each(world):
    run = world.run(shape=JobShape.OBJECT, data_source=DataSource.USERS)

    [together] = await run.plan([wish("ann", tone="dry"), wish("nobody"), wish("bob")])

    assert together.user_ids == ("ann", "bob")
    assert together.item.user_id is None
    assert data_of(together) == {
        "count": 2,
        "users": [
            {"user_id": "ann", "template_overrides": {"tone": "dry"}, "items": []},
            {"user_id": "bob", "template_overrides": {}, "items": []},
        ],
    }


async def test_an_item_for_many_users_ends_when_it_is_large(world, monkeypatch):
    run = world.run("posts", shape=JobShape.OBJECT, data_source=DataSource.USERS)
    world.categories.add("posts", *(make_loaded_item(user) for user in ("ann", "bob", "eve")))
    everybody = [wish("ann"), wish("bob"), wish("eve")]

    monkeypatch.setattr(planner, "MOST_MEMBERS", 2)
    assert [each.user_ids for each in await run.plan(everybody)] == [("ann", "bob"), ("eve",)]

    monkeypatch.setattr(planner, "LARGEST_TOGETHER", 10)
    assert len({each.item.item_id for each in await run.plan(everybody)}) == 3


async def test_whole_categories_are_made_once_for_all_who_wish_the_same(world):
    run = world.run("posts", shape=JobShape.OBJECT)

    trendy, plain = await run.plan(
        [wish("ann", tags=["trendy"]), wish("bob", tags=["plain"]), wish("eve", tags=["trendy"])]
    )

    assert (trendy.user_ids, plain.user_ids) == (("ann", "eve"), ("bob",))
    assert trendy.item.item_id != plain.item.item_id
    found = data_of(trendy)
    assert found["user_ids"] == ["ann", "eve"]
    assert found["template_overrides"] == {"tags": ["trendy"]}
    assert found["categories"]["posts"]["count"] == 2


SHOPS = (
    ("mugs", {"popularity": 3, "user_ids": ["ann", "nobody"]}),
    ("lamps", {"popularity": 2, "member_ids": ["nobody"]}),
    ("pens", {"popularity": 1}),
)


async def test_references_are_taken_out_of_what_users_get(world):
    world.categories.add("shops", *(make_loaded_item(i, data=data) for i, data in SHOPS))
    run = world.run("shops")

    [ann, bob] = await run.plan([wish("ann"), wish("bob")])

    left = [{"popularity": 3, "user_ids": ["ann"]}, {"popularity": 1}]
    assert data_of(ann)["items"] == data_of(bob)["items"] == left
    assert run.references.found == ReferenceValidation(
        categories=CategoryCounts(total=3, valid=2, invalid=1),
        user_references=ReferenceCounts(total=3, valid=1, invalid=2),
        things=CategoryCounts(total=3, valid=2, invalid=1),
    )
    assert [each.item_id for each in run.references.invalid] == ["mugs", "lamps"]


async def test_what_is_selected_once_for_many_users_is_counted_once(world):
    world.categories.add("shops", *(make_loaded_item(i, data=data) for i, data in SHOPS))
    run = world.run("shops")
    await run.plan([wish("ann")])

    await run.plan([wish("bob")])

    assert run.references.found == NOTHING_FOUND
    run.forget()
    await run.plan([wish("bob")])
    assert run.references.found.user_references.total == 3
