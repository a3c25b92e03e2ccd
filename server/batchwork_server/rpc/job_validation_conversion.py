"""Validated jobs between the contract and the use case."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from batchwork.v1 import validation_service_pb2 as messages
from batchwork.v1.batch_pb2 import Violation as ViolationMessage
from batchwork.v1.job_pb2 import Job

from batchwork_server.application.job_validation import JobReport, JobsReport
from batchwork_server.domain.batch import Notice
from batchwork_server.domain.job_file import ReadJob, ReadJobFile, repeated_id
from batchwork_server.errors import Violation
from batchwork_server.rpc.batch_conversion import warnings_to
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.job_conversion import JOB_FIELDS, contract_path, job_reading

MOST_LISTED = 1000
"""So many violations, and so many warnings, are listed at most."""


def path_of_job(index: int) -> str:
    return f"jobs[{index}]"


def jobs_from(jobs: Sequence[Job]) -> ReadJobFile:
    """Reads jobs by the rules of ``CreateJob``; what is wrong with one is told with it."""
    return ReadJobFile(jobs=tuple(_read_jobs(jobs)))


def jobs_report_to(report: JobsReport, *, of_file: bool) -> messages.ValidateJobsResponse:
    """Returns the answer.

    Args:
        of_file: Whether paths are those of a job file already.
    """
    violations = islice(_violations(report), MOST_LISTED)
    notices = islice(_notices(report), MOST_LISTED)
    response = messages.ValidateJobsResponse(
        results=[_job_to(job) for job in report.jobs],
        totals=messages.JobValidationTotals(
            total=len(report.jobs),
            valid=report.valid,
            invalid=len(report.jobs) - report.valid,
            violations=report.violation_count,
            warnings=report.notice_count,
        ),
    )
    for index, violation in violations:
        owner = response if index is None else response.results[index]
        owner.violations.append(violation_to(violation))
    for index, notice in notices:
        owner = response if index is None else response.results[index]
        path = notice.path if of_file else contract_path(notice.path)
        owner.warnings.extend(warnings_to([replace(notice, path=path)]))
    return response


def violation_to(violation: Violation) -> ViolationMessage:
    return ViolationMessage(reason=violation.reason, path=violation.path, message=violation.message)


def _read_jobs(jobs: Sequence[Job]) -> Iterator[ReadJob]:
    first_places: dict[str, int] = {}
    for index, job in enumerate(jobs):
        path = path_of_job(index)
        definition, violations = job_reading(job, JOB_FIELDS, checks=Checks(), path=path)(None)
        found = list(violations)
        first = first_places.setdefault(job.job_id, index) if job.job_id else index
        if first != index:
            found.append(repeated_id(job.job_id, path=f"{path}.job_id", first=first))
        yield ReadJob(path=path, definition=definition, violations=tuple(found))


def _job_to(job: JobReport) -> messages.JobValidation:
    return messages.JobValidation(path=job.path, job_id=job.job_id, valid=not job.violations)


def _violations(report: JobsReport) -> Iterator[tuple[int | None, Violation]]:
    """Yields each violation with the place of its job."""
    yield from ((None, violation) for violation in report.violations)
    for index, job in enumerate(report.jobs):
        yield from ((index, violation) for violation in job.violations)


def _notices(report: JobsReport) -> Iterator[tuple[int | None, Notice]]:
    """Yields each notice with the place of its job."""
    yield from ((None, notice) for notice in report.notices)
    for index, job in enumerate(report.jobs):
        yield from ((index, notice) for notice in job.notices)
