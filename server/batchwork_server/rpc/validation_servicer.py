"""ValidationService: checks, delegates, translates."""

from __future__ import annotations

from typing import Any

from batchwork.v1 import validation_service_pb2 as messages
from batchwork.v1.validation_service_pb2_grpc import ValidationServiceServicer

from batchwork_server.application.validation import UserReport, Validation
from batchwork_server.domain.user import UserVerdict
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.interceptors import caller_of

MAX_USERS = 10_000

_VERDICT_TO = {
    verdict: messages.UserVerdict.Value(f"USER_VERDICT_{verdict.name}") for verdict in UserVerdict
}


class ValidationServicer(ValidationServiceServicer):
    """Answers whether users are there; the contract says what each call means."""

    def __init__(self, validation: Validation) -> None:
        self._validation = validation

    async def ValidateUsers(
        self, request: messages.ValidateUsersRequest, context: Any
    ) -> messages.ValidateUsersResponse:
        checks = Checks()
        checks.count("user_ids", request.user_ids, least=1, most=MAX_USERS)
        checks.done()
        report = await self._validation.validate_users(
            request.user_ids, tenant_id=caller_of().tenant_id
        )
        return _report_to(report)


def _report_to(report: UserReport) -> messages.ValidateUsersResponse:
    return messages.ValidateUsersResponse(
        results=[
            messages.UserValidationResult(user_id=check.user_id, verdict=_VERDICT_TO[check.verdict])
            for check in report.checks
        ],
        totals=messages.UserValidationTotals(
            total=report.total, valid=report.valid, invalid=report.invalid
        ),
    )
