"""JobService: checks, delegates, translates."""

from __future__ import annotations

from typing import Any

from batchwork.v1 import job_service_pb2 as messages
from batchwork.v1.job_service_pb2_grpc import JobServiceServicer

from batchwork_server.application.batches import Batches
from batchwork_server.application.jobs import Jobs
from batchwork_server.rpc.batch_conversion import batch_to
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.filters import job_filter_from
from batchwork_server.rpc.idempotency import idempotency_from
from batchwork_server.rpc.interceptors import caller_of
from batchwork_server.rpc.job_conversion import imported_jobs_to, job_to
from batchwork_server.rpc.page_tokens import names_from, token_after_names

MAX_EXPORTED_IDS = 10_000
MAX_USERS_OF_RUN = 10_000


class JobServicer(JobServiceServicer):
    """Answers for job definitions; the contract says what each call means."""

    def __init__(self, jobs: Jobs, batches: Batches) -> None:
        self._jobs = jobs
        self._batches = batches

    async def ImportJobs(
        self, request: messages.ImportJobsRequest, context: Any
    ) -> messages.ImportJobsResponse:
        checks = Checks()
        source = checks.source("source", request.source)
        idempotency = idempotency_from(request, checks=checks)
        checks.done()
        imported = await self._jobs.import_jobs(
            request.jobs_json,
            tenant_id=caller_of().tenant_id,
            idempotency=idempotency,
            source=source,
            validate_only=request.validate_only,
        )
        return imported_jobs_to(imported)

    async def ExportJobs(
        self, request: messages.ExportJobsRequest, context: Any
    ) -> messages.ExportJobsResponse:
        checks = Checks()
        job_ids = checks.ids("job_ids", request.job_ids, most=MAX_EXPORTED_IDS)
        tenant_id = checks.tenant(caller_of(), request.tenant_id)
        checks.done()
        text = await self._jobs.export_jobs(job_ids, tenant_id=tenant_id)
        return messages.ExportJobsResponse(jobs_json=text)

    async def GetJob(
        self, request: messages.GetJobRequest, context: Any
    ) -> messages.GetJobResponse:
        checks = Checks()
        job_id = checks.required_id("job_id", request.job_id)
        tenant_id = checks.scope(caller_of(), request.tenant_id)
        checks.done()
        job = await self._jobs.get_job(job_id, tenant_id=tenant_id)
        return messages.GetJobResponse(job=job_to(job))

    async def ListJobs(
        self, request: messages.ListJobsRequest, context: Any
    ) -> messages.ListJobsResponse:
        checks = Checks()
        wanted = job_filter_from(request, caller=caller_of(), checks=checks)
        page_size = checks.page_size(request.page_size)
        after = names_from(request, checks=checks)
        checks.done()
        jobs, last = await self._jobs.list_jobs(wanted, page_size=page_size, after=after)
        return messages.ListJobsResponse(
            jobs=[job_to(job) for job in jobs], next_page_token=token_after_names(request, last)
        )

    async def RunJob(
        self, request: messages.RunJobRequest, context: Any
    ) -> messages.RunJobResponse:
        checks, caller = Checks(), caller_of()
        job_id = checks.required_id("job_id", request.job_id)
        user_ids = checks.names("user_ids", request.user_ids, most=MAX_USERS_OF_RUN)
        idempotency = idempotency_from(request, checks=checks)
        checks.done()
        job = await self._jobs.get_job(job_id, tenant_id=caller.tenant_id)
        batch = await self._batches.run_job(
            job, caller=caller, idempotency=idempotency, user_ids=frozenset(user_ids)
        )
        return messages.RunJobResponse(batch=batch_to(batch))
