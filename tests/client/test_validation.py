"""What the client makes of the calls of ValidationService."""

from __future__ import annotations

import pytest
from batchwork.v1.batch_pb2 import UserValidation
from batchwork.v1.validation_service_pb2 import (
    CategoryReferences,
    GetValidationReportRequest,
    GetValidationReportResponse,
    InvalidReference,
    InvalidUser,
    ValidateReferencesResponse,
)
from batchwork.v1.validation_service_pb2_grpc import ValidationServiceServicer

from tests.client.servers import Unary, servicer


def page_of(request: GetValidationReportRequest) -> GetValidationReportResponse:
    """Answers with a page of 250 invalid users and references."""
    first = int(request.page_token or 0)
    numbers = range(first, min(first + request.page_size, 250))
    return GetValidationReportResponse(
        batch_id=request.batch_id,
        user_validation=UserValidation(total=500, valid=370, invalid=130),
        invalid_users=[InvalidUser(user_id=str(n)) for n in numbers if n < 130],
        invalid_references=[InvalidReference(user_id=str(n)) for n in numbers if n >= 130],
        next_page_token=str(numbers[-1] + 1) if numbers[-1] < 249 else "",
    )


@pytest.mark.parametrize(
    ("limit", "sizes", "listed"),
    [
        pytest.param(None, [100, 100, 100], 250, id="all"),
        pytest.param(130, [100, 30], 130, id="a limit"),
        pytest.param(1000, [100, 100, 100], 250, id="a limit beyond the end"),
    ],
)
async def test_the_pages_of_a_report_come_together(client_of, limit, sizes, listed):
    calls = Unary(page_of)
    client = await client_of(servicer(ValidationServiceServicer, GetValidationReport=calls))

    report = await client.validation.get_validation_report("bat-1", tenant_id="-", limit=limit)

    assert [request.page_size for request in calls.requests] == sizes
    assert {request.tenant_id for request in calls.requests} == {"-"}
    found = [*report.invalid_users, *report.invalid_references]
    assert [each.user_id for each in found] == [str(n) for n in range(listed)]
    assert report.user_validation.total == 500
    assert report.next_page_token == ("" if listed == 250 else str(listed))


async def test_categories_go_out_as_they_are(client_of):
    calls = Unary(ValidateReferencesResponse())
    client = await client_of(servicer(ValidationServiceServicer, ValidateReferences=calls))
    categories = [CategoryReferences(category_id="mugs", user_ids=["ann"])]

    await client.validation.validate_references(iter(categories))

    assert list(calls.requests[0].categories) == categories
