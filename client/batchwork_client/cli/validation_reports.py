"""The command about what was found of the users of a batch: validate report."""

from __future__ import annotations

from collections.abc import Iterator

import typer
from batchwork.v1.validation_service_pb2 import GetValidationReportResponse, UserVerdict

from batchwork_client.cli.inputs import short_name
from batchwork_client.cli.output import note, write_facts, write_message, write_table
from batchwork_client.cli.parameters import AsJson, BatchId, Limit
from batchwork_client.cli.session import command, session_of


def add_to(group: typer.Typer) -> None:
    """Adds the command to the others that validate."""
    command(group, "report")(validation_report)


async def validation_report(
    context: typer.Context, batch: BatchId, limit: Limit = 1000, as_json: AsJson = False
) -> None:
    """Shows which users of a batch were not valid, and which references were taken out."""
    session = session_of(context)
    async with session.connect() as batchwork:
        report = await batchwork.validation.get_validation_report(
            batch, tenant_id=session.tenant_id, limit=limit
        )
    if as_json:
        write_message(report)
        return
    write_facts(_facts(report))
    rows = list(_rows(report))
    if rows:
        write_table(("USER", "VERDICT", "ITEM", "CATEGORY", "FIELD"), rows)
    if report.next_page_token:
        note("there are more; raise --limit")


def _facts(report: GetValidationReportResponse) -> list[tuple[str, str]]:
    users, references = report.user_validation, report.reference_validation
    facts = [
        ("batch", report.batch_id),
        ("users of items", in_words(users) if users.total else "none"),
    ]
    if report.HasField("reference_validation"):
        facts += [
            ("categories", in_words(references.categories)),
            ("references to users", in_words(references.user_references)),
        ]
    return facts


def in_words(counts: object) -> str:
    """Returns counts such as ``6 of 8 valid, 2 invalid``; what is zero is left out."""
    total, valid = getattr(counts, "total", 0), getattr(counts, "valid", 0)
    others = [
        f"{count} {name}" for name in ("invalid", "unknown") if (count := getattr(counts, name, 0))
    ]
    return ", ".join([f"{valid} of {total} valid", *others])


def _rows(report: GetValidationReportResponse) -> Iterator[tuple[str, ...]]:
    for user in report.invalid_users:
        yield user.user_id, _verdict(user.verdict), user.item_id, user.category, ""
    for reference in report.invalid_references:
        yield (
            reference.user_id,
            _verdict(reference.verdict),
            reference.item_id,
            reference.category,
            reference.field,
        )


def _verdict(number: int) -> str:
    return short_name(UserVerdict.DESCRIPTOR, number)
