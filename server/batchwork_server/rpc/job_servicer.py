"""JobService: checks, delegates, translates."""

from __future__ import annotations

from typing import Any

from batchwork.v1 import job_service_pb2 as messages
from batchwork.v1.job_service_pb2_grpc import JobServiceServicer

from batchwork_server.application.use_cases import JobUseCases
from batchwork_server.rpc.backfill_conversion import backfill_range_from, backfill_to
from batchwork_server.rpc.batch_conversion import batch_to, plan_to
from batchwork_server.rpc.change_conversion import LONGEST_NOTE
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.filters import job_filter_from
from batchwork_server.rpc.idempotency import idempotency_from
from batchwork_server.rpc.interceptors import caller_of
from batchwork_server.rpc.job_conversion import (
    JOB_FIELDS,
    imported_jobs_to,
    job_reading,
    job_to,
    job_warnings_to,
    masked_fields,
    overlap_of_run,
)
from batchwork_server.rpc.occurrence_conversion import (
    occurrence_filter_from,
    occurrence_place_from,
    occurrence_to,
)
from batchwork_server.rpc.page_tokens import (
    moment_from,
    names_from,
    token_after_moment,
    token_after_names,
)
from batchwork_server.rpc.plan_tokens import PlanTokens
from batchwork_server.rpc.upcoming_conversion import upcoming_run_to

MAX_EXPORTED_IDS = 10_000
MAX_USERS_OF_RUN = 10_000
MAX_JOBS_OF_UPCOMING = 100


class JobServicer(JobServiceServicer):
    """Answers for job definitions; the contract says what each call means."""

    def __init__(self, use_cases: JobUseCases) -> None:
        self._jobs = use_cases.jobs
        self._imports = use_cases.imports
        self._batches = use_cases.batches
        self._upcoming = use_cases.upcoming
        self._occurrences = use_cases.occurrences
        self._backfills = use_cases.backfills

    async def ImportJobs(
        self, request: messages.ImportJobsRequest, context: Any
    ) -> messages.ImportJobsResponse:
        checks = Checks()
        source = checks.source("source", request.source)
        idempotency = idempotency_from(request, checks=checks)
        checks.done()
        imported = await self._imports.import_jobs(
            request.jobs_json,
            tenant_id=caller_of().tenant_id,
            idempotency=idempotency,
            source=source,
            validate_only=request.validate_only,
            prune=request.prune,
        )
        return imported_jobs_to(imported)

    async def ExportJobs(
        self, request: messages.ExportJobsRequest, context: Any
    ) -> messages.ExportJobsResponse:
        checks = Checks()
        job_ids = checks.ids("job_ids", request.job_ids, most=MAX_EXPORTED_IDS)
        tenant_id = checks.tenant(caller_of(), request.tenant_id)
        checks.done()
        text = await self._imports.export_jobs(job_ids, tenant_id=tenant_id)
        return messages.ExportJobsResponse(jobs_json=text)

    async def CreateJob(
        self, request: messages.CreateJobRequest, context: Any
    ) -> messages.CreateJobResponse:
        checks = Checks()
        idempotency = idempotency_from(request, checks=checks)
        created = await self._jobs.create_job(
            job_reading(request.job, JOB_FIELDS, checks=checks),
            tenant_id=caller_of().tenant_id,
            idempotency=idempotency,
            validate_only=request.validate_only,
        )
        return messages.CreateJobResponse(
            job=job_to(created.job), warnings=job_warnings_to(created.notices)
        )

    async def UpdateJob(
        self, request: messages.UpdateJobRequest, context: Any
    ) -> messages.UpdateJobResponse:
        checks, given = Checks(), request.job
        job_id = checks.required_id("job.job_id", given.job_id)
        etag = checks.line("etag", request.etag)
        fields = masked_fields("update_mask", request.update_mask, given, checks=checks)
        idempotency = idempotency_from(request, checks=checks)
        reading = job_reading(given, fields, checks=checks)
        if not job_id:  # Else what is noted comes with what is wrong with the changed job.
            checks.done()
        updated = await self._jobs.update_job(
            job_id,
            reading,
            tenant_id=caller_of().tenant_id,
            etag=etag,
            idempotency=idempotency,
            validate_only=request.validate_only,
        )
        return messages.UpdateJobResponse(
            job=job_to(updated.job), warnings=job_warnings_to(updated.notices)
        )

    async def DeleteJob(
        self, request: messages.DeleteJobRequest, context: Any
    ) -> messages.DeleteJobResponse:
        checks = Checks()
        job_id = checks.required_id("job_id", request.job_id)
        etag = checks.line("etag", request.etag)
        idempotency = idempotency_from(request, checks=checks)
        checks.done()
        await self._jobs.delete_job(
            job_id,
            tenant_id=caller_of().tenant_id,
            etag=etag,
            allow_missing=request.allow_missing,
            idempotency=idempotency,
        )
        return messages.DeleteJobResponse()

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

    async def ListUpcomingRuns(
        self, request: messages.ListUpcomingRunsRequest, context: Any
    ) -> messages.ListUpcomingRunsResponse:
        checks = Checks()
        job_ids = checks.ids("job_ids", request.job_ids, most=MAX_JOBS_OF_UPCOMING)
        tenant_id = checks.tenant(caller_of(), request.tenant_id)
        start, end = (
            checks.moment(name, getattr(request, name)) if request.HasField(name) else None
            for name in ("start_time", "end_time")
        )
        if start is not None and end is not None and end <= start:
            checks.refuse("end_time", "It is not after start_time; no instant lies between them.")
        page_size = checks.page_size(request.page_size)
        after = moment_from(request, checks=checks)
        checks.done()
        runs, last = await self._upcoming.list_upcoming_runs(
            job_ids, tenant_id=tenant_id, start=start, end=end, page_size=page_size, after=after
        )
        return messages.ListUpcomingRunsResponse(
            runs=[upcoming_run_to(run) for run in runs],
            next_page_token=token_after_moment(request, last),
        )

    async def PauseJob(
        self, request: messages.PauseJobRequest, context: Any
    ) -> messages.PauseJobResponse:
        checks = Checks()
        job_id = checks.required_id("job_id", request.job_id)
        note = checks.prose("note", request.note, longest=LONGEST_NOTE)
        idempotency = idempotency_from(request, checks=checks)
        checks.done()
        job = await self._jobs.pause_job(
            job_id, tenant_id=caller_of().tenant_id, note=note, idempotency=idempotency
        )
        return messages.PauseJobResponse(job=job_to(job))

    async def ResumeJob(
        self, request: messages.ResumeJobRequest, context: Any
    ) -> messages.ResumeJobResponse:
        checks = Checks()
        job_id = checks.required_id("job_id", request.job_id)
        idempotency = idempotency_from(request, checks=checks)
        checks.done()
        job = await self._jobs.resume_job(
            job_id, tenant_id=caller_of().tenant_id, idempotency=idempotency
        )
        return messages.ResumeJobResponse(job=job_to(job))

    async def ListOccurrences(
        self, request: messages.ListOccurrencesRequest, context: Any
    ) -> messages.ListOccurrencesResponse:
        checks = Checks()
        wanted = occurrence_filter_from(request, caller=caller_of(), checks=checks)
        page_size = checks.page_size(request.page_size)
        after = moment_from(request, checks=checks)
        checks.done()
        found, last = await self._occurrences.list_occurrences(
            wanted, page_size=page_size, before=occurrence_place_from(after)
        )
        return messages.ListOccurrencesResponse(
            occurrences=[occurrence_to(occurrence) for occurrence in found],
            next_page_token=token_after_moment(
                request, None if last is None else (last[0], str(last[1]))
            ),
        )

    async def PlanJob(
        self, request: messages.PlanJobRequest, context: Any
    ) -> messages.PlanJobResponse:
        checks, caller = Checks(), caller_of()
        job_id = checks.required_id("job_id", request.job_id)
        user_ids = checks.names("user_ids", request.user_ids, most=MAX_USERS_OF_RUN)
        checks.done()
        job = await self._jobs.get_job(job_id, tenant_id=caller.tenant_id)
        run = await self._batches.plan_job(job, caller=caller, user_ids=frozenset(user_ids))
        tokens = PlanTokens(tenant_id=caller.tenant_id, job_id=job_id, user_ids=user_ids)
        return messages.PlanJobResponse(
            batch=batch_to(run.batch), plan=plan_to(run.plan), plan_token=tokens.write(run.digest)
        )

    async def BackfillJob(
        self, request: messages.BackfillJobRequest, context: Any
    ) -> messages.BackfillJobResponse:
        checks = Checks()
        idempotency = idempotency_from(request, checks=checks)
        backfill = await self._backfills.backfill_job(
            backfill_range_from(request, checks=checks),
            tenant_id=caller_of().tenant_id,
            idempotency=idempotency,
            validate_only=request.validate_only,
        )
        return backfill_to(backfill)

    async def CancelBackfill(
        self, request: messages.CancelBackfillRequest, context: Any
    ) -> messages.CancelBackfillResponse:
        checks = Checks()
        backfill_id = checks.required_id("backfill_id", request.backfill_id)
        idempotency = idempotency_from(request, checks=checks)
        checks.done()
        count = await self._backfills.cancel_backfill(
            backfill_id, tenant_id=caller_of().tenant_id, idempotency=idempotency
        )
        return messages.CancelBackfillResponse(cancelled_count=count)

    async def RunJob(
        self, request: messages.RunJobRequest, context: Any
    ) -> messages.RunJobResponse:
        checks, caller = Checks(), caller_of()
        job_id = checks.required_id("job_id", request.job_id)
        user_ids = checks.names("user_ids", request.user_ids, most=MAX_USERS_OF_RUN)
        tokens = PlanTokens(tenant_id=caller.tenant_id, job_id=job_id, user_ids=user_ids)
        planned = tokens.read(request.plan_token, checks=checks)
        overlap = overlap_of_run(request.overlap, checks=checks)
        idempotency = idempotency_from(request, checks=checks)
        checks.done()
        batch = await self._batches.run_job(
            job_id,
            caller=caller,
            idempotency=idempotency,
            user_ids=frozenset(user_ids),
            planned=planned,
            overlap=overlap,
        )
        return messages.RunJobResponse(batch=batch_to(batch))
