"""What counts for a user: their wish over the tenant's default over the job's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchwork_server.domain.declared_overrides import (
    DeclaredOverrides,
    merged_overrides,
    over_defaults,
)
from batchwork_server.domain.job import StoredJob
from batchwork_server.domain.preference import DefaultPreference, Preference, Wish, parse_wish
from batchwork_server.domain.preference_groups import (
    EffectiveSchedule,
    JobTimes,
    Origin,
    effective_schedule,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectivePreference:
    """What counts for one user and one feature, and who said each part of it.

    Attributes:
        schedule: None when nobody names one.
        override_origins: By the names of ``template_overrides``.
        active: False while whoever keeps the user says that nothing is to be done for them.
    """

    enabled: bool
    enabled_origin: Origin
    schedule: EffectiveSchedule | None
    template_overrides: Mapping[str, Any]
    override_origins: Mapping[str, Origin]
    active: bool


def default_wish_of(job: StoredJob) -> Wish | None:
    """Returns the wish of a job for users who say nothing; none when it has none."""
    if not job.definition.default_preferences:
        return None
    wish, _ = parse_wish(job.definition.default_preferences, path="default_preferences")
    return wish


def job_times_of(job: StoredJob) -> JobTimes:
    """Returns what a job says about the schedules of its users."""
    wish, own = default_wish_of(job), job.definition.schedule
    return JobTimes(
        create_time=job.create_time,
        schedule=None if wish is None else wish.schedule,
        time_zone=None if own is None else own.time_zone,
    )


def effective_preference(
    preference: Preference | None,
    *,
    default: DefaultPreference | None,
    job: StoredJob | None,
    server_zone: str,
    declared: DeclaredOverrides | None = None,
) -> EffectivePreference:
    """Returns what comes of a user's preference, or of none, with the defaults.

    Without any of them nothing is to be done for the user, nor for one who has set nothing when
    the job does not include such users.

    Args:
        preference: The user's own.
        default: The tenant's.
        job: What runs for the user.
        server_zone: Where nobody names one.
        declared: The overrides that the job's template knows.
    """
    of_job = default_wish_of(job) if job is not None else None
    said = [
        (wish, origin)
        for wish, origin in (
            (preference, Origin.USER),
            (default, Origin.TENANT_DEFAULT),
            (of_job, Origin.JOB_DEFAULT),
        )
        if wish is not None
    ]
    enabled, enabled_origin = (said[0][0].enabled, said[0][1]) if said else (False, Origin.SERVER)
    if enabled and preference is None and job is not None and not job.definition.include_all_users:
        enabled, enabled_origin = False, Origin.JOB_DEFAULT
    merged = merged_overrides(*(wish.template_overrides for wish, _ in reversed(said)))
    overrides = over_defaults(merged, declared)
    return EffectivePreference(
        enabled=enabled,
        enabled_origin=enabled_origin,
        schedule=effective_schedule(
            preference.schedule if preference is not None else None,
            default=default.schedule if default is not None else None,
            job=job_times_of(job) if job is not None else None,
            server_zone=server_zone,
        ),
        template_overrides=overrides,
        override_origins={
            name: _origin_of(name, value, said=said, merged=merged)
            for name, value in overrides.items()
        },
        active=preference is None or preference.active,
    )


def _origin_of(
    name: str,
    value: Any,
    *,
    said: Sequence[tuple[Preference | DefaultPreference | Wish, Origin]],
    merged: Mapping[str, Any],
) -> Origin:
    """Returns who said what an override is; who comes first in ``said`` counts before others."""
    if merged.get(name) is not value:
        return Origin.TEMPLATE
    return next(origin for wish, origin in said if name in wish.template_overrides)
