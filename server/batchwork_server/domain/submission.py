"""What a caller, a job or a schedule asks for, before it is a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from batchwork_server.domain.batch import Priority
from batchwork_server.domain.failure import FailurePolicy
from batchwork_server.domain.job import (
    DEFAULT_LIMIT,
    DataSource,
    JobShape,
    PreferenceSource,
    batch_type_of,
)
from batchwork_server.domain.retry import RequestedRetry
from batchwork_server.domain.selection import SelectedItem
from batchwork_server.domain.user import UsersAway


@dataclass(frozen=True, slots=True, kw_only=True)
class Idempotency:
    """Names a request, so that the same one again gets the first answer.

    Attributes:
        request_id: Empty means that every call stands for itself.
        request_hash: Of the request's content.
    """

    request_id: str = ""
    request_hash: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedOptions:
    """How to process, where the caller says so; None means the job's or the server's value."""

    model: str = ""
    chunk_size: int | None = None
    retry_limit: int | None = None
    item_timeout: timedelta | None = None
    priority: Priority | None = None
    max_concurrent_items: int | None = None
    retry: RequestedRetry = field(default_factory=RequestedRetry)
    batch_timeout: timedelta | None = None
    failure_policy: FailurePolicy | None = None
    notify_on_complete: bool | None = None
    notification_targets: tuple[str, ...] = ()
    users_away: UsersAway | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a batch is to be made of.

    Attributes:
        items: Inline items; None means that ``categories`` are selected from.
        filters: JSON values; for COMBINED one object of filters a category.
        user_ids: Restricts the items to those of these users; empty means no restriction.
        recipient_ids: Users who get a reference to the results.
        delivers_own: Whether each user of a preference-based run gets one to their own item.
        due_time: When a run was due; filters that are relative to now count from it.
        default_overrides: What the job says of the template for users who say nothing else.
        default_enabled: Whether users who say nothing want the feature, by what the job says.
        include_all_users: Whether a preference-based run is for users who say nothing as well.
        is_draft: More items are uploaded later; nothing runs before the draft is sealed.
    """

    items: tuple[SelectedItem, ...] | None = None
    categories: tuple[str, ...] = ()
    filters: Mapping[str, Any] = field(default_factory=dict)
    limit: int = DEFAULT_LIMIT
    shape: JobShape = JobShape.INDIVIDUAL
    data_source: DataSource = DataSource.CATEGORIES
    preference_source: PreferenceSource = PreferenceSource.STATIC
    template_id: str = ""
    operation: str = ""
    feature_type: str = ""
    options: RequestedOptions = RequestedOptions()
    batch_id: str = ""
    display_name: str = ""
    description: str = ""
    source: str = ""
    purpose_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    batch_metadata: Mapping[str, Any] = field(default_factory=dict)
    job_id: str = ""
    job_revision: int = 0
    user_ids: frozenset[str] = frozenset()
    recipient_ids: tuple[str, ...] = ()
    delivers_own: bool = False
    due_time: datetime | None = None
    default_overrides: Mapping[str, Any] = field(default_factory=dict)
    default_enabled: bool = True
    include_all_users: bool = False
    is_draft: bool = False

    @property
    def batch_type(self) -> str:
        """The name of the place in the matrix, such as ``INDIVIDUAL_USERS``."""
        return batch_type_of(self.shape, self.data_source, self.preference_source)

    def filters_of(self, category: str) -> Mapping[str, Any]:
        """Returns the filters that narrow one of the categories."""
        if self.shape is not JobShape.COMBINED:
            return self.filters
        filters: Mapping[str, Any] = self.filters.get(category, {})
        return filters
