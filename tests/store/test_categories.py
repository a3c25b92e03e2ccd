"""What a selection finds, on every source of categories: the databases, and the fake."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from batchwork_server.domain.selection import (
    ActiveSince,
    Condition,
    CreatedBetween,
    Equality,
    LoadedItem,
    NumberBound,
    Order,
    Presence,
    Selection,
    TagsAny,
)
from batchwork_server.ports import CategoryRepository
from batchwork_server.store.categories import SqlCategories
from batchwork_server.store.database import Database, open_database

from tests.factories import TENANT, make_loaded_item
from tests.fakes import START, FakeCategories


class Source:
    """A source of categories, and how a test puts items into it."""

    def __init__(self, repository: CategoryRepository, database: Database | None) -> None:
        self.repository = repository
        self._database = database

    async def load(
        self, *items: LoadedItem, category: str = "things", tenant_id: str = TENANT, now=START
    ) -> None:
        if isinstance(self.repository, FakeCategories):
            self.repository.add(category, *items, tenant_id=tenant_id, now=now)
            return
        assert self._database is not None
        assert isinstance(self.repository, SqlCategories)
        async with self._database.transaction() as tx:
            await self.repository.load(
                tx, tenant_id=tenant_id, category=category, items=items, now=now
            )

    async def ids(
        self,
        *conditions: Condition,
        limit: int = 1000,
        order: Order | None = None,
        tenant_id=TENANT,
    ) -> list[str]:
        selection = Selection(category="things", conditions=conditions, limit=limit, order=order)
        selected = await self.repository.select(selection, tenant_id=tenant_id)
        return [item.item_id for item in selected]


@pytest.fixture(params=["fake", "sqlite", "postgresql"])
def source_url(request: pytest.FixtureRequest) -> str | None:
    if request.param == "fake":
        return None
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def source(source_url: str | None) -> AsyncIterator[Source]:
    """Runs the test on the fake and on each database."""
    if source_url is None:
        yield Source(FakeCategories(), None)
        return
    database = await open_database(source_url)
    yield Source(SqlCategories(database), database)
    await database.close()


VALUES = {
    "integer": "3",
    "float": "3.0",
    "half": "2.5",
    "large": "9007199254740993",
    "zero": "0",
    "number as text": '"3"',
    "text": '"blue"',
    "unicode": '"Größe"',
    "escaped": '"Gr\\u00f6\\u00dfe"',
    "quote": '"it\'s"',
    "true": "true",
    "false": "false",
    "null": "null",
    "empty text": '""',
    "empty list": "[]",
    "empty object": "{ }",
    "list": "[1]",
    "object": '{"a":1}',
}
"""One item for each value of the field `x`; in one more item it is absent."""


async def load_values(source: Source, key_json: str = '"x"') -> None:
    items = [
        make_loaded_item(name, data_json=f"{{{key_json}: {text}}}") for name, text in VALUES.items()
    ]
    await source.load(*items, make_loaded_item("absent", data_json="{}"))


FILLED = [
    "integer",
    "float",
    "half",
    "large",
    "zero",
    "number as text",
    "text",
    "unicode",
    "escaped",
    "quote",
    "true",
    "false",
    "list",
    "object",
]

CONDITIONS: dict[str, tuple[Condition, list[str]]] = {
    "at least a whole number": (
        NumberBound(field="x", minimum=3.0),
        ["integer", "float", "large"],
    ),
    "at most a decimal number": (NumberBound(field="x", maximum=2.5), ["half", "zero"]),
    "from and to": (
        NumberBound(field="x", minimum=2.5, maximum=3),
        ["integer", "float", "half"],
    ),
    "a bound of a field that nobody has": (NumberBound(field="y", minimum=0.0), []),
    "equals a number, however it is written": (
        Equality(field="x", values=(3.0,)),
        ["integer", "float"],
    ),
    "equals a number to the last digit": (
        Equality(field="x", values=(9007199254740993,)),
        ["large"],
    ),
    "equals zero, which is not false": (Equality(field="x", values=(0,)), ["zero"]),
    "equals a text, which is no number": (
        Equality(field="x", values=("3",)),
        ["number as text"],
    ),
    "equals a text with letters beyond ASCII": (
        Equality(field="x", values=("Größe",)),
        ["unicode", "escaped"],
    ),
    "equals a text with a quote": (Equality(field="x", values=("it's",)), ["quote"]),
    "equals the empty text": (Equality(field="x", values=("",)), ["empty text"]),
    "equals true, which is not 1": (Equality(field="x", values=(True,)), ["true"]),
    "equals false": (Equality(field="x", values=(False,)), ["false"]),
    "equals null, which is also absent": (
        Equality(field="x", values=(None,)),
        ["null", "absent"],
    ),
    "equals one of several kinds": (
        Equality(field="x", values=("blue", 2.5, True, None)),
        ["half", "text", "true", "null", "absent"],
    ),
    "text that looks like an empty list": (Equality(field="x", values=("[]",)), []),
    "is there": (Presence(field="x", present=True), FILLED),
    "is not there": (
        Presence(field="x", present=False),
        ["null", "empty text", "empty list", "empty object", "absent"],
    ),
}


@pytest.mark.parametrize(("condition", "expected"), CONDITIONS.values(), ids=[*CONDITIONS.keys()])
async def test_condition_finds_the_same_on_every_source(source, condition, expected):
    await load_values(source)

    found = await source.ids(condition)

    assert found == expected


@pytest.mark.parametrize(
    "field", ["a.b", 'say "x"', "it's", "größe", "$", "[0]", "back\\slash", ":x", "{}", "?", "%s"]
)
async def test_field_name_is_a_literal_key(source, field):
    await source.load(
        make_loaded_item("named", data={field: 7}),
        make_loaded_item("nested", data={"a": {"b": 7}, "x": 7}),
    )

    assert await source.ids(Equality(field=field, values=(7,))) == ["named"]


async def test_key_that_was_written_with_an_escape_is_the_same_key(source):
    await load_values(source, key_json='"\\u0078"')

    assert await source.ids(Equality(field="x", values=("blue",))) == ["text"]


async def test_of_a_key_that_stands_twice_the_last_one_counts(source):
    await source.load(make_loaded_item("twice", data_json='{"x":1,"x":2}'))

    assert await source.ids(Equality(field="x", values=(1,))) == []
    assert await source.ids(Equality(field="x", values=(2,))) == ["twice"]


async def test_field_called_has_answers_with_its_own_truth(source):
    await source.load(
        make_loaded_item("yes", data={"has_photo": True}),
        make_loaded_item("one", data={"has_photo": 1, "photo": ""}),
        make_loaded_item("no", data={"has_photo": False, "photo": "a.png"}),
        make_loaded_item("none", data={"has_photo": 0.0, "photo": "a.png"}),
        make_loaded_item("unknown", data={"has_photo": None, "photo": "a.png"}),
        make_loaded_item("only a photo", data={"photo": "a.png"}),
    )

    present = await source.ids(Presence(field="photo", present=True))
    absent = await source.ids(Presence(field="photo", present=False))

    assert present == ["yes", "one", "only a photo"]
    assert absent == ["no", "none", "unknown"]


async def test_tags_may_be_a_list_or_one_text(source):
    await source.load(
        make_loaded_item("list", data={"tags": ["red", "blue"]}),
        make_loaded_item("text", data={"tags": "blue"}),
        make_loaded_item("other", data={"tags": ["green"]}),
        make_loaded_item("object", data={"tags": {"blue": 1}}),
        make_loaded_item("number", data={"tags": [1, None]}),
        make_loaded_item("none", data={}),
    )

    assert await source.ids(TagsAny(tags=("blue", "violet"))) == ["list", "text"]


async def test_created_between_includes_its_start_and_not_its_end(source):
    days = [START + timedelta(days=number) for number in range(4)]
    await source.load(
        *(make_loaded_item(f"day {n}", create_time=day) for n, day in enumerate(days))
    )

    found = await source.ids(CreatedBetween(after=days[1], before=days[3]))

    assert found == ["day 1", "day 2"]


async def test_item_that_does_not_say_when_it_was_active_was_not(source):
    await source.load(
        make_loaded_item("silent"),
        make_loaded_item("old", active_time=START - timedelta(microseconds=1)),
        make_loaded_item("active", active_time=START),
    )

    assert await source.ids(ActiveSince(since=START)) == ["active"]


async def test_every_condition_must_hold_and_the_limit_counts_what_is_left(source):
    await source.load(
        *(make_loaded_item(f"item-{n}", data={"n": n, "even": n % 2 == 0}) for n in range(10))
    )

    found = await source.ids(
        NumberBound(field="n", minimum=2), Equality(field="even", values=(True,)), limit=3
    )

    assert found == ["item-2", "item-4", "item-6"]


async def test_item_that_comes_again_keeps_its_place_and_its_creation_time(source):
    later = START + timedelta(days=1)
    await source.load(make_loaded_item("first"), make_loaded_item("second"))

    await source.load(
        make_loaded_item("second"),
        make_loaded_item("first", data={"n": 2}, user_id="ann"),
        now=later,
    )

    assert await source.ids() == ["first", "second"]
    assert await source.ids(CreatedBetween(after=later)) == []
    assert await source.ids(Equality(field="n", values=(2,))) == ["first"]


async def test_new_creation_time_replaces_the_old_one(source):
    later = START + timedelta(days=1)
    await source.load(make_loaded_item("first"))

    await source.load(make_loaded_item("first", create_time=later), now=START)

    assert await source.ids(CreatedBetween(after=later)) == ["first"]


async def test_of_several_items_with_one_id_the_last_counts(source):
    await source.load(
        make_loaded_item("same", data={"n": 1}), make_loaded_item("same", data={"n": 2})
    )

    assert await source.ids(Equality(field="n", values=(2,))) == ["same"]


async def test_selected_item_comes_back_as_it_was_loaded(source):
    text = '{ "b": 1.50,  "a": "\\u00e9" }'
    await source.load(make_loaded_item("spaced", data_json=text, user_id="ann"))

    [item] = await source.repository.select(Selection(category="things"), tenant_id=TENANT)

    assert (item.item_id, item.user_id, item.data_json) == ("spaced", "ann", text)


async def load_ranked(source: Source) -> None:
    ranks = {"b": "2", "text": '"10"', "none": None, "a": "10", "Z": '"Z"', "ä": '"ä"', "c": "2.0"}
    for item_id, rank in ranks.items():
        data_json = "{}" if rank is None else f'{{"rank": {rank}}}'
        await source.load(make_loaded_item(item_id, data_json=data_json))


async def test_an_order_puts_numbers_before_texts_and_what_has_neither_last(source):
    await load_ranked(source)

    assert await source.ids(order=Order(field="rank")) == ["b", "c", "a", "text", "Z", "ä", "none"]


async def test_the_other_way_around_what_has_neither_is_last_all_the_same(source):
    await load_ranked(source)

    falling = Order(field="rank", descending=True)

    assert await source.ids(order=falling) == ["a", "b", "c", "ä", "Z", "text", "none"]
    assert await source.ids(order=falling, limit=2) == ["a", "b"]


async def of_users(source, *user_ids: str, **selection) -> dict[str, list[str]]:
    wanted = Selection(category="things", **selection)
    found = await source.repository.select_of_users(wanted, user_ids, tenant_id=TENANT)
    return {user_id: [item.item_id for item in items] for user_id, items in found.items()}


async def test_things_of_users_are_theirs_or_themselves(source):
    await source.load(
        make_loaded_item("ann"),
        make_loaded_item("photo", user_id="ann"),
        make_loaded_item("bob"),
        make_loaded_item("song", user_id="eve"),
        make_loaded_item("eve", user_id="bob"),
    )

    assert await of_users(source, "ann", "eve") == {"ann": ["ann", "photo"], "eve": ["song"]}
    assert await of_users(source, "nobody") == {}


async def test_each_user_has_as_many_things_as_the_limit_allows(source):
    # The story: one limit for all users together gave everything to those who stood first.
    await source.load(
        *(make_loaded_item(f"a{n}", user_id="ann", data={"rank": n}) for n in range(4)),
        *(make_loaded_item(f"b{n}", user_id="bob", data={"rank": -n}) for n in range(2)),
        make_loaded_item("bob", data={"rank": "none"}),
    )
    falling = Order(field="rank", descending=True)
    few = NumberBound(field="rank", maximum=2)

    assert await of_users(source, "ann", "bob", limit=1) == {"ann": ["a0"], "bob": ["b0"]}
    assert await of_users(source, "ann", "bob", limit=2, order=falling, conditions=(few,)) == {
        "ann": ["a2", "a1"],
        "bob": ["b0", "b1"],
    }


async def test_tenants_do_not_see_each_other(source):
    await source.load(make_loaded_item("ours"))
    await source.load(make_loaded_item("theirs", data={"secret": 1}), tenant_id="other")
    await source.load(make_loaded_item("more"), category="hidden", tenant_id="other")

    assert await source.ids() == ["ours"]
    assert await source.ids(tenant_id="other") == ["theirs"]
    assert await source.repository.categories(tenant_id=TENANT) == ["things"]
    assert await source.repository.field_names("things", tenant_id=TENANT) == []
    assert not await source.repository.exists("hidden", tenant_id=TENANT)


async def test_category_tells_its_names(source):
    await source.load(make_loaded_item(data={"b": 1, "ä": 2}), make_loaded_item(data={"a": 1}))
    await source.load(make_loaded_item(), category="Zebras")

    assert await source.repository.exists("things", tenant_id=TENANT)
    assert await source.repository.categories(tenant_id=TENANT) == ["Zebras", "things"]
    assert await source.repository.field_names("things", tenant_id=TENANT) == ["a", "b", "ä"]


async def test_database_counts_the_items_of_a_category(store):
    async with store.transaction() as tx:
        await store.categories.load(
            tx,
            tenant_id=TENANT,
            category="things",
            items=[make_loaded_item(), make_loaded_item()],
            now=START,
        )

    assert await store.categories.count("things", tenant_id=TENANT) == 2
    assert await store.categories.count("things", tenant_id="other") == 0


async def test_pages_follow_each_other_in_the_order_of_the_category(source: Source):
    items = (make_loaded_item(f"thing-{number}", data={"n": number}) for number in range(7))
    await source.load(*items)
    selection = Selection(category="things", conditions=(NumberBound(field="n", minimum=2),))

    pages, after = [], None
    while True:
        page, after = await source.repository.page(
            selection, tenant_id=TENANT, page_size=2, after=after
        )
        pages.append([item.item_id for item in page])
        if after is None:
            break

    assert pages == [["thing-2", "thing-3"], ["thing-4", "thing-5"], ["thing-6"]]
    assert await source.repository.page(selection, tenant_id="other", page_size=2) == ([], None)
