"""The client of JobService: one method per RPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path

import grpc
from batchwork.v1 import job_service_pb2 as messages
from batchwork.v1.batch_pb2 import Batch
from batchwork.v1.job_pb2 import Job, JobShape
from batchwork.v1.job_service_pb2_grpc import JobServiceStub
from batchwork.v1.policy_pb2 import Overlap
from google.protobuf.field_mask_pb2 import FieldMask

from batchwork_client.calls import Calls, new_request_id
from batchwork_client.instants import timestamp_of


class Jobs:
    """Keeps job definitions and runs them.

    Every method raises a subclass of ``BatchworkError``; the proto lists which.
    """

    def __init__(self, channel: grpc.aio.Channel, calls: Calls) -> None:
        self._stub = JobServiceStub(channel)
        self._calls = calls

    async def import_jobs(
        self,
        jobs: str | PathLike[str],
        *,
        source: str = "",
        validate_only: bool = False,
        prune: bool = False,
        request_id: str | None = None,
    ) -> messages.ImportJobsResponse:
        """Imports a job file, all of it or nothing.

        Args:
            jobs: The JSON text itself, or the path of a file as a ``Path``.
            source: Where the jobs come from, to which they belong from then on.
            validate_only: Answers with the difference and stores nothing.
            prune: Deletes the jobs that belong to ``source`` and are not in the file.
            request_id: Makes a repeat return the first answer; a new one is made when unset.

        Raises:
            InvalidArgumentError: Carries every violation of the file with its JSON path.
            OSError: The file cannot be read.
        """
        text = jobs if isinstance(jobs, str) else await _text_of(jobs)
        return await self._calls.unary(
            self._stub.ImportJobs,
            messages.ImportJobsRequest(
                request_id=request_id or new_request_id(),
                jobs_json=text,
                source=source,
                validate_only=validate_only,
                prune=prune,
            ),
        )

    async def export_jobs(self, job_ids: Sequence[str] = (), *, tenant_id: str = "") -> str:
        """Returns jobs as the JSON text of a job file; no ``job_ids`` means all jobs."""
        response = await self._calls.unary(
            self._stub.ExportJobs,
            messages.ExportJobsRequest(job_ids=job_ids, tenant_id=tenant_id),
        )
        return response.jobs_json

    async def create_job(
        self, job: Job, *, validate_only: bool = False, request_id: str | None = None
    ) -> messages.CreateJobResponse:
        """Creates a job and returns it, with what may not be meant about it.

        Args:
            job: ``job_id`` and ``shape`` are required, and what the shape needs.
            validate_only: Answers with the job as it would be, and stores nothing.
            request_id: Makes a repeat return the first answer; a new one is made when unset.

        Raises:
            InvalidArgumentError: Carries every violation.
            AlreadyExistsError: The id is taken.
        """
        return await self._calls.unary(
            self._stub.CreateJob,
            messages.CreateJobRequest(
                request_id=request_id or new_request_id(), job=job, validate_only=validate_only
            ),
        )

    async def update_job(
        self,
        job: Job,
        *,
        update_mask: Sequence[str] = (),
        etag: str = "",
        validate_only: bool = False,
        request_id: str | None = None,
    ) -> messages.UpdateJobResponse:
        """Changes fields of a job and returns it, with what may not be meant about it.

        Args:
            job: ``job_id`` names it; the other fields are the new values.
            update_mask: The fields to change, ``*`` for all; empty means those that are set.
            etag: Must be that of the stored job; unset changes it whatever it is.
            validate_only: Answers with the job as it would be, and stores nothing.
            request_id: Makes a repeat return the first answer; a new one is made when unset.

        Raises:
            InvalidArgumentError: Carries every violation.
            EtagMismatchError: Somebody changed it; read it again.
        """
        request = messages.UpdateJobRequest(
            request_id=request_id or new_request_id(),
            job=job,
            etag=etag,
            validate_only=validate_only,
        )
        if update_mask:
            request.update_mask.CopyFrom(FieldMask(paths=update_mask))
        return await self._calls.unary(self._stub.UpdateJob, request)

    async def delete_job(
        self,
        job_id: str,
        *,
        etag: str = "",
        allow_missing: bool = False,
        request_id: str | None = None,
    ) -> None:
        """Deletes a job; its batches stay.

        Args:
            job_id: The job.
            etag: Must be that of the stored job; unset deletes it whatever it is.
            allow_missing: Takes a job that is not there for one that is deleted already.
            request_id: Makes a repeat delete nothing more; a new one is made when unset.

        Raises:
            EtagMismatchError: Somebody changed it; read it again.
        """
        await self._calls.unary(
            self._stub.DeleteJob,
            messages.DeleteJobRequest(
                request_id=request_id or new_request_id(),
                job_id=job_id,
                etag=etag,
                allow_missing=allow_missing,
            ),
        )

    async def get_job(self, job_id: str, *, tenant_id: str = "") -> Job:
        """Returns one job."""
        response = await self._calls.unary(
            self._stub.GetJob, messages.GetJobRequest(job_id=job_id, tenant_id=tenant_id)
        )
        return response.job

    def list_jobs(
        self,
        *,
        shape: JobShape.ValueType = JobShape.JOB_SHAPE_UNSPECIFIED,
        feature_type: str = "",
        purpose_id: str = "",
        tenant_id: str = "",
        limit: int | None = None,
    ) -> AsyncIterator[Job]:
        """Yields the jobs for which all given filters hold, by id; at most ``limit``."""

        def request_for(size: int, token: str) -> messages.ListJobsRequest:
            return messages.ListJobsRequest(
                page_size=size,
                page_token=token,
                shape=shape,
                feature_type=feature_type,
                purpose_id=purpose_id,
                tenant_id=tenant_id,
            )

        return self._calls.paged(
            self._stub.ListJobs, request_for, lambda page: page.jobs, limit=limit
        )

    def list_upcoming_runs(
        self,
        job_ids: Sequence[str] = (),
        *,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        tenant_id: str = "",
        limit: int | None = None,
    ) -> AsyncIterator[messages.UpcomingRun]:
        """Yields when jobs are due, in the order of their due times; at most ``limit``.

        Without a ``limit`` and an ``end_time`` that goes on for as long as it is read.

        Args:
            job_ids: The jobs, at most 100; empty means every job that has a schedule.
            start_time: The first instant that counts; unset means now.
            end_time: The first instant that does not count any more.
            tenant_id: Another tenant; operators only.
            limit: The most runs.

        Raises:
            ValueError: A time knows no zone.
        """
        start = timestamp_of("start_time", start_time)
        end = timestamp_of("end_time", end_time)

        def request_for(size: int, token: str) -> messages.ListUpcomingRunsRequest:
            return messages.ListUpcomingRunsRequest(
                page_size=size,
                page_token=token,
                job_ids=job_ids,
                start_time=start,
                end_time=end,
                tenant_id=tenant_id,
            )

        return self._calls.paged(
            self._stub.ListUpcomingRuns, request_for, lambda page: page.runs, limit=limit
        )

    async def pause_job(self, job_id: str, *, note: str = "", request_id: str | None = None) -> Job:
        """Lets the schedule of a job rest, and returns the job; ``run_job`` still runs it.

        Args:
            job_id: The job.
            note: Says why, for people.
            request_id: Makes a repeat return the first answer; a new one is made when unset.
        """
        response = await self._calls.unary(
            self._stub.PauseJob,
            messages.PauseJobRequest(
                request_id=request_id or new_request_id(), job_id=job_id, note=note
            ),
        )
        return response.job

    async def resume_job(self, job_id: str, *, request_id: str | None = None) -> Job:
        """Lets a job run by its schedule again, and returns it; it has not missed anything.

        Args:
            job_id: The job.
            request_id: Makes a repeat return the first answer; a new one is made when unset.
        """
        response = await self._calls.unary(
            self._stub.ResumeJob,
            messages.ResumeJobRequest(request_id=request_id or new_request_id(), job_id=job_id),
        )
        return response.job

    def list_occurrences(
        self,
        job_id: str,
        *,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        backfill_id: str = "",
        tenant_id: str = "",
        limit: int | None = None,
    ) -> AsyncIterator[messages.Occurrence]:
        """Yields what was decided about the due times of a job, newest first; at most ``limit``.

        Args:
            job_id: The job; one that was deleted is known for as long as batches are kept.
            start_time: The first due time that counts.
            end_time: The first due time that does not count any more.
            backfill_id: Only due times that this backfill queued last.
            tenant_id: Another tenant; operators only.
            limit: The most occurrences.

        Raises:
            ValueError: A time knows no zone.
        """
        start = timestamp_of("start_time", start_time)
        end = timestamp_of("end_time", end_time)

        def request_for(size: int, token: str) -> messages.ListOccurrencesRequest:
            return messages.ListOccurrencesRequest(
                page_size=size,
                page_token=token,
                job_id=job_id,
                start_time=start,
                end_time=end,
                backfill_id=backfill_id,
                tenant_id=tenant_id,
            )

        return self._calls.paged(
            self._stub.ListOccurrences, request_for, lambda page: page.occurrences, limit=limit
        )

    async def plan_job(
        self, job_id: str, *, user_ids: Sequence[str] = ()
    ) -> messages.PlanJobResponse:
        """Returns what ``run_job`` would process now, with a token for it; stores nothing.

        Args:
            job_id: The job.
            user_ids: Restricts the run to items of these users; only for INDIVIDUAL jobs.
        """
        return await self._calls.unary(
            self._stub.PlanJob, messages.PlanJobRequest(job_id=job_id, user_ids=user_ids)
        )

    async def backfill_job(
        self,
        job_id: str,
        *,
        start_time: datetime,
        end_time: datetime,
        overlap: messages.BackfillOverlap.ValueType = (
            messages.BackfillOverlap.BACKFILL_OVERLAP_UNSPECIFIED
        ),
        validate_only: bool = False,
        request_id: str | None = None,
    ) -> messages.BackfillJobResponse:
        """Makes up for due times of the past, and tells what becomes of each.

        Args:
            job_id: The job, which may be paused.
            start_time: The first instant that counts.
            end_time: The first instant that does not count any more; not in the future.
            overlap: ALLOW begins all runs at once; unset or QUEUE one after the other.
            validate_only: Answers what it would do, and stores nothing.
            request_id: Makes a repeat return the first answer; a new one is made when unset.

        Raises:
            InvalidArgumentError: The range ends in the future or has too many due times.
            WrongStateError: The job has no schedule of its own.
            ValueError: A time knows no zone.
        """
        return await self._calls.unary(
            self._stub.BackfillJob,
            messages.BackfillJobRequest(
                request_id=request_id or new_request_id(),
                job_id=job_id,
                start_time=timestamp_of("start_time", start_time),
                end_time=timestamp_of("end_time", end_time),
                overlap=overlap,
                validate_only=validate_only,
            ),
        )

    async def cancel_backfill(self, backfill_id: str, *, request_id: str | None = None) -> int:
        """Drops what waits of a backfill, and returns how many due times that were.

        Args:
            backfill_id: The backfill; runs of it that go on are left.
            request_id: Makes a repeat return the first count; a new one is made when unset.
        """
        response = await self._calls.unary(
            self._stub.CancelBackfill,
            messages.CancelBackfillRequest(
                request_id=request_id or new_request_id(), backfill_id=backfill_id
            ),
        )
        return response.cancelled_count

    async def run_job(
        self,
        job_id: str,
        *,
        user_ids: Sequence[str] = (),
        plan_token: str = "",
        overlap: Overlap.ValueType = Overlap.OVERLAP_UNSPECIFIED,
        request_id: str | None = None,
    ) -> Batch:
        """Runs a job now and returns its batch once that is durable.

        Args:
            job_id: The job.
            user_ids: Restricts the run to items of these users; only for INDIVIDUAL jobs.
            plan_token: Runs exactly what ``plan_job`` has shown, or nothing; it needs the same
                ``user_ids``.
            overlap: SKIP refuses while another run goes on, CANCEL_PREVIOUS cancels those; unset
                runs beside them.
            request_id: Makes a repeat return the first batch; a new one is made when unset.

        Raises:
            PlanStaleError: The batch would not be what was planned; plan it again.
            WrongStateError: Another run goes on, and ``overlap`` is SKIP.
        """
        response = await self._calls.unary(
            self._stub.RunJob,
            messages.RunJobRequest(
                request_id=request_id or new_request_id(),
                job_id=job_id,
                user_ids=user_ids,
                plan_token=plan_token,
                overlap=overlap,
            ),
        )
        return response.batch


async def _text_of(path: PathLike[str]) -> str:
    return await asyncio.to_thread(Path(path).read_text, encoding="utf-8")
