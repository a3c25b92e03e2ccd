"""ValidationService: checks, delegates, translates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from typing import Any

from batchwork.v1 import validation_service_pb2 as messages
from batchwork.v1.validation_service_pb2_grpc import ValidationServiceServicer

from batchwork_server.application.job_validation import JobsReport
from batchwork_server.application.use_cases import ValidationUseCases
from batchwork_server.domain.job_file import MAX_JOBS
from batchwork_server.rpc.batch_conversion import submission_from
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.interceptors import caller_of
from batchwork_server.rpc.item_validation_conversion import (
    items_report_to,
    items_to_check,
    most_listed_of,
)
from batchwork_server.rpc.job_validation_conversion import jobs_from, jobs_report_to, path_of_job
from batchwork_server.rpc.page_tokens import token_after_numbered
from batchwork_server.rpc.user_conversion import (
    page_report_to,
    pages_from,
    results_to,
    totals_to,
    user_ids_from,
)
from batchwork_server.rpc.validation_conversion import (
    batch_report_to,
    categories_from,
    reference_report_to,
    report_place_from,
    report_to,
)

_SOURCES_OF_JOBS = ("jobs_json", "jobs", "job_ids", "all_stored")


class ValidationServicer(ValidationServiceServicer):
    """Answers whether what is named is there and right; the contract says what each call means."""

    def __init__(self, use_cases: ValidationUseCases) -> None:
        self._users = use_cases.users
        self._jobs = use_cases.jobs
        self._items = use_cases.items
        self._references = use_cases.references
        self._batches = use_cases.batches
        self._reports = use_cases.reports

    async def ValidateUsers(
        self, request: messages.ValidateUsersRequest, context: Any
    ) -> messages.ValidateUsersResponse:
        user_ids = user_ids_from(request)
        report = await self._users.validate_users(user_ids, tenant_id=caller_of().tenant_id)
        return messages.ValidateUsersResponse(
            results=results_to(report), totals=totals_to(report.totals)
        )

    async def StreamValidateUsers(
        self, requests: AsyncIterable[messages.StreamValidateUsersRequest], context: Any
    ) -> AsyncGenerator[messages.StreamValidateUsersResponse, None]:
        reports = self._users.stream_validate_users(
            pages_from(requests), tenant_id=caller_of().tenant_id
        )
        async with aclosing(reports):
            async for found in reports:
                yield page_report_to(found)

    async def ValidateJobs(
        self, request: messages.ValidateJobsRequest, context: Any
    ) -> messages.ValidateJobsResponse:
        checks = Checks()
        checks.count("jobs", request.jobs, most=MAX_JOBS)
        job_ids = checks.ids("job_ids", request.job_ids, most=MAX_JOBS)
        tenant_id = checks.tenant(caller_of(), request.tenant_id)
        given = [name for name in _SOURCES_OF_JOBS if getattr(request, name)]
        if len(given) != 1:
            checks.refuse(
                given[1] if given else "jobs_json",
                f"Set exactly one of {', '.join(_SOURCES_OF_JOBS)}; {len(given)} are set.",
            )
        checks.done()
        report = await self._validated_jobs(request, job_ids, tenant_id=tenant_id)
        return jobs_report_to(report, of_file=bool(request.jobs_json))

    async def ValidateItems(
        self, request: messages.ValidateItemsRequest, context: Any
    ) -> messages.ValidateItemsResponse:
        checks = Checks()
        items = items_to_check(request, checks=checks)
        most_listed = most_listed_of(request, checks=checks)
        tenant_id = checks.tenant(caller_of(), request.tenant_id)
        if not request.schema_json:
            checks.refuse("schema_json", "This field is required.")
        checks.done()
        report = await self._items.validate_items(
            items,
            schema_json=request.schema_json,
            tenant_id=tenant_id,
            most_listed=most_listed,
        )
        return items_report_to(report)

    async def _validated_jobs(
        self, request: messages.ValidateJobsRequest, job_ids: tuple[str, ...], *, tenant_id: str
    ) -> JobsReport:
        if request.jobs_json:
            return await self._jobs.validate_job_file(request.jobs_json, tenant_id=tenant_id)
        if request.jobs:
            # Thousands of jobs take a while to read; calls that wait for the loop must not.
            jobs = await asyncio.to_thread(jobs_from, request.jobs)
            return await self._jobs.validate_jobs(jobs, tenant_id=tenant_id)
        return await self._jobs.validate_stored_jobs(job_ids, tenant_id=tenant_id, path=path_of_job)

    async def ValidateReferences(
        self, request: messages.ValidateReferencesRequest, context: Any
    ) -> messages.ValidateReferencesResponse:
        checks = Checks()
        categories = categories_from(request, checks=checks)
        checks.done()
        report = await self._references.validate_references(
            categories, tenant_id=caller_of().tenant_id
        )
        return reference_report_to(report)

    async def ValidateBatch(
        self, request: messages.ValidateBatchRequest, context: Any
    ) -> messages.ValidateBatchResponse:
        given = Checks()
        if not request.HasField("batch"):
            given.refuse("batch", "This field is required.")
        given.done()
        checks = Checks()
        checks.line("request_id", request.batch.request_id)
        submission = submission_from(request.batch, checks=checks)
        report = await self._batches.validate_batch(
            submission, found=checks.violations, tenant_id=caller_of().tenant_id
        )
        return batch_report_to(report)

    async def GetValidationReport(
        self, request: messages.GetValidationReportRequest, context: Any
    ) -> messages.GetValidationReportResponse:
        checks = Checks()
        batch_id = checks.required_id("batch_id", request.batch_id)
        tenant_id = checks.scope(caller_of(), request.tenant_id)
        page_size = checks.page_size(request.page_size)
        after = report_place_from(request, checks=checks)
        checks.done()
        report = await self._reports.get_validation_report(
            batch_id, tenant_id=tenant_id, page_size=page_size, after=after
        )
        return report_to(report, next_page_token=token_after_numbered(request, report.following))
