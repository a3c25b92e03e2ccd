"""What a definition of a job is refused for, besides what it says by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from batchwork_server.domain.batch import Template
from batchwork_server.domain.job import JobDefinition
from batchwork_server.domain.json_object import listed, quoted
from batchwork_server.errors import Violation

UNKNOWN_OPERATION = "UNKNOWN_OPERATION"
UNKNOWN_TEMPLATE = "UNKNOWN_TEMPLATE"


def template_violations(
    jobs: Mapping[str, JobDefinition], templates: Sequence[Template]
) -> Iterator[Violation]:
    """Finds templates and operations that do not exist, and jobs that have no template at all."""
    ids = sorted(template.template_id for template in templates)
    operations = sorted({name for template in templates for name in template.operations})
    feature_types = {name for template in templates for name in template.feature_types}
    for path, job in jobs.items():
        if job.operation and job.operation not in operations:
            message = f"There is no operation {quoted(job.operation)}; there are "
            yield Violation(
                f"{path}.operation", f"{message}{listed(operations)}.", UNKNOWN_OPERATION
            )
        if job.template_id and job.template_id not in ids:
            message = f"There is no template {quoted(job.template_id)}; there are "
            yield Violation(f"{path}.template_id", f"{message}{listed(ids)}.", UNKNOWN_TEMPLATE)
        if not job.template_id and not job.operation and job.feature_type not in feature_types:
            message = (
                f"The feature {quoted(job.feature_type)} has no default template; name one of "
            )
            yield Violation(f"{path}.template_id", f"{message}{listed(ids)}.")
