"""ValidateReferences answers for each category and each user whom it lists."""

from __future__ import annotations

import grpc
import pytest
from batchwork.v1.batch_pb2 import CategoryCounts, ReferenceCounts
from batchwork.v1.validation_service_pb2 import (
    CATEGORY_VERDICT_MALFORMED,
    CATEGORY_VERDICT_NO_VALID_USERS,
    CATEGORY_VERDICT_UNKNOWN,
    CATEGORY_VERDICT_VALID,
    USER_VERDICT_INACTIVE,
    USER_VERDICT_MALFORMED,
    USER_VERDICT_NOT_FOUND,
    USER_VERDICT_UNKNOWN,
    USER_VERDICT_VALID,
    CategoryReferences,
    ValidateReferencesRequest,
)
from batchwork_server.errors import Unavailable

from tests.rpc.api import ADA, as_caller, refused
from tests.rpc.sources import load_users


async def test_each_category_and_each_reference_gets_a_verdict(api, server):
    await load_users(server, "ann", "bob", inactive=("eve",))
    request = ValidateReferencesRequest(
        categories=[
            CategoryReferences(category_id="mugs", user_ids=["ann", "eve"], member_ids=["nobody"]),
            CategoryReferences(category_id="lamps", user_ids=["eve", ""]),
            CategoryReferences(category_id="pens"),
            CategoryReferences(category_id="", member_ids=["bob"]),
        ]
    )

    response = await api.validation.ValidateReferences(request)

    assert [(result.category_id, result.verdict) for result in response.results] == [
        ("mugs", CATEGORY_VERDICT_VALID),
        ("lamps", CATEGORY_VERDICT_NO_VALID_USERS),
        ("pens", CATEGORY_VERDICT_VALID),
        ("", CATEGORY_VERDICT_MALFORMED),
    ]
    mugs, lamps, *_ = response.results
    assert [(user.user_id, user.verdict) for user in mugs.user_ids] == [
        ("ann", USER_VERDICT_VALID),
        ("eve", USER_VERDICT_INACTIVE),
    ]
    assert [user.verdict for user in mugs.member_ids] == [USER_VERDICT_NOT_FOUND]
    assert [user.verdict for user in lamps.user_ids] == [
        USER_VERDICT_INACTIVE,
        USER_VERDICT_MALFORMED,
    ]
    assert response.totals.categories == CategoryCounts(total=4, valid=2, invalid=2)
    assert response.totals.user_references == ReferenceCounts(total=6, valid=2, invalid=4)


async def test_users_of_another_tenant_are_not_valid(guarded, guarded_server):
    await load_users(guarded_server, "ann")
    request = ValidateReferencesRequest(
        categories=[CategoryReferences(category_id="mugs", user_ids=["ann"])]
    )

    response = await guarded.validation.ValidateReferences(request, metadata=as_caller(ADA))

    assert response.results[0].verdict == CATEGORY_VERDICT_NO_VALID_USERS


async def test_while_the_users_are_away_nothing_is_known(api, server, monkeypatch):
    async def away(*_arguments, **_options):
        raise Unavailable("The users are away.")

    monkeypatch.setattr(server.application.store.users, "verdicts", away)
    request = ValidateReferencesRequest(
        categories=[CategoryReferences(category_id="mugs", user_ids=["ann", "\n"])]
    )

    response = await api.validation.ValidateReferences(request)

    [result] = response.results
    assert result.verdict == CATEGORY_VERDICT_UNKNOWN
    assert [user.verdict for user in result.user_ids] == [
        USER_VERDICT_UNKNOWN,
        USER_VERDICT_MALFORMED,
    ]
    assert response.totals.categories == CategoryCounts(total=1, unknown=1)
    assert response.totals.user_references == ReferenceCounts(total=2, invalid=1, unknown=1)


@pytest.mark.parametrize(
    "categories",
    [
        pytest.param([], id="no category"),
        pytest.param([CategoryReferences(category_id="a")] * 10_001, id="too many categories"),
        pytest.param(
            [CategoryReferences(category_id="a", user_ids=["ann"] * 5001)] * 2,
            id="too many references",
        ),
    ],
)
async def test_a_call_has_bounds(api, categories):
    request = ValidateReferencesRequest(categories=categories)

    refusal = await refused(api.validation.ValidateReferences(request))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == ["categories"]
