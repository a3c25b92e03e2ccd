"""Verdicts on users, in the order in which they were asked for."""

from __future__ import annotations

import pytest
from batchwork_server.application.validation import Validation
from batchwork_server.domain.user import UserVerdict
from batchwork_server.errors import Unavailable

from tests.factories import TENANT
from tests.fakes import FakeUsers


async def test_every_id_is_answered_in_order_and_counted():
    validation = Validation(FakeUsers("ann"))

    report = await validation.validate_users(["bob", "ann", "ann", ""], tenant_id=TENANT)

    assert [(check.user_id, check.verdict) for check in report.checks] == [
        ("bob", UserVerdict.NOT_FOUND),
        ("ann", UserVerdict.VALID),
        ("ann", UserVerdict.VALID),
        ("", UserVerdict.MALFORMED),
    ]
    assert (report.totals.total, report.totals.valid, report.totals.invalid) == (4, 2, 2)


@pytest.mark.parametrize("user_id", ["", "x" * 129, "a\nb", "a\x00b", "a\x7fb"])
async def test_id_that_no_user_can_have_is_malformed_and_nobody_is_asked(user_id):
    users = FakeUsers()

    verdicts = await Validation(users).verdicts([user_id], tenant_id=TENANT)

    assert verdicts == {user_id: UserVerdict.MALFORMED}
    assert users.calls == []


async def test_id_of_128_characters_is_asked_for():
    user_id = "ü" * 128

    verdicts = await Validation(FakeUsers(user_id)).verdicts([user_id], tenant_id=TENANT)

    assert verdicts == {user_id: UserVerdict.VALID}


async def test_without_its_source_validation_knows_nothing_but_shapes():
    users = FakeUsers("ann")
    users.away = True

    report = await Validation(users).validate_users(["ann", ""], tenant_id=TENANT)

    assert [check.verdict for check in report.checks] == [
        UserVerdict.UNKNOWN,
        UserVerdict.MALFORMED,
    ]


async def test_verdicts_for_a_batch_are_never_guessed():
    users = FakeUsers("ann")
    users.away = True

    with pytest.raises(Unavailable):
        await Validation(users).verdicts(["ann"], tenant_id=TENANT)
