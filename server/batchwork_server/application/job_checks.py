"""What a definition of a job is refused for, besides what it says by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from batchwork_server.domain.batch import Template
from batchwork_server.domain.job import JobDefinition
from batchwork_server.domain.job_file import ReadJob
from batchwork_server.domain.json_object import listed, quoted
from batchwork_server.errors import Violation

UNKNOWN_OPERATION = "UNKNOWN_OPERATION"
UNKNOWN_TEMPLATE = "UNKNOWN_TEMPLATE"


def definitions_by_path(jobs: Iterable[ReadJob]) -> dict[str, JobDefinition]:
    """Returns what was read of jobs, by where they stand."""
    return {job.path: job.definition for job in jobs if job.definition is not None}


def template_violations(
    jobs: Iterable[ReadJob], templates: Sequence[Template]
) -> Iterator[Violation]:
    """Finds templates and operations that do not exist, and jobs that have no template at all."""
    known = KnownTemplates.of(templates)
    for job in jobs:
        yield from known.violations_of(job)


def default_template(
    templates: Iterable[Template], *, operation: str, feature_type: str
) -> Template | None:
    """Returns the first template that is the default of an operation or a feature."""
    defaults = (
        each
        for each in templates
        if each.is_default_of(operation=operation, feature_type=feature_type)
    )
    return next(defaults, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTemplates:
    """What templates there are, and what has one by default."""

    templates: Sequence[Template]
    ids: Sequence[str]
    operations: Sequence[str]
    feature_types: frozenset[str]

    @classmethod
    def of(cls, templates: Sequence[Template]) -> KnownTemplates:
        return cls(
            templates=templates,
            ids=sorted(template.template_id for template in templates),
            operations=sorted({name for template in templates for name in template.operations}),
            feature_types=frozenset(name for each in templates for name in each.feature_types),
        )

    def template_of(self, job: JobDefinition) -> Template | None:
        """Returns what processes the items of a job; none when there is no such template."""
        if job.template_id:
            found = (each for each in self.templates if each.template_id == job.template_id)
            return next(found, None)
        return self.default_of(operation=job.operation, feature_type=job.feature_type)

    def default_of(self, *, operation: str, feature_type: str) -> Template | None:
        """Returns what processes what names no template."""
        return default_template(self.templates, operation=operation, feature_type=feature_type)

    def violations_of(self, job: ReadJob) -> Iterator[Violation]:
        """Yields what is wrong with the template and the operation that a job names."""
        if job.definition is not None:
            yield from _of_job(job, job.definition, self)


def _of_job(read: ReadJob, job: JobDefinition, known: KnownTemplates) -> Iterator[Violation]:
    path = read.path
    if job.operation and job.operation not in known.operations:
        message = f"There is no operation {quoted(job.operation)}; there are "
        yield Violation(
            f"{path}.operation", f"{message}{listed(known.operations)}.", UNKNOWN_OPERATION
        )
    if job.template_id and job.template_id not in known.ids:
        message = f"There is no template {quoted(job.template_id)}; there are "
        yield Violation(f"{path}.template_id", f"{message}{listed(known.ids)}.", UNKNOWN_TEMPLATE)
    names_none = not job.template_id and not job.operation
    if names_none and job.feature_type not in known.feature_types and not _is_told(read):
        message = f"The feature {quoted(job.feature_type)} has no default template; name one of "
        yield Violation(f"{path}.template_id", f"{message}{listed(known.ids)}.")


def _is_told(job: ReadJob) -> bool:
    """Tells whether it was noted already that a job names no template."""
    places = {f"{job.path}.{name}" for name in ("template_id", "operation", "feature_type")}
    return any(violation.path in places for violation in job.violations)
