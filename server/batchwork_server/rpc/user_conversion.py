"""Verdicts on users between the contract and the use cases."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence

from batchwork.v1 import validation_service_pb2 as messages

from batchwork_server.application.validation import UserCheck, UserPage, UserPageReport, UserReport
from batchwork_server.domain.user import UserTotals, UserVerdict
from batchwork_server.rpc.checks import Checks

MAX_USERS = 10_000
"""The most ids of one message."""

VERDICT_TO = {
    verdict: messages.UserVerdict.Value(f"USER_VERDICT_{verdict.name}") for verdict in UserVerdict
}


def user_ids_from(
    request: messages.ValidateUsersRequest | messages.StreamValidateUsersRequest,
) -> Sequence[str]:
    """Returns the ids that are asked for.

    Raises:
        InvalidArgument: there are none, or too many.
    """
    checks = Checks()
    checks.count("user_ids", request.user_ids, least=1, most=MAX_USERS)
    checks.done()
    # Each look into a field of a message makes its texts anew.
    return list(request.user_ids)


async def pages_from(
    requests: AsyncIterable[messages.StreamValidateUsersRequest],
) -> AsyncGenerator[UserPage, None]:
    """Yields what the messages of a stream ask for.

    Raises:
        InvalidArgument: a message has no ids, or too many.
    """
    async for request in requests:
        yield UserPage(user_ids=user_ids_from(request), include_valid=request.include_valid)


def page_report_to(found: UserPageReport) -> messages.StreamValidateUsersResponse:
    return messages.StreamValidateUsersResponse(
        results=results_to(found.report),
        totals=totals_to(found.report.totals),
        running_totals=totals_to(found.running_totals),
    )


def results_to(report: UserReport) -> list[messages.UserValidationResult]:
    return results_of(report.checks)


def results_of(checks: Iterable[UserCheck]) -> list[messages.UserValidationResult]:
    return [
        messages.UserValidationResult(user_id=check.user_id, verdict=VERDICT_TO[check.verdict])
        for check in checks
    ]


def totals_to(totals: UserTotals) -> messages.UserValidationTotals:
    return messages.UserValidationTotals(
        total=totals.total,
        valid=totals.valid,
        invalid=totals.invalid,
        not_found=totals.of(UserVerdict.NOT_FOUND),
        inactive=totals.of(UserVerdict.INACTIVE),
        wrong_tenant=totals.of(UserVerdict.WRONG_TENANT),
        malformed=totals.of(UserVerdict.MALFORMED),
        unknown=totals.unknown,
    )
