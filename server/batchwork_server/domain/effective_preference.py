"""What counts for a user: their wish over the tenant's default over the job's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
) -> EffectivePreference:
    """Returns what comes of a user's preference, or of none, with the defaults.

    Without any of them nothing is to be done for the user. Overrides are merged by their names,
    each as a whole.
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
    overrides: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for wish, origin in reversed(said):
        overrides.update(wish.template_overrides)
        origins.update(dict.fromkeys(wish.template_overrides, origin))
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
        override_origins=origins,
        active=preference is None or preference.active,
    )
