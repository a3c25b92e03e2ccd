"""A plan token is what a plan was, for one job and its users."""

from __future__ import annotations

from typing import Any

import pytest
from batchwork_server.application.plan_digest import PARTS, VERSION, PlanDigest
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.opaque import binding_of, write_token
from batchwork_server.rpc.plan_tokens import PlanTokens

_PARTS: dict[str, Any] = {name: str(place) * 24 for place, name in enumerate(PARTS)}
DIGEST = PlanDigest(**_PARTS)
BINDING = binding_of(b'["plan","blue","job-1","ada"]')


def tokens(tenant_id="blue", job_id="job-1", user_ids=("ada",)) -> PlanTokens:
    return PlanTokens(tenant_id=tenant_id, job_id=job_id, user_ids=user_ids)


def read(token: str) -> PlanDigest | None:
    """Reads a token that is to be right."""
    checks = Checks()
    planned = tokens().read(token, checks=checks)
    checks.done()
    return planned


def is_refused(token: str, of: PlanTokens) -> bool:
    checks = Checks()
    planned = of.read(token, checks=checks)
    return planned is None and [each.path for each in checks.violations] == ["plan_token"]


def test_what_is_written_is_read():
    assert read(tokens().write(DIGEST)) == DIGEST
    assert read(tokens(user_ids=("ada", "ada")).write(DIGEST)) == DIGEST


def test_no_token_is_no_plan():
    assert read("") is None


@pytest.mark.parametrize(
    "of",
    [
        pytest.param(tokens(tenant_id="green"), id="tenant"),
        pytest.param(tokens(job_id="job-2"), id="job"),
        pytest.param(tokens(user_ids=()), id="users"),
    ],
)
def test_a_token_is_one_of_its_run(of):
    assert is_refused(tokens().write(DIGEST), of)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([], id="nothing"),
        pytest.param([VERSION], id="no parts"),
        pytest.param([VERSION, *"abcd"], id="too few and too short"),
        pytest.param([VERSION, *range(len(PARTS))], id="numbers"),
        pytest.param(["1", *(["a" * 24] * len(PARTS))], id="a version that is none"),
    ],
)
def test_a_token_that_was_made_by_hand_is_refused(values):
    assert is_refused(write_token(*values, binding=BINDING), tokens())


def test_a_token_of_another_release_is_a_plan_that_cannot_be_compared():
    planned = read(write_token(VERSION + 1, "whatever", binding=BINDING))

    assert planned is not None
    assert DIGEST.changed_since(planned) == PARTS
