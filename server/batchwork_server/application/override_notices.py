"""Overrides that the template behind them does not know, or does not allow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchwork_server.application.job_checks import KnownTemplates
from batchwork_server.domain.batch import Notice, Template
from batchwork_server.domain.filters import JobFilter
from batchwork_server.domain.json_object import child_path, listed, quoted
from batchwork_server.domain.template_overrides import KNOWN_OVERRIDES
from batchwork_server.errors import SourceUnavailable
from batchwork_server.ports import TemplateService
from batchwork_server.store.store import JobStore

UNKNOWN_OVERRIDE = "UNKNOWN_OVERRIDE"
OVERRIDE_NOT_ALLOWED = "OVERRIDE_NOT_ALLOWED"

MOST_JOBS = 100
"""So many jobs of a feature are looked at; the others hardly know other overrides."""

MOST_NOTICES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class SaidOverrides:
    """What somebody says of a feature's template, and where."""

    path: str
    feature_type: str
    overrides: Mapping[str, Any]


class OverrideNotices:
    """Compares overrides with the templates of the jobs that they are for."""

    def __init__(self, *, jobs: JobStore, templates: TemplateService) -> None:
        self._jobs = jobs
        self._templates = templates

    async def of(self, said: Iterable[SaidOverrides], *, tenant_id: str) -> tuple[Notice, ...]:
        """Returns what is to be noticed, in the order of what was said; at most a thousand.

        While the templates are away nothing can be: what was said is kept either way.
        """
        said = [each for each in said if each.overrides]
        if not said:
            return ()
        try:
            known = KnownTemplates.of(await self._templates.all())
        except SourceUnavailable:
            return ()
        by_feature = {
            feature_type: await self._templates_of(feature_type, known, tenant_id=tenant_id)
            for feature_type in {each.feature_type for each in said}
        }
        notices = [
            notice
            for each in said
            for notice in override_notices(
                each.overrides, path=each.path, templates=by_feature[each.feature_type]
            )
        ]
        return tuple(notices[:MOST_NOTICES])

    async def _templates_of(
        self, feature_type: str, known: KnownTemplates, *, tenant_id: str
    ) -> Sequence[Template]:
        """Returns the templates of the jobs that the feature drives, or that of the feature."""
        jobs, _ = await self._jobs.list(
            JobFilter(tenant_id=tenant_id, feature_type=feature_type),
            page_size=MOST_JOBS,
            after=None,
        )
        templates = [known.template_of(job.definition) for job in jobs]
        if not jobs:
            templates = [known.default_of(operation="", feature_type=feature_type)]
        return [template for template in templates if template is not None]


def override_notices(
    overrides: Mapping[str, Any], *, path: str, templates: Sequence[Template]
) -> Iterator[Notice]:
    """Yields a notice for each override that no template knows, or one does not allow.

    Args:
        overrides: JSON values.
        path: Where they stand.
        templates: Those that they are for. When one of them does not say which it knows, none is
            unknown.
    """
    declared = [template.overrides for template in templates]
    says_all = bool(declared) and None not in declared
    known = sorted({*KNOWN_OVERRIDES, *(name for each in declared for name in each or ())})
    for name, value in overrides.items():
        place = child_path(path, name)
        if says_all and name not in known:
            ids = listed(sorted({template.template_id for template in templates}))
            message = f"{quoted(name)} is no override of {ids}; there are {listed(known)}."
            yield Notice(reason=UNKNOWN_OVERRIDE, path=place, message=message)
            continue
        problems = [
            (template.template_id, problem)
            for template in templates
            if value is not None and name in (template.overrides or {})
            for problem in [(template.overrides or {})[name].problem_of(value)]
            if problem
        ]
        for template_id, problem in problems[:1]:
            message = f"{problem} With the template {quoted(template_id)} its default counts."
            yield Notice(reason=OVERRIDE_NOT_ALLOWED, path=place, message=message)
