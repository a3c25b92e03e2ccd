"""ValidationService: checks, delegates, translates."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from typing import Any

from batchwork.v1 import validation_service_pb2 as messages
from batchwork.v1.validation_service_pb2_grpc import ValidationServiceServicer

from batchwork_server.application.validation import Validation
from batchwork_server.rpc.interceptors import caller_of
from batchwork_server.rpc.user_conversion import (
    page_report_to,
    pages_from,
    results_to,
    totals_to,
    user_ids_from,
)


class ValidationServicer(ValidationServiceServicer):
    """Answers whether users are there; the contract says what each call means."""

    def __init__(self, validation: Validation) -> None:
        self._validation = validation

    async def ValidateUsers(
        self, request: messages.ValidateUsersRequest, context: Any
    ) -> messages.ValidateUsersResponse:
        user_ids = user_ids_from(request)
        report = await self._validation.validate_users(user_ids, tenant_id=caller_of().tenant_id)
        return messages.ValidateUsersResponse(
            results=results_to(report), totals=totals_to(report.totals)
        )

    async def StreamValidateUsers(
        self, requests: AsyncIterable[messages.StreamValidateUsersRequest], context: Any
    ) -> AsyncGenerator[messages.StreamValidateUsersResponse, None]:
        reports = self._validation.stream_validate_users(
            pages_from(requests), tenant_id=caller_of().tenant_id
        )
        async with aclosing(reports):
            async for found in reports:
                yield page_report_to(found)
