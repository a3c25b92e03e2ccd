"""The whole conversation with the database, as Protocols: one for each noun, in ``protocols``.

Others import from here what they need of it.

Methods that write take the transaction in which they write; the caller decides what belongs
together. Methods that read open a connection of their own. Every method that a caller can reach
takes the tenant.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from batchwork_server.store.protocols.batches import BatchStore
from batchwork_server.store.protocols.changes import ChangeStore
from batchwork_server.store.protocols.chunks import (
    ChunkRecord,
    ChunkStore,
    Claimed,
    ClaimedChunk,
    Extended,
    NewChunk,
    OpenChunk,
    Recorded,
    Reopened,
)
from batchwork_server.store.protocols.config_sources import ConfigSourceStore
from batchwork_server.store.protocols.contexts import ContextStore
from batchwork_server.store.protocols.deferrals import DeferralStore
from batchwork_server.store.protocols.events import Event, EventStore, UnreadEvent
from batchwork_server.store.protocols.group_fillings import GroupFillingStore
from batchwork_server.store.protocols.group_members import GroupMemberStore
from batchwork_server.store.protocols.group_runs import GroupRunStore
from batchwork_server.store.protocols.group_schedules import (
    DueGroup,
    GroupedJob,
    GroupScheduleStore,
)
from batchwork_server.store.protocols.inactive_users import InactiveUserStore
from batchwork_server.store.protocols.item_durations import ItemDurationStore
from batchwork_server.store.protocols.jobs import JobStore
from batchwork_server.store.protocols.notifications import NotificationStore
from batchwork_server.store.protocols.occurrences import (
    DueJob,
    OccurrenceStore,
    QueuedDueTimes,
    QueuedJob,
)
from batchwork_server.store.protocols.opt_outs import OptOutStore
from batchwork_server.store.protocols.preference_changes import PreferenceChangeStore
from batchwork_server.store.protocols.preference_groups import GroupPlace, PreferenceGroupStore
from batchwork_server.store.protocols.preferences import (
    PreferenceKey,
    PreferencePlace,
    PreferenceStore,
)
from batchwork_server.store.protocols.references import ReferenceStore
from batchwork_server.store.protocols.requests import RequestStore
from batchwork_server.store.protocols.results import ResultStore
from batchwork_server.store.protocols.retention import (
    DeletedBatch,
    ForgottenEvents,
    OverBatches,
    RemovedRows,
    RetentionStore,
)
from batchwork_server.store.protocols.statistics import StatisticsStore
from batchwork_server.store.protocols.transaction import Transaction
from batchwork_server.store.protocols.uploads import UploadPage, UploadStore
from batchwork_server.store.protocols.user_items import UserItemStore
from batchwork_server.store.protocols.validation_reports import ValidationReportStore

__all__ = [
    "BatchStore",
    "ChangeStore",
    "ChunkRecord",
    "ChunkStore",
    "Claimed",
    "ClaimedChunk",
    "ConfigSourceStore",
    "ContextStore",
    "DeferralStore",
    "DeletedBatch",
    "DueGroup",
    "DueJob",
    "Event",
    "EventStore",
    "Extended",
    "ForgottenEvents",
    "GroupMemberStore",
    "GroupPlace",
    "GroupRunStore",
    "GroupScheduleStore",
    "GroupedJob",
    "ItemDurationStore",
    "JobStore",
    "NewChunk",
    "NotificationStore",
    "OccurrenceStore",
    "OpenChunk",
    "OptOutStore",
    "OverBatches",
    "PreferenceChangeStore",
    "PreferenceGroupStore",
    "PreferenceKey",
    "PreferencePlace",
    "PreferenceStore",
    "QueuedDueTimes",
    "QueuedJob",
    "Recorded",
    "ReferenceStore",
    "RemovedRows",
    "Reopened",
    "RequestStore",
    "ResultStore",
    "RetentionStore",
    "StatisticsStore",
    "Store",
    "Transaction",
    "UnreadEvent",
    "UploadPage",
    "UploadStore",
    "UserItemStore",
    "ValidationReportStore",
]


class Store(Protocol):
    """Everything that is kept."""

    @property
    def batches(self) -> BatchStore: ...
    @property
    def events(self) -> EventStore: ...
    @property
    def chunks(self) -> ChunkStore: ...
    @property
    def item_durations(self) -> ItemDurationStore: ...
    @property
    def changes(self) -> ChangeStore: ...
    @property
    def retention(self) -> RetentionStore: ...
    @property
    def uploads(self) -> UploadStore: ...
    @property
    def deferrals(self) -> DeferralStore: ...
    @property
    def results(self) -> ResultStore: ...
    @property
    def statistics(self) -> StatisticsStore: ...
    @property
    def references(self) -> ReferenceStore: ...
    @property
    def validation_reports(self) -> ValidationReportStore: ...
    @property
    def contexts(self) -> ContextStore: ...
    @property
    def user_items(self) -> UserItemStore: ...
    @property
    def notifications(self) -> NotificationStore: ...
    @property
    def requests(self) -> RequestStore: ...
    @property
    def jobs(self) -> JobStore: ...
    @property
    def occurrences(self) -> OccurrenceStore: ...
    @property
    def preferences(self) -> PreferenceStore: ...
    @property
    def opt_outs(self) -> OptOutStore: ...
    @property
    def preference_groups(self) -> PreferenceGroupStore: ...
    @property
    def preference_changes(self) -> PreferenceChangeStore: ...
    @property
    def inactive_users(self) -> InactiveUserStore: ...
    @property
    def config_sources(self) -> ConfigSourceStore: ...
    @property
    def group_schedules(self) -> GroupScheduleStore: ...
    @property
    def group_fillings(self) -> GroupFillingStore: ...
    @property
    def group_runs(self) -> GroupRunStore: ...
    @property
    def group_members(self) -> GroupMemberStore: ...

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Opens a write transaction; it commits when the block ends well.

        Raises:
            StoreUnavailable: the database is away, locked or full; nothing was changed.
        """
        ...

    async def end_stalled(self) -> int:
        """Ends connections of servers that are frozen in the middle of a statement.

        Their locks would hold up everybody for as long as they are.

        Returns:
            How many there were.

        Raises:
            StoreUnavailable: the database is away.
        """
        ...

    def refuse_when_full(self) -> None:
        """Refuses when what is left of the disk is for the work that was accepted before.

        Raises:
            StorageFull: so it is.
        """
        ...

    def ballast_dropped(self) -> AbstractAsyncContextManager[None]:
        """Gives the block the space that was kept in reserve, and takes it back afterwards."""
        ...
