"""Who is told of the end of a batch: what requests and jobs name, and what the operator allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from batchwork_server.domain.batch import Notice
from batchwork_server.domain.job_file import ReadJob
from batchwork_server.domain.json_object import listed, quoted
from batchwork_server.domain.notification import NotificationTargets
from batchwork_server.errors import FIELD_VIOLATION, Violation

UNKNOWN_TARGET = "UNKNOWN_NOTIFICATION_TARGET"

_NOBODY = "the operator names who can be told in BATCHWORK_NOTIFICATIONS_FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Whom a request or a job wants told.

    Attributes:
        on_complete: Whether it wants anybody told; None when it does not say so.
        names: Whom; empty means the default targets.
        path: Where it says so, with a dot at the end unless it is empty.
    """

    on_complete: bool | None
    names: Sequence[str]
    path: str = ""


def chosen_targets(
    choice: Choice, targets: NotificationTargets, *, tenant_id: str
) -> tuple[tuple[str, ...], list[Violation]]:
    """Returns the names of those who are told, and what is wrong with the choice."""
    if choice.names:
        return _named(choice, targets, tenant_id=tenant_id)
    if not choice.on_complete:
        return (), []
    defaults = targets.defaults(tenant_id=tenant_id)
    if defaults:
        return defaults, []
    known = targets.names(tenant_id=tenant_id)
    advice = f"name one of {listed(known)} in notification_targets" if known else _NOBODY
    message = f"There is no default target; {advice}."
    return (), [Violation(f"{choice.path}notify_on_complete", message)]


def _named(
    choice: Choice, targets: NotificationTargets, *, tenant_id: str
) -> tuple[tuple[str, ...], list[Violation]]:
    violations: list[Violation] = []
    if choice.on_complete is False:
        message = "false contradicts notification_targets; leave one of them out."
        violations.append(Violation(f"{choice.path}notify_on_complete", message, FIELD_VIOLATION))
    known = targets.names(tenant_id=tenant_id)
    existing = f"there are {listed(known)}" if known else _NOBODY
    for index, name in enumerate(choice.names):
        if name not in known:
            message = f"There is no target {quoted(name)}; {existing}."
            path = f"{choice.path}notification_targets[{index}]"
            violations.append(Violation(path, message, UNKNOWN_TARGET))
    return tuple(dict.fromkeys(name for name in choice.names if name in known)), violations


def target_violations(
    jobs: Iterable[ReadJob], targets: NotificationTargets, *, tenant_id: str
) -> Iterator[Violation]:
    """Finds jobs that want somebody told whom the operator does not allow."""
    for job in jobs:
        if job.definition is None or _is_told(job):
            continue
        choice = Choice(
            on_complete=job.definition.notify_on_complete,
            names=job.definition.notification_targets,
            path=f"{job.path}.",
        )
        yield from chosen_targets(choice, targets, tenant_id=tenant_id)[1]


def _is_told(job: ReadJob) -> bool:
    """Tells whether it was noted already that a name is none; the others have other places then."""
    place = f"{job.path}.notif"
    return any(violation.path.startswith(place) for violation in job.violations)


def as_notices(violations: Sequence[Violation]) -> list[Notice]:
    """Returns what is wrong as warnings: a run is not held up by whom nobody can tell any more."""
    return [
        Notice(reason=UNKNOWN_TARGET, path=found.path, message=found.message)
        for found in violations
    ]
