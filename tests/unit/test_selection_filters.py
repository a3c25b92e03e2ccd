"""Filters as the documents have them, and the selections that they become."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from batchwork_server.domain.selection import (
    ActiveSince,
    Condition,
    CreatedBetween,
    Equality,
    NumberBound,
    Presence,
    Selection,
    TagsAny,
    field_of_filter,
    parse_filters,
)
from batchwork_server.errors import Violation

from tests.fakes import START


def parse(filters: dict[str, Any], *, limit: int = 1000) -> tuple[Selection, list[Violation]]:
    return parse_filters(filters, category="users", limit=limit, now=START)


@pytest.mark.parametrize(
    "filters, condition",
    [
        pytest.param(
            {"min_followers": 1000}, NumberBound(field="followers", minimum=1000), id="minimum"
        ),
        pytest.param(
            {"max_engagement": 3.5}, NumberBound(field="engagement", maximum=3.5), id="maximum"
        ),
        pytest.param(
            {"min_posts": 1, "max_posts": 9},
            NumberBound(field="posts", minimum=1, maximum=9),
            id="two bounds are one condition",
        ),
        pytest.param(
            {"has_profile_pic": True}, Presence(field="profile_pic", present=True), id="presence"
        ),
        pytest.param({"has_bio": False}, Presence(field="bio", present=False), id="absence"),
        pytest.param(
            {"created_after": "2023-01-01"},
            CreatedBetween(after=datetime(2023, 1, 1, tzinfo=UTC)),
            id="a date is midnight in UTC",
        ),
        pytest.param(
            {
                "created_after": "2023-01-01T09:30:00",
                "created_before": "2023-01-01T12:00:00+02:00",
            },
            CreatedBetween(
                after=datetime(2023, 1, 1, 9, 30, tzinfo=UTC),
                before=datetime(2023, 1, 1, 10, tzinfo=UTC),
            ),
            id="a time without a zone is UTC, one with a zone is converted",
        ),
        pytest.param(
            {"active_last_days": 30.0},
            ActiveSince(since=START - timedelta(days=30)),
            id="activity counts back from now",
        ),
        pytest.param(
            {"tags": ["fashion", "beauty"]}, TagsAny(tags=("fashion", "beauty")), id="tags"
        ),
        pytest.param({"tags": "fashion"}, TagsAny(tags=("fashion",)), id="one tag"),
        pytest.param({"country": "BR"}, Equality(field="country", values=("BR",)), id="equality"),
        pytest.param(
            {"country": ["BR", None]}, Equality(field="country", values=("BR", None)), id="any of"
        ),
    ],
)
def test_each_filter_of_the_documents_becomes_a_condition(
    filters: dict[str, Any], condition: Condition
) -> None:
    assert parse(filters) == (Selection(category="users", conditions=(condition,)), [])


@pytest.mark.parametrize(
    "limit, max_items, bound",
    [(10, 500, 10), (500, 10, 10), (500, 10.0, 10)],
    ids=["limit is smaller", "max_items is smaller", "max_items as a float"],
)
def test_the_smaller_of_limit_and_max_items_wins(limit: int, max_items: float, bound: int) -> None:
    selection, violations = parse({"max_items": max_items}, limit=limit)

    assert violations == []
    assert (selection.conditions, selection.limit) == ((), bound)


@pytest.mark.parametrize(
    "filters, path",
    [
        pytest.param({"min_followers": "many"}, "filters.min_followers", id="text as a bound"),
        pytest.param({"min_followers": True}, "filters.min_followers", id="true as a bound"),
        pytest.param({"min_followers": None}, "filters.min_followers", id="null as a bound"),
        pytest.param({"min_followers": 2**63}, "filters.min_followers", id="beyond 64 bits"),
        pytest.param({"max_x": float("nan")}, "filters.max_x", id="not a number"),
        pytest.param({"min_x": 2, "max_x": 1}, "filters.min_x", id="bounds the wrong way round"),
        pytest.param({"has_bio": "yes"}, "filters.has_bio", id="presence as text"),
        pytest.param({"created_after": "soon"}, "filters.created_after", id="no date"),
        pytest.param({"created_before": 2023}, "filters.created_before", id="year as a number"),
        pytest.param(
            {"created_before": "9999-12-31T23:59:59-12:00"},
            "filters.created_before",
            id="beyond the calendar",
        ),
        pytest.param(
            {"created_after": "2023-01-02", "created_before": "2023-01-02"},
            "filters.created_after",
            id="an empty span",
        ),
        pytest.param({"active_last_days": 0}, "filters.active_last_days", id="no days"),
        pytest.param({"active_last_days": 1.5}, "filters.active_last_days", id="half a day"),
        pytest.param({"tags": []}, "filters.tags", id="no tags"),
        pytest.param({"tags": [1]}, "filters.tags", id="a tag that is a number"),
        pytest.param({"max_items": 0}, "filters.max_items", id="no items"),
        pytest.param({"country": {}}, "filters.country", id="an object"),
        pytest.param({"country": []}, "filters.country", id="none of no values"),
        pytest.param({"country": "\x00"}, "filters.country", id="a null character"),
        pytest.param({"min_": 1}, "filters", id="a bound without a field"),
        pytest.param({"a b": 1}, "filters", id="a blank in the name"),
        pytest.param({"x" * 129: 1}, "filters", id="a long name"),
        pytest.param({f"f{n}": n for n in range(101)}, "filters", id="too many"),
    ],
)
def test_what_is_wrong_is_told_with_its_path(filters: dict[str, Any], path: str) -> None:
    _, violations = parse(filters)

    assert [violation.path for violation in violations] == [path]


def test_everything_that_is_wrong_is_told_at_once() -> None:
    selection, violations = parse({"min_posts": "x", "tags": 1, "country": "BR"})

    assert [violation.path for violation in violations] == ["filters.min_posts", "filters.tags"]
    assert selection.conditions == (Equality(field="country", values=("BR",)),)


@pytest.mark.parametrize(
    "name, field",
    [
        ("min_followers", "followers"),
        ("has_bio", "bio"),
        ("country", "country"),
        ("tags", "tags"),
        ("max_items", None),
        ("created_after", None),
        ("active_last_days", None),
    ],
)
def test_a_filter_tells_which_field_it_looks_at(name: str, field: str | None) -> None:
    assert field_of_filter(name) == field
