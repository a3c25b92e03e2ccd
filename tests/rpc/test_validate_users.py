"""ValidateUsers answers for each id; a verdict is no error."""

from __future__ import annotations

import grpc
import pytest
from batchwork.v1.validation_service_pb2 import (
    USER_VERDICT_INACTIVE,
    USER_VERDICT_MALFORMED,
    USER_VERDICT_NOT_FOUND,
    USER_VERDICT_VALID,
    USER_VERDICT_WRONG_TENANT,
    ValidateUsersRequest,
)

from tests.fakes import START
from tests.rpc.api import refused


async def test_every_id_gets_a_verdict_in_the_order_of_the_request(api, server):
    store = server.application.store
    async with store.transaction() as tx:
        users = [("ada", True), ("bob", False)]
        await store.users.load(tx, tenant_id="default", users=users, now=START)
        await store.users.load(tx, tenant_id="other", users=[("eve", True)], now=START)
    asked = ["nobody", "ada", "bob", "eve", "", "a\0", "ada"]

    response = await api.validation.ValidateUsers(ValidateUsersRequest(user_ids=asked))

    assert [result.user_id for result in response.results] == asked
    assert [result.verdict for result in response.results] == [
        USER_VERDICT_NOT_FOUND,
        USER_VERDICT_VALID,
        USER_VERDICT_INACTIVE,
        USER_VERDICT_WRONG_TENANT,
        USER_VERDICT_MALFORMED,
        USER_VERDICT_MALFORMED,
        USER_VERDICT_VALID,
    ]
    assert (response.totals.total, response.totals.valid, response.totals.invalid) == (7, 2, 5)


@pytest.mark.parametrize("count", [pytest.param(0, id="none"), pytest.param(10_001, id="too many")])
async def test_one_to_ten_thousand_ids_are_validated(api, count):
    request = ValidateUsersRequest(user_ids=["ada"] * count)

    refusal = await refused(api.validation.ValidateUsers(request))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == ["user_ids"]
