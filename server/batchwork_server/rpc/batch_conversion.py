"""Batches between the contract and the domain."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any, Generic, TypeVar

from batchwork.v1 import batch_pb2 as messages
from batchwork.v1 import job_pb2
from batchwork.v1.batch_service_pb2 import (
    BatchEvent,
    BatchEventKind,
    CreateBatchRequest,
    GetBatchResponse,
    WatchBatchesRequest,
    WatchBatchRequest,
)

from batchwork_server.application.planning import Plan
from batchwork_server.application.told import Told
from batchwork_server.domain.batch import (
    Batch,
    BatchOptions,
    BatchRequest,
    BatchState,
    Counts,
    Notice,
    Priority,
    UserValidation,
)
from batchwork_server.domain.distribution import DeliveryCounts
from batchwork_server.domain.item import NewItem
from batchwork_server.domain.job import (
    DEFAULT_LIMIT,
    LONGEST_BATCH_TIMEOUT,
    LONGEST_DESCRIPTION,
    LONGEST_DISPLAY_NAME,
    MAX_RETRY_LIMIT,
    SHORTEST_BATCH_TIMEOUT,
    DataSource,
    JobShape,
    PreferenceSource,
    default_data_source,
)
from batchwork_server.domain.json_object import listed, quoted
from batchwork_server.domain.notification import MAX_TARGETS
from batchwork_server.domain.reference_validation import ReferenceCounts, ReferenceValidation
from batchwork_server.domain.selection import MAX_ITEMS
from batchwork_server.domain.submission import RequestedOptions, Submission
from batchwork_server.domain.waiting import WaitReason
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.item_conversion import item_to, items_from
from batchwork_server.rpc.policy_conversion import (
    USERS_AWAY_FROM,
    USERS_AWAY_TO,
    failure_policy_from,
    failure_policy_to,
    retry_policy_from,
    retry_policy_to,
)
from batchwork_server.rpc.values import duration_to, set_timestamp, struct_to, timestamp_to

MAX_CHUNK_SIZE = 1000
MAX_CONCURRENT_ITEMS = 10_000
LARGEST_METADATA = 64 * 1024
LARGEST_FILTERS = 64 * 1024
SAMPLE_SIZE = 10
LONGEST_DATA_BEGINNING = 500

SHORTEST_TIMEOUT = timedelta(milliseconds=1)
LONGEST_TIMEOUT = timedelta(hours=1)

DEFAULT_INTERVAL = timedelta(milliseconds=250)
DEFAULT_MANY_INTERVAL = timedelta(seconds=1)
SHORTEST_INTERVAL = timedelta(milliseconds=100)
LONGEST_INTERVAL = timedelta(hours=1)

BATCH_STATE_TO = {
    state: messages.BatchState.Value(f"BATCH_STATE_{state.name}") for state in BatchState
}
BATCH_STATE_FROM: dict[int, BatchState] = {
    number: state for state, number in BATCH_STATE_TO.items()
}

PRIORITY_TO = {
    priority: job_pb2.Priority.Value(f"PRIORITY_{priority.name}") for priority in Priority
}

_PRIORITY_FROM: dict[int, Priority] = {number: priority for priority, number in PRIORITY_TO.items()}

_DATA_SOURCES = {"users": DataSource.USERS, "categories": DataSource.CATEGORIES}
_SHAPES = {"individual": JobShape.INDIVIDUAL, "batch": JobShape.OBJECT}


def submission_from(request: CreateBatchRequest, *, checks: Checks) -> Submission:
    """Returns what a request asks for; valid only when ``checks`` found nothing."""
    if request.draft:
        _check_draft(request, checks=checks)
    else:
        _check_origin(request, checks=checks)
    category = checks.line("category", request.category)
    categories = (category,) if category else ()
    metadata = checks.json_object(
        "batch_metadata", request.batch_metadata, most_bytes=LARGEST_METADATA
    )
    meant = _meaning(metadata, "data_source_type", _DATA_SOURCES, checks=checks)
    shape = _meaning(metadata, "processing_method", _SHAPES, checks=checks)
    if request.draft and shape is JobShape.OBJECT:
        checks.refuse(
            "batch_metadata.processing_method",
            "The items of a draft are processed one by one; leave it out, or say 'individual'.",
        )
    return Submission(
        items=items_from(request.items, checks=checks) if request.items or request.draft else None,
        categories=categories,
        filters=checks.json_object("filters", request.filters, most_bytes=LARGEST_FILTERS),
        limit=checks.set_whole("limit", request.limit, least=1, most=MAX_ITEMS) or DEFAULT_LIMIT,
        shape=shape or JobShape.INDIVIDUAL,
        data_source=meant or default_data_source(categories, PreferenceSource.STATIC),
        template_id=checks.line("template_id", request.template_id),
        operation=checks.line("operation", request.operation),
        options=_options_from(request.options, checks=checks),
        batch_id=checks.optional_id("batch_id", request.batch_id),
        display_name=checks.line(
            "display_name", request.display_name, longest=LONGEST_DISPLAY_NAME
        ),
        description=checks.prose("description", request.description, longest=LONGEST_DESCRIPTION),
        source=checks.source("source", request.source),
        purpose_id=checks.line("purpose_id", request.purpose_id),
        labels=checks.labels("labels", request.labels),
        batch_metadata=metadata,
        is_draft=request.draft,
    )


def _check_draft(request: CreateBatchRequest, *, checks: Checks) -> None:
    """Checks that nothing is to be selected: the items of a draft are uploaded."""
    for name, is_given in (
        ("category", request.category != ""),
        ("filters", request.HasField("filters")),
        ("limit", request.limit != 0),
    ):
        if is_given:
            checks.refuse(name, "The items of a draft are uploaded, not selected; leave this out.")


def _check_origin(request: CreateBatchRequest, *, checks: Checks) -> None:
    """Checks that the items come from one place, and that nothing narrows what is inline."""
    if request.items and request.category:
        checks.refuse("category", "There are inline items, too; give either items or a category.")
    if request.category:
        return
    if not request.items:
        checks.refuse("items", "Give either items or a category.")
    if request.HasField("filters"):
        checks.refuse("filters", "Filters narrow a category; leave them out with inline items.")
    if request.limit:
        checks.refuse("limit", "A limit bounds a category; leave it out with inline items.")


def _meaning(
    metadata: Mapping[str, Any], name: str, meanings: Mapping[str, Any], *, checks: Checks
) -> Any:
    """Returns what an entry of the metadata stands for; none when it is absent."""
    if name not in metadata:
        return None
    word = metadata[name]
    if isinstance(word, str) and word in meanings:
        return meanings[word]
    message = f"{quoted(word)} is none of {listed(tuple(meanings))}."
    checks.refuse(f"batch_metadata.{name}", message)
    return None


def _options_from(options: messages.BatchOptions, *, checks: Checks) -> RequestedOptions:
    retry_limit = item_timeout = batch_timeout = failure_policy = None
    if options.HasField("retry_limit"):
        retry_limit = checks.whole(
            "options.retry_limit", options.retry_limit, least=0, most=MAX_RETRY_LIMIT
        )
    if options.HasField("item_timeout"):
        item_timeout = checks.duration(
            "options.item_timeout",
            options.item_timeout,
            least=SHORTEST_TIMEOUT,
            most=LONGEST_TIMEOUT,
        )
    if options.HasField("batch_timeout"):
        batch_timeout = checks.duration(
            "options.batch_timeout",
            options.batch_timeout,
            least=SHORTEST_BATCH_TIMEOUT,
            most=LONGEST_BATCH_TIMEOUT,
        )
    if options.HasField("failure_policy"):
        failure_policy = failure_policy_from(
            "options.failure_policy", options.failure_policy, checks=checks
        )
    return RequestedOptions(
        model=checks.line("options.model", options.model),
        chunk_size=checks.set_whole(
            "options.chunk_size", options.chunk_size, least=1, most=MAX_CHUNK_SIZE
        ),
        retry_limit=retry_limit,
        item_timeout=item_timeout,
        priority=checks.choice("options.priority", options.priority, _PRIORITY_FROM),
        max_concurrent_items=checks.set_whole(
            "options.max_concurrent_items",
            options.max_concurrent_items,
            least=1,
            most=MAX_CONCURRENT_ITEMS,
        ),
        retry=retry_policy_from("options.retry_policy", options.retry_policy, checks=checks),
        batch_timeout=batch_timeout,
        failure_policy=failure_policy,
        notify_on_complete=(
            options.notify_on_complete if options.HasField("notify_on_complete") else None
        ),
        notification_targets=checks.names(
            "options.notification_targets", options.notification_targets, most=MAX_TARGETS
        ),
        users_away=checks.choice("options.users_away", options.users_away, USERS_AWAY_FROM),
    )


def interval_from(request: WatchBatchRequest, *, checks: Checks) -> timedelta:
    """Returns the shortest time between two PROGRESS messages, and checks what else to tell."""
    if request.only_failed_items and not request.include_items:
        checks.refuse("only_failed_items", "This restricts items; ask for them by include_items.")
    return _interval_from(request, unset=DEFAULT_INTERVAL, checks=checks)


def many_interval_from(request: WatchBatchesRequest, *, checks: Checks) -> timedelta:
    """Returns the shortest time between two PROGRESS messages of one batch."""
    return _interval_from(request, unset=DEFAULT_MANY_INTERVAL, checks=checks)


def _interval_from(
    request: WatchBatchRequest | WatchBatchesRequest, *, unset: timedelta, checks: Checks
) -> timedelta:
    if not request.HasField("min_interval"):
        return unset
    asked = checks.duration(
        "min_interval", request.min_interval, least=timedelta(0), most=LONGEST_INTERVAL
    )
    return max(asked, SHORTEST_INTERVAL)


def batch_to(batch: Batch, waits: Iterable[WaitReason] = ()) -> messages.Batch:
    """Returns the message; what never changes of a batch is made once and copied."""
    message = messages.Batch()
    message.CopyFrom(_request_to(batch.request))
    message.batch_id = batch.batch_id
    message.tenant_id = batch.tenant_id
    message.state = BATCH_STATE_TO[batch.state]
    message.progress_ratio = batch.counts.progress_ratio
    message.counts.MergeFrom(counts_to(batch.counts))
    for timestamp, moment in (
        (message.create_time, batch.create_time),
        (message.start_time, batch.start_time),
        (message.end_time, batch.end_time),
        (message.update_time, batch.update_time),
    ):
        if moment is not None:
            set_timestamp(timestamp, moment)
    message.attempt_number = batch.attempt_number
    if batch.state_reason:
        message.state_reason = batch.state_reason
        message.state_message = batch.state_message
    if batch.resume_time is not None:
        set_timestamp(message.resume_time, batch.resume_time)
    if batch.expire_time is not None:
        set_timestamp(message.expire_time, batch.expire_time)
    if batch.upload_offset:
        message.upload_offset = batch.upload_offset
    for wait in waits:
        _add_wait(message, wait)
    return message


def _add_wait(message: messages.Batch, wait: WaitReason) -> None:
    added = message.wait_reasons.add(reason=wait.reason, message=wait.message)
    if wait.until is not None:
        set_timestamp(added.until, wait.until)


_Value = TypeVar("_Value")
_Message = TypeVar("_Message")


class _Made(Generic[_Value, _Message]):
    """The messages of the values that were asked for last, each made once; nobody changes them.

    A value is frozen, and whoever shows it again holds on to it, so its identity is its key; it is
    kept beside its message, so that the identity stays its own.
    """

    def __init__(self, make: Callable[[_Value], _Message], *, most: int) -> None:
        self._make = make
        self._most = most
        self._made: OrderedDict[int, tuple[_Value, _Message]] = OrderedDict()

    def __call__(self, value: _Value) -> _Message:
        found = self._made.get(id(value))
        if found is None:
            found = self._made[id(value)] = (value, self._make(value))
            if len(self._made) > self._most:
                self._made.popitem(last=False)
        return found[1]


def _make_request(request: BatchRequest) -> messages.Batch:
    return messages.Batch(
        display_name=request.display_name,
        description=request.description,
        source=request.source,
        operation=request.operation,
        template_id=request.template.template_id,
        processor=request.template.processor,
        job_id=request.job_id,
        job_revision=request.job_revision,
        purpose_id=request.purpose_id,
        feature_type=request.feature_type,
        batch_type=request.batch_type,
        categories=request.categories,
        filters=struct_to(request.filters),
        options=_options_to(request.options),
        labels=request.labels,
        batch_metadata=struct_to(request.batch_metadata),
        user_validation=user_validation_to(request.user_validation),
        reference_validation=reference_validation_to(request.reference_validation),
        warnings=warnings_to(request.notices),
        due_time=timestamp_to(request.due_time),
    )


_request_to = _Made(_make_request, most=512)


def answer_to(batch: Batch, waits: Sequence[WaitReason]) -> GetBatchResponse:
    """Returns the answer to GetBatch. Callers ask again and again for what has not changed."""
    return _make_answer(batch, waits) if waits else _answer_without_waits(batch)


def _make_answer(batch: Batch, waits: Iterable[WaitReason] = ()) -> GetBatchResponse:
    return GetBatchResponse(batch=batch_to(batch, waits))


_answer_without_waits = _Made(_make_answer, most=64)


def counts_to(counts: Counts) -> messages.BatchCounts:
    return messages.BatchCounts(
        total=counts.total,
        pending=counts.pending,
        running=counts.running,
        succeeded=counts.succeeded,
        failed=counts.failed,
        skipped=counts.skipped,
        cancelled=counts.cancelled,
        expired=counts.expired,
        retries=counts.retries,
    )


def warnings_to(notices: Iterable[Notice]) -> list[messages.Warning]:
    return [
        messages.Warning(reason=notice.reason, path=notice.path, message=notice.message)
        for notice in notices
    ]


def plan_to(plan: Plan) -> messages.BatchPlan:
    skips = plan.skips
    sample = list(islice(plan.items, SAMPLE_SIZE))
    return messages.BatchPlan(
        item_count=len(plan.items) - sum(skips.values()),
        skips=skips,
        sample_item_ids=[item.item_id for item in sample],
        sample=map(_planned_item_to, sample),
    )


def _planned_item_to(item: NewItem) -> messages.PlannedItem:
    return messages.PlannedItem(
        item_id=item.item_id,
        user_id=item.user_id or "",
        skip_reason=item.skip_reason or "",
        data_beginning=item.data_json[:LONGEST_DATA_BEGINNING],
        data_bytes=len(item.data_json.encode()),
    )


def event_to(message: Told, *, resume_token: str) -> BatchEvent:
    found, delivery = message.user_validation, message.delivery
    return BatchEvent(
        kind=BatchEventKind.Value(f"BATCH_EVENT_KIND_{message.kind}"),
        sequence=message.sequence,
        event_time=timestamp_to(message.event_time),
        resume_token=resume_token,
        event_type=message.event_type,
        batch_id=message.batch_id,
        tenant_id=message.tenant_id,
        batch=None if message.batch is None else batch_to(message.batch),
        counts=None if message.counts is None else counts_to(message.counts),
        item=None if message.item is None else item_to(message.item),
        user_validation=None if found is None else user_validation_to(found),
        reference_validation=reference_validation_to(message.reference_validation),
        delivery=None if delivery is None else delivery_to(delivery),
    )


def _options_to(options: BatchOptions) -> messages.BatchOptions:
    return messages.BatchOptions(
        model=options.model,
        chunk_size=options.chunk_size,
        retry_limit=options.retry.retry_limit,
        item_timeout=duration_to(options.item_timeout),
        priority=PRIORITY_TO[options.priority],
        max_concurrent_items=options.max_concurrent_items,
        retry_policy=retry_policy_to(options.retry),
        batch_timeout=duration_to(options.batch_timeout),
        failure_policy=failure_policy_to(options.failure_policy),
        notify_on_complete=bool(options.notification_targets),
        notification_targets=options.notification_targets,
        users_away=USERS_AWAY_TO[options.users_away],
    )


def user_validation_to(found: UserValidation) -> messages.UserValidation:
    return messages.UserValidation(
        total=found.total, valid=found.valid, invalid=found.invalid, unknown=found.unknown
    )


def reference_validation_to(
    found: ReferenceValidation | None,
) -> messages.ReferenceValidation | None:
    """Returns the counts of a batch; none where no user is listed."""
    return counted_references_to(found) if found is not None and found.names_users else None


def counted_references_to(found: ReferenceValidation) -> messages.ReferenceValidation:
    categories, references = found.categories, found.user_references
    return messages.ReferenceValidation(
        categories=messages.CategoryCounts(
            total=categories.total,
            valid=categories.valid,
            invalid=categories.invalid,
            unknown=categories.unknown,
        ),
        user_references=reference_counts_to(references),
    )


def delivery_to(counts: DeliveryCounts) -> messages.DeliveryCounts:
    return messages.DeliveryCounts(delivered=counts.delivered, failed=counts.failed)


def reference_counts_to(found: ReferenceCounts) -> messages.ReferenceCounts:
    return messages.ReferenceCounts(
        total=found.total, valid=found.valid, invalid=found.invalid, unknown=found.unknown
    )
