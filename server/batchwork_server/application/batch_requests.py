"""From a submission, and what was found for it, to the request that a batch keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from batchwork_server.domain.batch import (
    BatchOptions,
    BatchRequest,
    Notice,
    Priority,
    Template,
    UserValidation,
)
from batchwork_server.domain.distribution import Distribution
from batchwork_server.domain.reference_validation import NOTHING_FOUND, ReferenceValidation
from batchwork_server.domain.retry import RetryPolicy
from batchwork_server.domain.submission import RequestedOptions, Submission


def merged_options(
    requested: RequestedOptions, defaults: BatchOptions, handicaps: Mapping[Priority, timedelta]
) -> BatchOptions:
    """Returns what was asked for, and the defaults where nothing was."""
    priority = requested.priority or Priority.MEDIUM
    return BatchOptions(
        chunk_size=requested.chunk_size or defaults.chunk_size,
        item_timeout=requested.item_timeout or defaults.item_timeout,
        retry=_retry(requested, defaults.retry),
        priority=priority,
        handicap=handicaps[priority],
        max_concurrent_items=requested.max_concurrent_items or 0,
        model=requested.model,
        batch_timeout=requested.batch_timeout or defaults.batch_timeout,
        failure_policy=requested.failure_policy or defaults.failure_policy,
        users_away=requested.users_away or defaults.users_away,
    )


def _retry(requested: RequestedOptions, default: RetryPolicy) -> RetryPolicy:
    policy = requested.retry.over(default)
    if requested.retry_limit is None:
        return policy
    return replace(policy, retry_limit=requested.retry_limit)


def batch_request(
    submission: Submission,
    *,
    template: Template,
    options: BatchOptions,
    user_validation: UserValidation,
    notices: Sequence[Notice],
    distribution: Distribution,
    reference_validation: ReferenceValidation = NOTHING_FOUND,
) -> BatchRequest:
    """Returns what is kept of a submission with its batch, and of what was found for it."""
    return BatchRequest(
        template=template,
        options=options,
        source=submission.source,
        operation=submission.operation,
        display_name=submission.display_name,
        description=submission.description,
        job_id=submission.job_id,
        job_revision=submission.job_revision,
        purpose_id=submission.purpose_id,
        feature_type=submission.feature_type,
        batch_type=submission.batch_type,
        categories=submission.categories,
        filters=submission.filters,
        labels=submission.labels,
        batch_metadata=submission.batch_metadata,
        user_validation=user_validation,
        reference_validation=reference_validation,
        distribution=distribution,
        notices=tuple(notices),
        due_time=submission.due_time,
    )
