"""The use case of a batch that is looked at before it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from batchwork_server.application.notices import FILTER_MATCHES_NOTHING
from batchwork_server.application.planning import Plan, Planning
from batchwork_server.domain.batch import Notice
from batchwork_server.domain.json_object import quoted
from batchwork_server.domain.submission import Submission
from batchwork_server.errors import InvalidArgument, Violation
from batchwork_server.store.store import BatchStore

NOTHING_TO_PROCESS = "NOTHING_TO_PROCESS"
RESOURCE_EXISTS = "RESOURCE_EXISTS"

_WORK = ("operation", "template_id")
"""What names the work; what is wrong with one of them says something of the other one, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReport:
    """What was found of a batch.

    Attributes:
        plan: Of what it would be made; none when something is wrong that hides it.
    """

    violations: Sequence[Violation]
    notices: Sequence[Notice]
    plan: Plan | None


class BatchValidation:
    """Compares a request for a batch with the world, and stores nothing."""

    def __init__(self, *, planning: Planning, batches: BatchStore) -> None:
        self._planning = planning
        self._batches = batches

    async def validate_batch(
        self, submission: Submission, *, found: Sequence[Violation], tenant_id: str
    ) -> BatchReport:
        """Returns everything that is wrong with a submission or may not be meant.

        Args:
            submission: Without what is wrong in itself.
            found: What is wrong in itself.
            tenant_id: For whom the batch would be.

        Raises:
            Unavailable: a source is away, and no verdict could be reached.
        """
        violations = [*found, *await self._taken(submission, tenant_id=tenant_id)]
        if not found:
            try:
                plan = await self._planning.plan(submission, tenant_id=tenant_id)
            except InvalidArgument as refusal:
                more: Iterable[Violation] = refusal.violations
            else:
                notices = [*plan.request.notices, *_about_plan(plan, submission)]
                return BatchReport(violations=violations, notices=notices, plan=plan)
        else:
            more = ()
        missing, notices = await self._planning.problems(submission, tenant_id=tenant_id)
        new = more or [each for each in missing if not _is_said(each, found)]
        return BatchReport(violations=[*violations, *new], notices=notices, plan=None)

    async def _taken(self, submission: Submission, *, tenant_id: str) -> list[Violation]:
        batch_id = submission.batch_id
        if not batch_id or await self._batches.get(batch_id, tenant_id=tenant_id) is None:
            return []
        message = f"There is a batch {quoted(batch_id)} already; leave the id out, or change it."
        return [Violation("batch_id", message, RESOURCE_EXISTS)]


def _is_said(violation: Violation, found: Iterable[Violation]) -> bool:
    """Tells whether something is wrong only because something else is, which was told."""
    related = _WORK if violation.path in _WORK else (violation.path,)
    return any(each.path in related for each in found)


def _about_plan(plan: Plan, submission: Submission) -> Iterable[Notice]:
    request = plan.request
    selected = max(request.user_validation.total, request.reference_validation.categories.total)
    if submission.is_draft:
        return
    if not selected and not plan.items:
        category = " and ".join(quoted(category) for category in submission.categories)
        yield Notice(
            reason=FILTER_MATCHES_NOTHING,
            path="filters",
            message=f"No item of {category} matches now.",
        )
    elif all(item.skip_reason for item in plan.items):
        yield Notice(
            reason=NOTHING_TO_PROCESS,
            path="items" if submission.items is not None else "category",
            message="Every item would be skipped or left out; the plan says why.",
        )
