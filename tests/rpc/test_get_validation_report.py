"""GetValidationReport names who was not valid in a batch, page by page."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
from batchwork.v1.batch_pb2 import Batch, CategoryCounts, ReferenceCounts, UserValidation
from batchwork.v1.batch_service_pb2 import DeleteBatchRequest
from batchwork.v1.item_pb2 import ItemInput
from batchwork.v1.job_service_pb2 import RunJobRequest
from batchwork.v1.validation_service_pb2 import (
    USER_VERDICT_INACTIVE,
    USER_VERDICT_MALFORMED,
    USER_VERDICT_NOT_FOUND,
    GetValidationReportRequest,
    GetValidationReportResponse,
)

from tests.rpc.api import ADA, BOB, OLGA, Api, as_caller, make_job, refused
from tests.rpc.sources import load_category, load_users


async def report(api: Api, batch: Batch, **fields: Any) -> GetValidationReportResponse:
    request = GetValidationReportRequest(batch_id=batch.batch_id, **fields)
    answer: GetValidationReportResponse = await api.validation.GetValidationReport(request)
    return answer


def listing(item_id: str, *user_ids: Any, user_id: str = "") -> ItemInput:
    data = json.dumps({"user_ids": user_ids})
    return ItemInput(item_id=item_id, user_id=user_id, data_json=data)


@pytest.fixture
async def batch(api, server) -> Batch:
    """A batch in which two users and three references are not valid."""
    await load_users(server, "ann", inactive=("eve",))
    items = [
        listing("a", "ann", "nobody", 7, user_id="eve"),
        listing("b", "ann", "eve"),
        ItemInput(item_id="c", user_id="nobody"),
        ItemInput(item_id="d", user_id="ann"),
    ]
    created: Batch = await api.create_batch(items=items)
    return created


async def test_a_report_has_the_counts_and_who_was_not_valid(api, batch):
    found = await report(api, batch)

    assert (found.batch_id, found.tenant_id) == (batch.batch_id, "default")
    assert found.user_validation == UserValidation(total=3, valid=1, invalid=2)
    assert found.reference_validation.categories == CategoryCounts(total=4, valid=4)
    assert found.reference_validation.user_references == ReferenceCounts(
        total=5, valid=2, invalid=3
    )
    assert [(each.item_id, each.user_id, each.verdict) for each in found.invalid_users] == [
        ("a", "eve", USER_VERDICT_INACTIVE),
        ("c", "nobody", USER_VERDICT_NOT_FOUND),
    ]
    assert [(each.item_id, each.user_id, each.verdict) for each in found.invalid_references] == [
        ("a", "nobody", USER_VERDICT_NOT_FOUND),
        ("a", "7", USER_VERDICT_MALFORMED),
        ("b", "eve", USER_VERDICT_INACTIVE),
    ]
    assert {each.field for each in found.invalid_references} == {"user_ids"}
    assert found.next_page_token == ""


@pytest.mark.parametrize("page_size", [1, 2, 3, 4])
async def test_pages_go_from_users_to_references(api, batch, page_size):
    pages = [await report(api, batch, page_size=page_size)]
    while pages[-1].next_page_token:
        token = pages[-1].next_page_token
        pages.append(await report(api, batch, page_size=page_size, page_token=token))

    users = [user.user_id for page in pages for user in page.invalid_users]
    references = [each.user_id for page in pages for each in page.invalid_references]
    assert (users, references) == (["eve", "nobody"], ["nobody", "7", "eve"])
    sizes = [len(page.invalid_users) + len(page.invalid_references) for page in pages]
    assert sizes == [page_size] * (5 // page_size) + [5 % page_size] * (5 % page_size > 0)


async def test_pages_end_with_the_users_when_no_reference_was_taken_out(api, server):
    batch = await api.create_batch(items=[ItemInput(user_id="nobody"), ItemInput(user_id="eve")])

    found = await report(api, batch, page_size=2)

    assert (len(found.invalid_users), found.next_page_token) == (2, "")
    assert not found.HasField("reference_validation")


async def test_the_report_stays_as_it_was_when_the_batch_was_created(api, server, batch):
    await load_users(server, "nobody", "eve")
    await api.finished(batch.batch_id)

    found = await report(api, batch)

    assert found.user_validation.invalid == 2
    assert len(found.invalid_users) == 2


async def test_what_was_left_out_of_one_item_is_named_with_its_category(api, server):
    await load_users(server, "ann")
    things = {"ann": {"n": 1}, "nobody": {"n": 2}}
    await load_category(server, "users", things)
    await load_category(server, "shops", {"mugs": {"member_ids": ["ann", "eve"]}})
    await api.import_jobs(make_job("of-users", category="users", type="object"))
    await api.import_jobs(make_job("of-shops", category="shops", type="object"))

    of_users = await report(api, (await api.jobs.RunJob(RunJobRequest(job_id="of-users"))).batch)
    of_shops = await report(api, (await api.jobs.RunJob(RunJobRequest(job_id="of-shops"))).batch)

    [user] = of_users.invalid_users
    assert (user.user_id, user.item_id, user.category) == ("nobody", "nobody", "users")
    [reference] = of_shops.invalid_references
    assert (reference.user_id, reference.item_id) == ("eve", "mugs")
    assert (reference.category, reference.field) == ("shops", "member_ids")


async def test_a_deleted_batch_has_no_report(api, batch):
    await api.finished(batch.batch_id)
    await api.batches.DeleteBatch(DeleteBatchRequest(batch_id=batch.batch_id))

    refusal = await refused(report(api, batch))

    assert refusal.code is grpc.StatusCode.NOT_FOUND


async def test_a_token_of_another_list_is_refused(api, batch):
    refusal = await refused(report(api, batch, page_token="bm9uZQ"))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == ["page_token"]


async def test_only_its_tenant_and_operators_see_a_report(guarded):
    batch = await guarded.create_batch(items=[ItemInput(user_id="nobody")], metadata=as_caller(ADA))
    own = GetValidationReportRequest(batch_id=batch.batch_id)
    any_tenant = GetValidationReportRequest(batch_id=batch.batch_id, tenant_id="-")

    theirs = await refused(guarded.validation.GetValidationReport(own, metadata=as_caller(BOB)))
    seen = await guarded.validation.GetValidationReport(any_tenant, metadata=as_caller(OLGA))

    assert theirs.code is grpc.StatusCode.NOT_FOUND
    assert (seen.tenant_id, len(seen.invalid_users)) == ("blue", 1)
