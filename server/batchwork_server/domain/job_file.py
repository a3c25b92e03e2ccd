"""Job files: many jobs as one JSON text, in the format of the requirement documents."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from batchwork_server.domain.job import (
    ID_SPELLINGS,
    PAYLOAD_TOO_LARGE,
    JobDefinition,
    read_job,
    render_job,
)
from batchwork_server.domain.json_object import FieldReader, parse_json, quoted
from batchwork_server.errors import Violation

MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_JOBS = 10_000

JOBS_FIELD = "batch_processing_jobs"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadJob:
    """One job, as far as it could be read.

    Attributes:
        path: Where it stands, such as ``$.batch_processing_jobs[0]``.
        definition: Where a field is wrong, something of its type stands in for it; none when there
            are no fields at all.
        violations: All that is wrong with the job by itself.
    """

    path: str
    definition: JobDefinition | None
    violations: tuple[Violation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadJobFile:
    """A job file, as far as it could be read.

    Attributes:
        violations: What is wrong with the file and belongs to none of its jobs.
    """

    jobs: tuple[ReadJob, ...] = ()
    violations: tuple[Violation, ...] = ()

    @property
    def all_violations(self) -> list[Violation]:
        return [*self.violations, *(each for job in self.jobs for each in job.violations)]


def parse_job_file(text: str) -> tuple[list[JobDefinition], list[Violation]]:
    """Reads a job file as the requirement documents have it.

    Returns:
        The jobs that are right, in the order of the file, and every violation with its JSON path.
    """
    file = read_job_file(text)
    jobs = [job.definition for job in file.jobs if job.definition and not job.violations]
    return jobs, file.all_violations


def read_job_file(text: str) -> ReadJobFile:
    """Reads a job file as far as possible."""
    size = len(text.encode(errors="surrogatepass"))
    if size > MAX_FILE_BYTES:
        message = f"The file has {size} bytes; the limit is {MAX_FILE_BYTES}."
        return ReadJobFile(
            violations=(Violation("$", message, PAYLOAD_TOO_LARGE, limit=MAX_FILE_BYTES),)
        )
    document, violations = parse_json(text)
    if violations:
        return ReadJobFile(violations=tuple(violations))
    return _jobs_of_document(document)


def render_job_file(jobs: Iterable[JobDefinition]) -> str:
    """Writes a job file that ``parse_job_file`` reads as equal jobs, in one spelling."""
    document = {JOBS_FIELD: [render_job(job) for job in jobs]}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def repeated_id(job_id: str, *, path: str, first: int) -> Violation:
    """Returns what is wrong with a job whose id an earlier one has."""
    return Violation(path, f"{quoted(job_id)} is the id of job [{first}] already.")


def _jobs_of_document(document: Any) -> ReadJobFile:
    violations: list[Violation] = []
    reader = FieldReader(document, path="$", violations=violations)
    values = [] if violations else _read_list_of_jobs(reader)
    reader.refuse_unknown("a job file")
    return ReadJobFile(jobs=tuple(_read_jobs(values)), violations=tuple(violations))


def _read_jobs(values: list[Any]) -> Iterator[ReadJob]:
    first_places: dict[str, int] = {}
    for index, value in enumerate(values):
        path = f"$.{JOBS_FIELD}[{index}]"
        definition, violations = read_job(value, path=path)
        spelling = next((name for name in ID_SPELLINGS if _has_text(value, name)), None)
        if spelling is not None:  # also in jobs that are wrong in other ways
            first = first_places.setdefault(value[spelling], index)
            if first != index:
                id_path = f"{path}.{spelling}"
                violations.append(repeated_id(value[spelling], path=id_path, first=first))
        yield ReadJob(path=path, definition=definition, violations=tuple(violations))


def _read_list_of_jobs(reader: FieldReader) -> list[Any]:
    if not reader.require(JOBS_FIELD):
        return []
    values = reader.take(JOBS_FIELD)
    if not isinstance(values, list):
        reader.refuse(JOBS_FIELD, f"{quoted(values)} is not a list of jobs.")
        return []
    if len(values) > MAX_JOBS:
        message = f"{len(values)} jobs are too many for one file; the limit is {MAX_JOBS}."
        reader.refuse(JOBS_FIELD, message, reason=PAYLOAD_TOO_LARGE, limit=MAX_JOBS)
        return []
    return values


def _has_text(value: Any, name: str) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get(name), str) and value[name] != ""
