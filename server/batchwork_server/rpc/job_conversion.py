"""Jobs between the contract and the domain."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from batchwork.v1 import job_pb2 as messages
from batchwork.v1 import job_service_pb2 as service_messages
from batchwork.v1 import policy_pb2
from batchwork.v1.batch_pb2 import Warning as WarningMessage
from batchwork.v1.job_service_pb2 import ImportJobsResponse
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct

from batchwork_server.application.job_imports import ImportedJobs, JobChange, JobChangeKind
from batchwork_server.application.jobs import JobReading, etag_of
from batchwork_server.domain.batch import Notice
from batchwork_server.domain.failure import FailureAction
from batchwork_server.domain.job import (
    DataSource,
    JobDefinition,
    JobShape,
    PreferenceSource,
    StoredJob,
    read_job,
    render_job,
)
from batchwork_server.domain.job_policies import CatchUp, Overlap
from batchwork_server.domain.json_object import quoted, unsound
from batchwork_server.domain.retry import RequestedRetry
from batchwork_server.domain.schedule import render_schedule
from batchwork_server.errors import Violation
from batchwork_server.rpc.batch_conversion import PRIORITY_TO, warnings_to
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.policy_conversion import (
    USERS_AWAY_FROM,
    USERS_AWAY_TO,
    failure_policy_to,
    retry_policy_to,
)
from batchwork_server.rpc.schedule_conversion import schedule_from, schedule_to
from batchwork_server.rpc.values import duration_to, json_object_from, struct_to, timestamp_to

SHAPE_TO = {shape: messages.JobShape.Value(f"JOB_SHAPE_{shape.name}") for shape in JobShape}
SHAPE_FROM: dict[int, JobShape] = {number: shape for shape, number in SHAPE_TO.items()}

_DATA_SOURCE_TO = {
    source: messages.DataSource.Value(f"DATA_SOURCE_{source.name}") for source in DataSource
}
_PREFERENCE_SOURCE_TO = {
    source: messages.PreferenceSource.Value(f"PREFERENCE_SOURCE_{source.name}")
    for source in PreferenceSource
}
_CATCH_UP_TO = {
    catch_up: policy_pb2.CatchUp.Value(f"CATCH_UP_{catch_up.name}") for catch_up in CatchUp
}
_OVERLAP_TO = {overlap: policy_pb2.Overlap.Value(f"OVERLAP_{overlap.name}") for overlap in Overlap}
_OVERLAP_FROM: dict[int, Overlap] = {number: overlap for overlap, number in _OVERLAP_TO.items()}
_CHANGE_KIND_TO = {
    kind: service_messages.JobChangeKind.Value(f"JOB_CHANGE_KIND_{kind.name}")
    for kind in JobChangeKind
}

_SET_BY_SERVER = frozenset(
    {
        *("tenant_id", "revision", "batch_type", "source", "create_time", "update_time", "etag"),
        *("pause_time", "pause_note"),
    }
)
JOB_FIELDS = tuple(
    field.name
    for field in messages.Job.DESCRIPTOR.fields
    if field.name != "job_id" and field.name not in _SET_BY_SERVER
)
"""What a caller sets of a job, besides its id."""

_FILE_NAMES = {
    "display_name": ("name",),
    "shape": ("type",),
    "preference_source": ("preference_based",),
    "categories": ("categories", "category"),
    "distribution_user_ids": ("distribution",),
}
"""How a job file calls a field that has another name there; the first is written."""

_CONTRACT_NAMES = {
    "id": "job_id",
    "distribution.users": "distribution_user_ids",
    **{name: field for field, names in _FILE_NAMES.items() for name in names},
}
_FIRST_NAME = re.compile(r"^(job|jobs\[\d+\])\.(distribution\.users|\w+)")
_NANOS = 1_000_000_000  # in a second

# A number that stands for nothing goes to the rules of job files as it is, and is refused there.
_WORDS: dict[str, dict[int, str]] = {
    "shape": {number: shape.lower() for shape, number in SHAPE_TO.items()},
    "data_source": {number: source.lower() for source, number in _DATA_SOURCE_TO.items()},
    "priority": {number: priority.lower() for priority, number in PRIORITY_TO.items()},
    "catch_up": {number: catch_up.lower() for catch_up, number in _CATCH_UP_TO.items()},
    "overlap": {number: overlap.lower() for overlap, number in _OVERLAP_TO.items()},
    "users_away": {number: away.lower() for number, away in USERS_AWAY_FROM.items()},
}
_ACTION_WORDS = {
    policy_pb2.FailureAction.Value(f"FAILURE_ACTION_{action.name}"): action.lower()
    for action in FailureAction
}
_PREFERENCE_BASED: dict[int, bool] = {
    number: source is PreferenceSource.DYNAMIC for source, number in _PREFERENCE_SOURCE_TO.items()
}


def job_reading(
    job: messages.Job, fields: Collection[str], *, checks: Checks, path: str = "job"
) -> JobReading:
    """Reads a job by the rules of job files, so that there is one set of rules.

    What is read sets ``fields`` of the stored job, or makes a job of them when there is none. The
    violations are those that ``checks`` has at that time, and those of the job.
    """
    given = dict(_document_of(job, fields, checks=checks, path=path))
    replaced = {name for field in fields for name in _FILE_NAMES.get(field, (field,))}

    def read(stored: JobDefinition | None) -> tuple[JobDefinition | None, list[Violation]]:
        document = {"id": job.job_id} if stored is None else render_job(stored)
        kept = {name: value for name, value in document.items() if name not in replaced}
        definition, violations = read_job(kept | given, path=path)
        in_words = [replace(each, path=contract_path(each.path)) for each in violations]
        return definition, [*checks.violations, *in_words]

    return read


def masked_fields(path: str, mask: FieldMask, job: messages.Job, *, checks: Checks) -> set[str]:
    """Returns the fields to change: those that a mask names; without it those that are set."""
    if not mask.paths:
        return {field.name for field, _ in job.ListFields()}.intersection(JOB_FIELDS)
    for name in mask.paths:
        if name != "*" and name not in JOB_FIELDS:
            known = ", ".join(JOB_FIELDS)
            message = f"{quoted(name)} is no field of a job that can be changed; those are {known}."
            checks.refuse(path, message)
    return set(JOB_FIELDS if "*" in mask.paths else mask.paths).intersection(JOB_FIELDS)


def contract_path(path: str) -> str:
    """Returns where a job has what stands in a job file at a path below ``job`` or ``jobs[0]``."""
    if path == "$":  # the whole file
        return "job"
    return _FIRST_NAME.sub(
        lambda found: f"{found[1]}.{_CONTRACT_NAMES.get(found[2], found[2])}", path
    )


def job_warnings_to(notices: Sequence[Notice]) -> list[WarningMessage]:
    return warnings_to(replace(notice, path=contract_path(notice.path)) for notice in notices)


def _document_of(
    job: messages.Job, fields: Collection[str], *, checks: Checks, path: str
) -> Iterator[tuple[str, Any]]:
    """Yields the fields of a job that are set, as a job file has them."""
    for field, value in job.ListFields():
        if field.name not in fields:
            continue
        plain = _plain_value(field.name, value, checks=checks, path=f"{path}.{field.name}")
        if plain is not None:
            yield _FILE_NAMES.get(field.name, (field.name,))[0], plain


def _plain_value(name: str, value: Any, *, checks: Checks, path: str) -> Any:
    """Returns a value as a job file has it; none when it is wrong in a way that no file can be."""
    match name:
        case "shape" | "data_source" | "priority" | "catch_up" | "overlap" | "users_away":
            return _WORDS[name].get(value, value)
        case "preference_source":
            return checks.choice(path, value, _PREFERENCE_BASED)
        case "categories" | "notification_targets":
            return list(value)
        case "distribution_user_ids":
            return {"users": list(value)}
        case "schedule":
            schedule = schedule_from(path, value, checks=checks)
            return None if schedule is None else render_schedule(schedule)
        case "filters" | "default_preferences":
            return _plain_object(path, value, checks=checks)
        case "retry_policy":
            return dict(_retry_policy_of(path, value, checks=checks))
        case "failure_policy":
            return dict(_failure_policy_of(value))
        case "batch_timeout" | "catch_up_window":
            return _seconds(path, value, checks=checks)
        case _:
            return value


def _plain_object(path: str, value: Struct, *, checks: Checks) -> dict[str, Any] | None:
    plain = json_object_from(value)
    violations = list(unsound(plain, path=path))
    checks.add(violations)
    return None if violations else plain


def _retry_policy_of(
    path: str, policy: policy_pb2.RetryPolicy, *, checks: Checks
) -> Iterator[tuple[str, Any]]:
    for field, value in policy.ListFields():
        match value:
            case Duration():
                yield field.name, _seconds(f"{path}.{field.name}", value, checks=checks)
            case float():
                yield field.name, value
            case _:
                yield field.name, list(value)


def _failure_policy_of(policy: policy_pb2.FailurePolicy) -> Iterator[tuple[str, Any]]:
    for field, value in policy.ListFields():
        yield field.name, _ACTION_WORDS.get(value, value) if field.name == "action" else value


def _seconds(path: str, value: Duration, *, checks: Checks) -> float | None:
    if abs(value.nanos) < _NANOS and value.seconds * value.nanos >= 0:
        return value.seconds + value.nanos / _NANOS if value.nanos else value.seconds
    checks.refuse(path, f"{value.seconds} s and {value.nanos} ns is no duration.")
    return None


def overlap_of_run(number: int, *, checks: Checks) -> Overlap:
    """Returns what a run on request does about others; unset means that it runs beside them."""
    overlap = checks.choice("overlap", number, _OVERLAP_FROM)
    if overlap is Overlap.QUEUE_ONE:
        message = (
            "A run that waits has no batch yet that could be the answer; leave this out, or say "
            "SKIP, ALLOW or CANCEL_PREVIOUS."
        )
        checks.refuse("overlap", message)
    return overlap or Overlap.ALLOW


def job_to(stored: StoredJob) -> messages.Job:
    job = stored.definition
    return messages.Job(
        job_id=job.job_id,
        tenant_id=stored.tenant_id,
        display_name=job.display_name,
        description=job.description,
        revision=stored.revision,
        shape=SHAPE_TO[job.shape],
        data_source=_DATA_SOURCE_TO[job.data_source],
        preference_source=_PREFERENCE_SOURCE_TO[job.preference_source],
        batch_type=job.batch_type,
        priority=PRIORITY_TO[job.priority],
        categories=job.categories,
        template_id=job.template_id,
        operation=job.operation,
        schedule=None if job.schedule is None else schedule_to(job.schedule),
        filters=struct_to(job.filters),
        limit=job.limit,
        retry_limit=job.retry_limit,
        distribute_results=job.distribute_results,
        distribution_user_ids=job.distribution_user_ids,
        purpose_id=job.purpose_id,
        feature_type=job.feature_type,
        default_preferences=struct_to(job.default_preferences),
        source=stored.source,
        create_time=timestamp_to(stored.create_time),
        update_time=timestamp_to(stored.update_time),
        retry_policy=(
            None if job.retry_policy == RequestedRetry() else retry_policy_to(job.retry_policy)
        ),
        failure_policy=failure_policy_to(job.failure_policy),
        batch_timeout=duration_to(job.batch_timeout),
        catch_up=_CATCH_UP_TO[job.catch_up],
        catch_up_window=duration_to(job.catch_up_window),
        overlap=_OVERLAP_TO[job.overlap],
        users_away=(
            policy_pb2.USERS_AWAY_UNSPECIFIED
            if job.users_away is None
            else USERS_AWAY_TO[job.users_away]
        ),
        etag=etag_of(stored),
        pause_time=timestamp_to(stored.pause_time),
        pause_note=stored.pause_note,
        include_all_users=job.include_all_users,
        notify_on_complete=job.notify_on_complete,
        notification_targets=job.notification_targets,
    )


def imported_jobs_to(imported: ImportedJobs) -> ImportJobsResponse:
    return ImportJobsResponse(
        changes=[_change_to(change) for change in imported.changes],
        warnings=warnings_to(imported.notices),
    )


def _change_to(change: JobChange) -> service_messages.JobChange:
    return service_messages.JobChange(
        job_id=change.job_id,
        kind=_CHANGE_KIND_TO[change.kind],
        revision=change.revision,
        changed_fields=change.changed_fields,
    )
