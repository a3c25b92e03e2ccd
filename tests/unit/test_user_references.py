"""Users whom the things of categories list: what is taken out, and what is counted."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from batchwork_server.domain.reference_validation import (
    NO_VALID_USERS,
    CategoryCounts,
    InvalidReference,
    ReferenceCounts,
)
from batchwork_server.domain.user import UserVerdict
from batchwork_server.planners.user_references import Judged, UserReferences, is_remnant

from tests.factories import make_item

VERDICTS = {
    "ann": UserVerdict.VALID,
    "bob": UserVerdict.VALID,
    "eve": UserVerdict.INACTIVE,
    "nobody": UserVerdict.NOT_FOUND,
    "whoever": UserVerdict.UNKNOWN,
}


def judged(*data: Any) -> Judged:
    """Judges things that are called a, b, c."""
    things = [make_item("abc"[place], data=value) for place, value in enumerate(data)]
    return UserReferences({"shops": things}).judged(VERDICTS)


def data_of(found: Judged) -> list[Any]:
    return [json.loads(thing.data_json) for thing in found.groups["shops"]]


def test_valid_references_stay_and_the_others_are_taken_out():
    found = judged({"name": "Mugs", "user_ids": ["nobody", "ann", "eve", "bob"]})

    assert data_of(found) == [{"name": "Mugs", "user_ids": ["ann", "bob"]}]
    assert found.groups["shops"][0].skip_reason is None
    assert found.found.user_references == ReferenceCounts(total=4, valid=2, invalid=2)
    assert found.found.categories == CategoryCounts(total=1, valid=1)
    assert [(each.item_id, each.user_id, each.verdict) for each in found.invalid] == [
        ("a", "nobody", "NOT_FOUND"),
        ("a", "eve", "INACTIVE"),
    ]


def test_both_lists_are_looked_at_and_a_name_counts_as_often_as_it_stands_there():
    found = judged({"user_ids": ["ann", "ann"], "member_ids": ["eve"]})

    assert data_of(found) == [{"user_ids": ["ann", "ann"], "member_ids": []}]
    assert found.found.user_references == ReferenceCounts(total=3, valid=2, invalid=1)
    assert found.invalid == [
        InvalidReference(
            category="shops",
            item_id="a",
            field="member_ids",
            user_id="eve",
            verdict=UserVerdict.INACTIVE,
        )
    ]


def test_a_thing_whose_users_are_all_invalid_is_not_to_be_worked_on():
    found = judged({"user_ids": ["nobody"], "member_ids": ["eve"]}, {"user_ids": ["ann"]})

    assert [thing.skip_reason for thing in found.groups["shops"]] == [NO_VALID_USERS, None]
    assert found.found.categories == CategoryCounts(total=2, valid=1, invalid=1)


@pytest.mark.parametrize(
    ("own", "lists", "counted"),
    [
        pytest.param(None, None, "valid", id="nobody"),
        pytest.param("ann", ["nobody"], "invalid", id="none of the list"),
        pytest.param("nobody", ["ann"], "invalid", id="not its own"),
        pytest.param("nobody", ["nobody"], "invalid", id="neither, once"),
        pytest.param("nobody", ["whoever"], "invalid", id="not its own, unknown list"),
        pytest.param("whoever", ["nobody"], "invalid", id="unknown owner, none of the list"),
        pytest.param("whoever", None, "unknown", id="unknown owner"),
        pytest.param("whoever", ["ann"], "unknown", id="unknown owner, valid list"),
        pytest.param("ann", ["whoever"], "unknown", id="unknown list"),
        pytest.param("ann", ["ann", "nobody"], "valid", id="valid"),
    ],
)
def test_a_thing_counts_once_by_everybody_whom_it_names(own, lists, counted):
    thing = make_item("a", user_id=own, data={} if lists is None else {"user_ids": lists})

    found = UserReferences({"": [thing]}).judged(VERDICTS).found

    assert found.things == CategoryCounts(total=1, **{counted: 1})


def test_a_reference_of_whom_nobody_knows_is_kept_and_counted_apart():
    found = judged({"user_ids": ["whoever", "nobody"]})

    assert data_of(found) == [{"user_ids": ["whoever"]}]
    assert found.groups["shops"][0].skip_reason is None
    assert found.found.user_references == ReferenceCounts(total=2, invalid=1, unknown=1)


@pytest.mark.parametrize(
    ("value", "shown", "left"),
    [
        pytest.param(["ann", 7], "7", ["ann"], id="number"),
        pytest.param(["ann", None], "null", ["ann"], id="null"),
        pytest.param(["ann", {"id": "bob"}], '{"id":"bob"}', ["ann"], id="object"),
        pytest.param("ann", '"ann"', [], id="text instead of a list"),
        pytest.param({"ann": True}, '{"ann":true}', [], id="object instead of a list"),
        pytest.param(["ann", ["x" * 500]], '["' + "x" * 126, ["ann"], id="long"),
    ],
)
def test_what_is_no_user_id_is_malformed(value, shown, left):
    found = judged({"user_ids": value})

    assert data_of(found) == [{"user_ids": left}]
    [invalid] = found.invalid
    assert (invalid.user_id, invalid.verdict) == (shown, UserVerdict.MALFORMED)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param({"name": "Mugs"}, id="none"),
        pytest.param({"user_ids": []}, id="an empty list"),
        pytest.param({"user_ids": None}, id="null"),
        pytest.param({"owner": {"user_ids": ["nobody"]}}, id="deeper"),
        pytest.param([{"user_ids": ["nobody"]}], id="no object"),
        pytest.param('the "user_ids"', id="in a text"),
    ],
)
def test_a_thing_without_references_is_valid_and_stays_as_it_is(data):
    thing = make_item("a", data=data)

    found = UserReferences({"": [thing]}).judged({})

    assert found.groups[""] == [thing]
    assert found.found.categories == CategoryCounts(total=1, valid=1)
    assert not found.found.names_users


def test_data_of_which_nothing_is_taken_out_stays_to_the_letter():
    thing = make_item("a", data={})
    thing.data_json = '{ "price": 1e2, "user_ids": [ "ann" ] }'

    found = UserReferences({"": [thing]}).judged(VERDICTS)

    assert found.groups[""][0].data_json == '{ "price": 1e2, "user_ids": [ "ann" ] }'


@pytest.mark.parametrize(
    ("text", "left"),
    [
        pytest.param(
            '{"n": 123456789012345678901, "user_ids": ["nobody", "ann"]}',
            '{"n": 123456789012345678901, "user_ids": ["ann"]}',
            id="a whole number beyond 64 bits",
        ),
        pytest.param(
            '{"user_ids":["nobody","ann"],"n":1.10, "m":1e2}',
            '{"user_ids":["ann"],"n":1.10, "m":1e2}',
            id="numbers as they were written",
        ),
        pytest.param(
            '{"a": {"user_ids": ["nobody"]}, "b": "\\"}, \\"user_ids\\": [", "user_ids": "ann"}',
            '{"a": {"user_ids": ["nobody"]}, "b": "\\"}, \\"user_ids\\": [", "user_ids": []}',
            id="what only looks like a list",
        ),
        pytest.param(
            '{"user\\u005fids": ["nobody", "ann"], "member_ids": []}',
            '{"user\\u005fids": ["ann"], "member_ids": []}',
            id="an escaped name",
        ),
        pytest.param(
            '{"user_ids": ["bob"], "user_ids": ["nobody", "ann"]}',
            '{"user_ids": ["ann"], "user_ids": ["ann"]}',
            id="a list twice",
        ),
    ],
)
def test_around_what_is_taken_out_everything_stays_to_the_letter(text, left):
    """Numbers beyond 64 bits became others, as all of the data was written anew."""
    thing = replace(make_item("a"), data_json=text)

    [found] = UserReferences({"": [thing]}).judged(VERDICTS).groups[""]

    assert found.data_json == left


@pytest.mark.parametrize("depth", [300, 1000])
def test_data_that_is_nested_deep_loses_its_references_all_the_same(depth):
    """It could be read, but not be written again."""
    deep = "[" * depth + "]" * depth
    thing = replace(make_item("a"), data_json=f'{{"n": {deep}, "user_ids": [{deep}, "ann"]}}')

    judged = UserReferences({"": [thing]}).judged(VERDICTS)

    assert judged.groups[""][0].data_json == f'{{"n": {deep}, "user_ids": ["ann"]}}'
    assert [each.user_id for each in judged.invalid] == ["[" * 128]


def test_each_user_is_asked_about_once():
    things = [make_item(data={"user_ids": ["ann", "eve"], "member_ids": ["ann", 7]})] * 2

    assert UserReferences({"": things}).user_ids == ["ann", "eve"]


@pytest.mark.parametrize(
    ("stored", "is_left"),
    [
        pytest.param({"n": 1, "user_ids": ["ann"]}, True, id="some taken out"),
        pytest.param({"n": 1, "user_ids": []}, True, id="all taken out"),
        pytest.param({"n": 1, "user_ids": ["ann", "eve"]}, True, id="nothing taken out"),
        pytest.param({"n": 2, "user_ids": ["ann"]}, False, id="other data"),
        pytest.param({"n": 1, "user_ids": ["bob"]}, False, id="another user"),
        pytest.param({"n": 1}, False, id="no list"),
    ],
)
def test_what_is_left_of_data_is_known_again(stored, is_left):
    given = json.dumps({"n": 1, "user_ids": ["ann", "eve"]})

    assert is_remnant(json.dumps(stored), given) is is_left


def test_what_is_left_of_data_that_is_nested_deep_is_known_again():
    deep = "[" * 1000 + "]" * 1000

    assert is_remnant(
        f'{{"n": {deep}, "user_ids": ["ann"]}}', f'{{"n": {deep}, "user_ids": ["ann", {deep}]}}'
    )
