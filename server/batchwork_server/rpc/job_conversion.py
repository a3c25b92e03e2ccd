"""Jobs between the contract and the domain."""

from __future__ import annotations

from batchwork.v1 import job_pb2 as messages
from batchwork.v1 import job_service_pb2 as service_messages
from batchwork.v1.job_service_pb2 import ImportJobsResponse

from batchwork_server.application.jobs import ImportedJobs, JobChange, JobChangeKind
from batchwork_server.domain.job import DataSource, JobShape, PreferenceSource, StoredJob
from batchwork_server.domain.retry import RequestedRetry
from batchwork_server.rpc.batch_conversion import PRIORITY_TO, warnings_to
from batchwork_server.rpc.policy_conversion import failure_policy_to, retry_policy_to
from batchwork_server.rpc.schedule_conversion import schedule_to
from batchwork_server.rpc.values import duration_to, struct_to, timestamp_to

SHAPE_TO = {shape: messages.JobShape.Value(f"JOB_SHAPE_{shape.name}") for shape in JobShape}
SHAPE_FROM: dict[int, JobShape] = {number: shape for shape, number in SHAPE_TO.items()}

_DATA_SOURCE_TO = {
    source: messages.DataSource.Value(f"DATA_SOURCE_{source.name}") for source in DataSource
}
_PREFERENCE_SOURCE_TO = {
    source: messages.PreferenceSource.Value(f"PREFERENCE_SOURCE_{source.name}")
    for source in PreferenceSource
}
_CHANGE_KIND_TO = {
    kind: service_messages.JobChangeKind.Value(f"JOB_CHANGE_KIND_{kind.name}")
    for kind in JobChangeKind
}


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
