"""Rows of the store to values of the domain, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any

import orjson

from batchwork_server.domain.batch import (
    EXPECTED_CHUNK_DURATION,
    HANDICAPS,
    Batch,
    BatchOptions,
    BatchRequest,
    BatchState,
    Counts,
    Notice,
    Priority,
    Template,
    UserValidation,
)
from batchwork_server.domain.declared_overrides import (
    DeclaredOverrides,
    parse_declared_overrides,
    render_declared_overrides,
)
from batchwork_server.domain.distribution import NOBODY, Distribution
from batchwork_server.domain.failure import FailureAction, FailurePolicy
from batchwork_server.domain.item import Attempt, Item, ItemError, ItemState
from batchwork_server.domain.reference_validation import (
    CategoryCounts,
    ReferenceCounts,
    ReferenceValidation,
)
from batchwork_server.domain.retry import RetryPolicy
from batchwork_server.domain.user import UsersAway
from batchwork_server.store.times import duration_from_micros, from_micros, to_micros

COUNT_NAMES = (
    "total",
    "pending",
    "running",
    "succeeded",
    "failed",
    "skipped",
    "cancelled",
    "expired",
    "retries",
)

BATCH_COLUMNS = (
    "batch_key, tenant_id, batch_id, state, total, pending, running, succeeded, failed, skipped,"
    " cancelled, expired, retries, event_sequence, create_time, update_time, start_time, end_time,"
    " request_json, state_reason, state_message, closing, stop_in_flight, resume_time,"
    " expire_time, attempt_number, upload_offset,"
    " CASE WHEN total - pending - running > paused_at_done THEN 0 ELSE provider_pauses END,"
    " failed_before, tried_before"
)
"""The columns of a batch, in the order that ``batch_from`` reads."""


def batch_from(row: Sequence[Any]) -> Batch:
    return Batch(
        key=row[0],
        tenant_id=row[1],
        batch_id=row[2],
        state=BatchState(row[3]),
        counts=counts_from(row[4:13]),
        sequence=row[13],
        create_time=from_micros(row[14]),
        update_time=from_micros(row[15]),
        start_time=from_micros(row[16]),
        end_time=from_micros(row[17]),
        request=request_from(row[18]),
        state_reason=row[19],
        state_message=row[20],
        closing=BatchState(row[21]) if row[21] else None,
        stop_in_flight=bool(row[22]),
        resume_time=from_micros(row[23]),
        expire_time=from_micros(row[24]),
        attempt_number=row[25],
        upload_offset=row[26],
        provider_pauses=row[27],
        failed_before=row[28],
        tried_before=row[29],
    )


def counts_from(values: Sequence[int]) -> Counts:
    return Counts(**dict(zip(COUNT_NAMES, values, strict=True)))


def counts_to(counts: Counts) -> list[int]:
    return [getattr(counts, name) for name in COUNT_NAMES]


def request_to(request: BatchRequest) -> str:
    """Writes what a batch is to do as JSON text, durations as seconds."""
    options = request.options
    document: dict[str, Any] = {
        "template": {
            "template_id": request.template.template_id,
            "processor": request.template.processor,
            "parameters": request.template.parameters,
            "description": request.template.description,
            "operations": request.template.operations,
            "feature_types": request.template.feature_types,
            "overrides": render_declared_overrides(request.template.overrides),
        },
        "options": {
            "chunk_size": options.chunk_size,
            "item_timeout": options.item_timeout.total_seconds(),
            "priority": options.priority,
            "max_concurrent_items": options.max_concurrent_items,
            "model": options.model,
            "retry": {
                "retry_limit": options.retry.retry_limit,
                "initial_backoff": options.retry.initial_backoff.total_seconds(),
                "max_backoff": options.retry.max_backoff.total_seconds(),
                "multiplier": options.retry.multiplier,
                "non_retryable_reasons": sorted(options.retry.non_retryable_reasons),
            },
            "handicap": options.handicap.total_seconds(),
            "chunk_duration": options.chunk_duration.total_seconds(),
            "batch_timeout": options.batch_timeout and options.batch_timeout.total_seconds(),
            "failure_policy": _failure_policy_to(options.failure_policy),
            "notification_targets": options.notification_targets,
            "users_away": options.users_away,
        },
        "user_validation": [
            request.user_validation.total,
            request.user_validation.valid,
            request.user_validation.invalid,
            request.user_validation.unknown,
        ],
        "reference_validation": _reference_validation_to(request.reference_validation),
        "things_validation": _things_validation_to(request.reference_validation),
        "distribution": _distribution_to(request.distribution),
        "notices": [[n.reason, n.path, n.message] for n in request.notices],
        "categories": request.categories,
        "filters": request.filters,
        "labels": request.labels,
        "batch_metadata": request.batch_metadata,
        "due_time": None if request.due_time is None else to_micros(request.due_time),
    }
    for name in _TEXTS:
        document[name] = getattr(request, name)
    return orjson.dumps(document).decode()


_TEXTS = (
    "source",
    "operation",
    "display_name",
    "description",
    "job_id",
    "job_revision",
    "purpose_id",
    "feature_type",
    "batch_type",
)


@lru_cache(maxsize=512)
def request_from(text: str) -> BatchRequest:
    """Reads what a batch is to do. It never changes, so reading it once is enough."""
    document = orjson.loads(text)
    total, valid, invalid, *unknown = document["user_validation"]
    return BatchRequest(
        template=_template_from(document["template"]),
        options=_options_from(document["options"]),
        user_validation=UserValidation(
            total=total, valid=valid, invalid=invalid, unknown=sum(unknown)
        ),
        reference_validation=_reference_validation_from(
            document.get("reference_validation"), document.get("things_validation")
        ),
        distribution=_distribution_from(document.get("distribution")),
        notices=tuple(Notice(reason=r, path=p, message=m) for r, p, m in document["notices"]),
        categories=tuple(document["categories"]),
        filters=document["filters"],
        labels=document["labels"],
        batch_metadata=document["batch_metadata"],
        due_time=from_micros(document.get("due_time")),
        **{name: document[name] for name in _TEXTS},
    )


def _reference_validation_to(found: ReferenceValidation) -> list[list[int]] | None:
    """Returns the counts; nothing where nothing was counted, as in a batch over users."""
    categories, references = found.categories, found.user_references
    if not categories.total:
        return None
    return [
        [categories.total, categories.valid, categories.invalid, categories.unknown],
        [references.total, references.valid, references.invalid, references.unknown],
    ]


def _things_validation_to(found: ReferenceValidation) -> list[int] | None:
    # By itself: servers of an older version, which may run beside this one, expect two lists there.
    things = found.things
    return [things.total, things.valid, things.invalid, things.unknown] if things.total else None


def _distribution_to(distribution: Distribution) -> list[int] | None:
    if not distribution:
        return None
    return [distribution.named, distribution.invalid, int(distribution.own)]


def _distribution_from(written: list[int] | None) -> Distribution:
    if written is None:
        return NOBODY
    named, invalid, own = written
    return Distribution(named=named, invalid=invalid, own=bool(own))


def _reference_validation_from(
    counted: list[list[int]] | None, things: list[int] | None
) -> ReferenceValidation:
    if counted is None:
        return ReferenceValidation()
    categories, references, by_everybody = (
        dict(zip(("total", "valid", "invalid", "unknown"), counts, strict=True))
        for counts in (*counted, things or (0, 0, 0, 0))
    )
    return ReferenceValidation(
        categories=CategoryCounts(**categories),
        user_references=ReferenceCounts(**references),
        things=CategoryCounts(**by_everybody),
    )


def _template_from(document: Mapping[str, Any]) -> Template:
    return Template(
        template_id=document["template_id"],
        processor=document["processor"],
        parameters=document["parameters"],
        description=document["description"],
        operations=tuple(document["operations"]),
        feature_types=tuple(document["feature_types"]),
        overrides=_overrides_from(document.get("overrides")),
    )


def _overrides_from(document: Any) -> DeclaredOverrides | None:
    if document is None:
        return None
    return parse_declared_overrides(document, path="overrides")[0]


def _failure_policy_to(policy: FailurePolicy | None) -> dict[str, Any] | None:
    if policy is None:
        return None
    return {
        "max_failed": policy.max_failed,
        "max_failed_ratio": policy.max_failed_ratio,
        "min_sample": policy.min_sample,
        "action": policy.action,
    }


def _failure_policy_from(document: Mapping[str, Any] | None) -> FailurePolicy | None:
    if document is None:
        return None
    return FailurePolicy(**{**document, "action": FailureAction(document["action"])})


def _options_from(document: Mapping[str, Any]) -> BatchOptions:
    """Reads options; those of batches from before a field was there have its default."""
    retry = document["retry"]
    priority = Priority(document["priority"])
    handicap = document.get("handicap", HANDICAPS[priority].total_seconds())
    chunk_duration = document.get("chunk_duration", EXPECTED_CHUNK_DURATION.total_seconds())
    batch_timeout = document.get("batch_timeout")
    return BatchOptions(
        chunk_size=document["chunk_size"],
        item_timeout=timedelta(seconds=document["item_timeout"]),
        priority=priority,
        handicap=timedelta(seconds=handicap),
        chunk_duration=timedelta(seconds=chunk_duration),
        batch_timeout=None if batch_timeout is None else timedelta(seconds=batch_timeout),
        failure_policy=_failure_policy_from(document.get("failure_policy")),
        notification_targets=tuple(document.get("notification_targets", ())),
        users_away=UsersAway(document.get("users_away", UsersAway.FAIL)),
        max_concurrent_items=document["max_concurrent_items"],
        model=document["model"],
        retry=RetryPolicy(
            retry_limit=retry["retry_limit"],
            initial_backoff=timedelta(seconds=retry["initial_backoff"]),
            max_backoff=timedelta(seconds=retry["max_backoff"]),
            multiplier=retry["multiplier"],
            non_retryable_reasons=frozenset(retry.get("non_retryable_reasons", ())),
        ),
    )


def item_from(row: Any, *, batch_id: str, attempts: tuple[Attempt, ...] = ()) -> Item:
    """Reads a row that has the columns of ``batches._item_columns``."""
    return Item(
        batch_id=batch_id,
        index=row.item_index,
        item_id=row.item_id,
        user_id=row.user_id,
        data_json=row.data_json,
        state=ItemState(row.state),
        attempt_count=row.attempt_count or 0,
        result_json=row.result_json,
        error=error_from(row.error_reason, row.error_message, row.error_retryable),
        skip_reason=row.skip_reason,
        next_attempt_time=from_micros(row.next_attempt_time),
        start_time=from_micros(row.start_time),
        end_time=from_micros(row.end_time),
        duration=duration_from_micros(row.duration),
        quality_score=row.quality_score,
        attempts=attempts,
    )


def error_from(reason: str | None, message: str | None, retryable: bool | None) -> ItemError | None:
    if reason is None:
        return None
    return ItemError(reason=reason, message=message or "", retryable=bool(retryable))
