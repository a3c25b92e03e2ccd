"""Categories, their references, and reports between the contract and the use cases."""

from __future__ import annotations

from itertools import islice

from batchwork.v1 import validation_service_pb2 as messages

from batchwork_server.application.batch_validation import BatchReport
from batchwork_server.application.planning import Plan
from batchwork_server.application.reference_checks import (
    CategoryCheck,
    CategoryReferences,
    ReferenceReport,
)
from batchwork_server.application.validation_reports import (
    PARTS,
    Place,
    ValidationReport,
    invalid_users_of,
)
from batchwork_server.domain.reference_validation import OWN, CategoryVerdict, InvalidReference
from batchwork_server.rpc.batch_conversion import (
    counted_references_to,
    plan_to,
    reference_validation_to,
    user_validation_to,
    warnings_to,
)
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.job_validation_conversion import MOST_LISTED, violation_to
from batchwork_server.rpc.page_tokens import numbered_from
from batchwork_server.rpc.user_conversion import VERDICT_TO, results_of

MAX_CATEGORIES = 10_000
MAX_REFERENCES = 10_000
SHOWN = 100
"""So many invalid users, and so many references, are shown of a batch that is not stored."""

_CATEGORY_VERDICT_TO = {
    verdict: messages.CategoryVerdict.Value(f"CATEGORY_VERDICT_{verdict.name}")
    for verdict in CategoryVerdict
}


def categories_from(
    request: messages.ValidateReferencesRequest, *, checks: Checks
) -> list[CategoryReferences]:
    checks.count("categories", request.categories, least=1, most=MAX_CATEGORIES)
    # Each look into a field of a message makes its texts anew.
    categories = [
        CategoryReferences(
            category_id=each.category_id,
            user_ids=list(each.user_ids),
            member_ids=list(each.member_ids),
        )
        for each in request.categories
    ]
    count = sum(len(each.user_ids) + len(each.member_ids) for each in categories)
    if count > MAX_REFERENCES:
        checks.refuse(
            "categories",
            f"They list {count} users; {MAX_REFERENCES} are allowed in one call.",
        )
    return categories


def reference_report_to(report: ReferenceReport) -> messages.ValidateReferencesResponse:
    return messages.ValidateReferencesResponse(
        results=map(_category_to, report.checks),
        totals=counted_references_to(report.found),
    )


def _category_to(check: CategoryCheck) -> messages.CategoryValidationResult:
    return messages.CategoryValidationResult(
        category_id=check.category_id,
        verdict=_CATEGORY_VERDICT_TO[check.verdict],
        user_ids=results_of(check.user_ids),
        member_ids=results_of(check.member_ids),
    )


def report_place_from(
    request: messages.GetValidationReportRequest, *, checks: Checks
) -> Place | None:
    """Returns where a page of a report starts; none for the first page."""
    place = numbered_from(request, checks=checks)
    if place is not None and place[0] not in PARTS:
        checks.refuse("page_token", "This is no token of a page of this report.")
        return None
    return place


def report_to(
    report: ValidationReport, *, next_page_token: str
) -> messages.GetValidationReportResponse:
    request = report.batch.request
    return messages.GetValidationReportResponse(
        batch_id=report.batch.batch_id,
        tenant_id=report.batch.tenant_id,
        user_validation=user_validation_to(request.user_validation),
        reference_validation=reference_validation_to(request.reference_validation),
        invalid_users=[_user_to(each) for each in report.invalid if each.field == OWN],
        invalid_references=[_reference_to(each) for each in report.invalid if each.field != OWN],
        next_page_token=next_page_token,
    )


def _user_to(invalid: InvalidReference) -> messages.InvalidUser:
    return messages.InvalidUser(
        user_id=invalid.user_id,
        verdict=VERDICT_TO[invalid.verdict],
        item_id=invalid.item_id,
        category=invalid.category,
    )


def _reference_to(invalid: InvalidReference) -> messages.InvalidReference:
    return messages.InvalidReference(
        user_id=invalid.user_id,
        verdict=VERDICT_TO[invalid.verdict],
        item_id=invalid.item_id,
        category=invalid.category,
        field=invalid.field,
    )


def batch_report_to(report: BatchReport) -> messages.ValidateBatchResponse:
    response = messages.ValidateBatchResponse(
        valid=not report.violations,
        violations=map(violation_to, report.violations[:MOST_LISTED]),
        violation_count=len(report.violations),
        warnings=warnings_to(report.notices),
    )
    if report.plan is not None:
        _add_plan(response, report.plan)
    return response


def _add_plan(response: messages.ValidateBatchResponse, plan: Plan) -> None:
    response.plan.MergeFrom(plan_to(plan))
    response.user_validation.MergeFrom(user_validation_to(plan.request.user_validation))
    references = reference_validation_to(plan.request.reference_validation)
    if references is not None:
        response.reference_validation.MergeFrom(references)
    users = invalid_users_of(plan.items, plan.invalid_references)
    response.invalid_users.extend(map(_user_to, islice(users, SHOWN)))
    taken_out = (each for each in plan.invalid_references if each.field != OWN)
    response.invalid_references.extend(map(_reference_to, islice(taken_out, SHOWN)))
