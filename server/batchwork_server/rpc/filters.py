"""What a list request keeps, checked and in the words of the use cases."""

from __future__ import annotations

from datetime import datetime, timedelta

from batchwork.v1.batch_service_pb2 import (
    GetBatchStatisticsRequest,
    ListBatchesRequest,
    ListItemsRequest,
    PurgeBatchesRequest,
    WatchBatchesRequest,
)
from batchwork.v1.job_service_pb2 import ListJobsRequest
from batchwork.v1.preference_service_pb2 import ListPreferencesRequest
from google.protobuf.timestamp_pb2 import Timestamp

from batchwork_server.domain.batch import BatchState
from batchwork_server.domain.caller import Caller
from batchwork_server.domain.filters import BatchFilter, ItemFilter, JobFilter, PreferenceFilter
from batchwork_server.rpc.batch_conversion import BATCH_STATE_FROM, BATCH_STATE_TO
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.item_conversion import ITEM_STATE_FROM
from batchwork_server.rpc.job_conversion import SHAPE_FROM

MAX_SKIP = 100_000
MAX_DAYS = 36_500


def skip_from(request: ListBatchesRequest, *, checks: Checks) -> int:
    """Returns how many batches to leave out before the first page."""
    if request.skip and request.page_token:
        checks.refuse("skip", "A page token says where to go on; leave skip out.")
    return checks.whole("skip", request.skip, least=0, most=MAX_SKIP)


def batch_filter_from(
    request: ListBatchesRequest | GetBatchStatisticsRequest, *, caller: Caller, checks: Checks
) -> BatchFilter:
    return BatchFilter(
        tenant_id=checks.scope(caller, request.tenant_id),
        states=checks.choices("states", request.states, BATCH_STATE_FROM),
        operation=checks.line("operation", request.operation),
        job_id=checks.optional_id("job_id", request.job_id),
        labels=checks.labels("labels", request.labels),
        user_id=checks.line("user_id", request.user_id),
        feature_type=checks.line("feature_type", request.feature_type),
        created_after=_moment(request, "created_after", request.created_after, checks=checks),
        created_before=_moment(request, "created_before", request.created_before, checks=checks),
    )


def watch_filter_from(
    request: WatchBatchesRequest, *, caller: Caller, checks: Checks
) -> BatchFilter:
    return BatchFilter(
        tenant_id=checks.scope(caller, request.tenant_id),
        operation=checks.line("operation", request.operation),
        job_id=checks.optional_id("job_id", request.job_id),
        labels=checks.labels("labels", request.labels),
        feature_type=checks.line("feature_type", request.feature_type),
    )


def _moment(
    request: ListBatchesRequest | GetBatchStatisticsRequest,
    name: str,
    value: Timestamp,
    *,
    checks: Checks,
) -> datetime | None:
    return checks.moment(name, value) if request.HasField(name) else None  # type: ignore[arg-type]


def item_filter_from(request: ListItemsRequest, *, checks: Checks) -> ItemFilter:
    least = most = None
    if request.HasField("min_quality_score"):
        least = checks.ratio("min_quality_score", request.min_quality_score)
    if request.HasField("max_quality_score"):
        most = checks.ratio("max_quality_score", request.max_quality_score)
    return ItemFilter(
        states=checks.choices("states", request.states, ITEM_STATE_FROM),
        user_id=checks.line("user_id", request.user_id),
        error_reason=checks.line("error_reason", request.error_reason),
        skip_reason=checks.line("skip_reason", request.skip_reason),
        min_quality_score=least,
        max_quality_score=most,
    )


def older_than_from(request: PurgeBatchesRequest, *, checks: Checks) -> timedelta:
    """Returns how long ago batches have to be over."""
    if not request.HasField("older_than_days"):
        checks.refuse("older_than_days", "This field is required; 0 means all that are over.")
    days = checks.whole("older_than_days", request.older_than_days, least=0, most=MAX_DAYS)
    return timedelta(days=days)


def final_states_from(request: PurgeBatchesRequest, *, checks: Checks) -> tuple[BatchState, ...]:
    """Returns the states that are asked for, each of which has to be final."""
    states = checks.choices("states", request.states, BATCH_STATE_FROM)
    for state in states:
        if not state.is_final:
            index = list(request.states).index(BATCH_STATE_TO[state])
            checks.refuse(
                f"states[{index}]", f"A batch that is {state} is not over, and is never deleted."
            )
    return states


def job_filter_from(request: ListJobsRequest, *, caller: Caller, checks: Checks) -> JobFilter:
    return JobFilter(
        tenant_id=checks.scope(caller, request.tenant_id),
        shape=checks.choice("shape", request.shape, SHAPE_FROM),
        feature_type=checks.line("feature_type", request.feature_type),
        purpose_id=checks.line("purpose_id", request.purpose_id),
    )


def preference_filter_from(
    request: ListPreferencesRequest, *, caller: Caller, checks: Checks
) -> PreferenceFilter:
    return PreferenceFilter(
        tenant_id=checks.scope(caller, request.tenant_id),
        user_id=checks.line("user_id", request.user_id),
        feature_type=checks.line("feature_type", request.feature_type),
        enabled=request.enabled if request.HasField("enabled") else None,
    )
