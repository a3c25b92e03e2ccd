"""A digest tells whether two plans would make the same batch."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from batchwork_server.application.plan_digest import DIGITS, PARTS, PlanDigest, digest_of
from batchwork_server.application.planning import Plan
from batchwork_server.domain.batch import Notice, UserValidation
from batchwork_server.domain.failure import FailurePolicy
from batchwork_server.domain.item import NewItem
from batchwork_server.domain.reference_validation import CategoryCounts, ReferenceValidation
from batchwork_server.domain.retry import RetryPolicy

from tests.factories import make_item, make_options, make_request, make_template

ITEM = make_item("a", data={"n": 1}, user_id="ann")
OTHER = make_item("b", data={"n": 2})


def digest(*items: NewItem, **changes) -> PlanDigest:
    return digest_of(Plan(request=make_request(**changes), items=items or (ITEM, OTHER)))


def test_an_equal_plan_has_an_equal_digest():
    first, second = digest(), digest(replace(ITEM), replace(OTHER))

    assert first == second
    assert second.changed_since(first) == ()
    assert {len(getattr(first, name)) for name in PARTS} == {DIGITS}


def test_what_has_no_order_does_not_count_by_it():
    one = make_template(parameters={"a": 1, "b": {"c": 2, "d": 3}})
    two = make_template(parameters={"b": {"d": 3, "c": 2}, "a": 1})
    reasons = [frozenset(order) for order in (("X", "Y", "Z"), ("Z", "Y", "X"))]
    options = [make_options(retry=RetryPolicy(non_retryable_reasons=each)) for each in reasons]

    assert digest(template=one) == digest(template=two)
    assert digest(options=options[0]) == digest(options=options[1])


@pytest.mark.parametrize(
    "items",
    [
        pytest.param((OTHER, ITEM), id="another order"),
        pytest.param((ITEM,), id="one less"),
        pytest.param((ITEM, OTHER, make_item("c")), id="one more"),
        pytest.param((ITEM, ITEM), id="one twice"),
        pytest.param((ITEM, replace(OTHER, item_id="c")), id="another id"),
        pytest.param((ITEM, replace(OTHER, user_id="ann")), id="a user"),
        pytest.param((ITEM, replace(OTHER, user_id="")), id="a user without a name"),
        pytest.param((ITEM, replace(OTHER, data_json='{"n":2}')), id="data with another space"),
        pytest.param((ITEM, replace(OTHER, skip_reason="USER_INACTIVE")), id="a reason to skip"),
        pytest.param(
            (replace(ITEM, item_id='a","data_json":"', data_json=""), OTHER), id="quotes in an id"
        ),
    ],
)
def test_items_count_with_their_place_and_all_that_is_stored_of_them(items):
    assert digest(*items).changed_since(digest()) == ("items",)


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        pytest.param({"job_id": "job-1"}, "job", id="job"),
        pytest.param({"job_revision": 2}, "job", id="revision"),
        pytest.param({"filters": {"min_n": 1}}, "job", id="filters"),
        pytest.param({"labels": {"team": "blue"}}, "job", id="labels"),
        pytest.param({"template": make_template(processor="other")}, "template", id="processor"),
        pytest.param({"template": make_template(parameters={})}, "template", id="parameters"),
        pytest.param({"options": make_options(chunk_size=7)}, "options", id="chunk size"),
        pytest.param(
            {"options": make_options(batch_timeout=timedelta(microseconds=1))},
            "options",
            id="timeout",
        ),
        pytest.param(
            {"options": make_options(failure_policy=FailurePolicy())}, "options", id="policy"
        ),
        pytest.param({"user_validation": UserValidation(total=1)}, "items", id="users"),
        pytest.param(
            {"reference_validation": ReferenceValidation(categories=CategoryCounts(total=1))},
            "items",
            id="references",
        ),
        pytest.param(
            {"notices": (Notice(reason="ODD", path="filters", message="Odd."),)},
            "warnings",
            id="warning",
        ),
    ],
)
def test_what_differs_is_named(changes, changed):
    assert digest(**changes).changed_since(digest()) == (changed,)


def test_how_long_items_took_meanwhile_changes_no_plan():
    slow = make_options(chunk_duration=timedelta(minutes=3))

    assert digest(options=slow) == digest(options=make_options())


def test_digests_of_another_release_are_not_compared():
    now = digest()

    assert now.changed_since(replace(now, version=now.version + 1)) == PARTS
