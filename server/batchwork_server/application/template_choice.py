"""Finds the template of a submission."""

from __future__ import annotations

from collections.abc import Iterable

from batchwork_server.application.job_checks import default_template
from batchwork_server.domain.batch import Template
from batchwork_server.domain.submission import Submission
from batchwork_server.errors import Violation
from batchwork_server.ports import TemplateService


async def choose_template(
    templates: TemplateService, submission: Submission
) -> tuple[Template | None, list[Violation]]:
    """Returns the template that a submission names, or the default one of what it is about.

    Returns:
        None instead of a template when there is none; then the violations say why.
    """
    known = await templates.all()
    violations: list[Violation] = []
    operations = {name for template in known for name in template.operations}
    if submission.operation and submission.operation not in operations:
        violations.append(
            unknown_name("UNKNOWN_OPERATION", "operation", submission.operation, operations)
        )
    if submission.template_id:
        found = await templates.get(submission.template_id)
        if found is None:
            ids = [template.template_id for template in known]
            violations.append(
                unknown_name("UNKNOWN_TEMPLATE", "template_id", submission.template_id, ids)
            )
        return found, violations
    found = default_template(
        known, operation=submission.operation, feature_type=submission.feature_type
    )
    if found is None and not violations:
        violations.append(
            Violation(
                "template_id",
                f"Name a template, or an operation that has a default one ({_listed(operations)}).",
            )
        )
    return found, violations


def unknown_name(reason: str, path: str, value: str, existing: Iterable[str]) -> Violation:
    """Returns the violation of a field that names something which is not there."""
    what = path.removesuffix("_id")
    return Violation(path, f"There is no {what} {value!r}; there is {_listed(existing)}.", reason)


def _listed(names: Iterable[str]) -> str:
    known = sorted(names)
    more = f" and {len(known) - 20} more" if len(known) > 20 else ""
    return (", ".join(known[:20]) + more) or "none"
