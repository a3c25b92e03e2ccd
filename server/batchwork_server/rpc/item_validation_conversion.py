"""Checked items between the contract and the use case."""

from __future__ import annotations

from batchwork.v1 import validation_service_pb2 as messages

from batchwork_server.application.item_validation import WantedItems
from batchwork_server.domain.item_schema import Finding, InvalidItem, ItemsReport
from batchwork_server.domain.selection import MAX_ITEMS
from batchwork_server.rpc.batch_conversion import LARGEST_FILTERS
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.item_conversion import MAX_ITEMS as MOST_INLINE

MOST_LISTED = 1000
LISTED = 100


def items_to_check(
    request: messages.ValidateItemsRequest, *, checks: Checks
) -> list[tuple[str, str]] | WantedItems:
    """Returns ids and texts, or which items of a category are meant."""
    if bool(request.items) == bool(request.category):
        checks.refuse("items", "Set either items or a category.")
    checks.count("items", request.items, most=MOST_INLINE)
    if not request.category:
        given = {"filters": request.HasField("filters"), "limit": request.limit != 0}
        for name in (name for name, is_given in given.items() if is_given):
            checks.refuse(name, "This narrows a category; leave it out with inline items.")
        return [
            (item.item_id or str(index), item.data_json or "{}")
            for index, item in enumerate(request.items)
        ]
    return WantedItems(
        category=checks.line("category", request.category),
        filters=checks.json_object("filters", request.filters, most_bytes=LARGEST_FILTERS),
        limit=checks.set_whole("limit", request.limit, least=1, most=MAX_ITEMS) or MAX_ITEMS,
    )


def most_listed_of(request: messages.ValidateItemsRequest, *, checks: Checks) -> int:
    most = checks.set_whole("max_results", request.max_results, least=1, most=MOST_LISTED)
    return most or LISTED


def items_report_to(report: ItemsReport) -> messages.ValidateItemsResponse:
    rules = sorted(report.rules.items(), key=lambda each: -each[1].findings)
    return messages.ValidateItemsResponse(
        results=[_invalid_to(item) for item in report.listed],
        rules=[
            messages.RuleCount(
                rule=rule.keyword,
                schema_path=rule.schema_path,
                findings=count.findings,
                items=count.items,
            )
            for rule, count in rules
        ],
        totals=messages.ItemValidationTotals(
            total=report.total,
            valid=report.valid,
            invalid=report.invalid,
            findings=report.findings,
            valid_ratio=report.valid_ratio,
        ),
    )


def _invalid_to(item: InvalidItem) -> messages.InvalidItem:
    return messages.InvalidItem(
        item_id=item.item_id,
        findings=[_finding_to(finding) for finding in item.findings],
        finding_count=item.count,
    )


def _finding_to(finding: Finding) -> messages.ItemFinding:
    return messages.ItemFinding(
        path=finding.path,
        rule=finding.rule.keyword,
        schema_path=finding.rule.schema_path,
        message=finding.message,
    )
