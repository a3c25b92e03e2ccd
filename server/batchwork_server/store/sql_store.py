"""The store over SQLAlchemy, one implementation for SQLite and PostgreSQL."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from batchwork_server.store.batches import SqlBatches
from batchwork_server.store.categories import SqlCategories
from batchwork_server.store.changes import SqlChanges
from batchwork_server.store.chunks import SqlChunks
from batchwork_server.store.config_sources import SqlConfigSources
from batchwork_server.store.contexts import SqlContexts
from batchwork_server.store.database import Database
from batchwork_server.store.deferrals import SqlDeferrals
from batchwork_server.store.event_reader import SqlEvents
from batchwork_server.store.group_fillings import SqlGroupFillings
from batchwork_server.store.group_members import SqlGroupMembers
from batchwork_server.store.group_runs import SqlGroupRuns
from batchwork_server.store.group_schedules import SqlGroupSchedules
from batchwork_server.store.inactive_users import SqlInactiveUsers
from batchwork_server.store.item_durations import SqlItemDurations
from batchwork_server.store.jobs import SqlJobs
from batchwork_server.store.notifications import SqlNotifications
from batchwork_server.store.occurrences import SqlOccurrences
from batchwork_server.store.opt_outs import SqlOptOuts
from batchwork_server.store.preference_changes import SqlPreferenceChanges
from batchwork_server.store.preference_groups import SqlPreferenceGroups
from batchwork_server.store.preferences import SqlPreferences
from batchwork_server.store.references import SqlReferences
from batchwork_server.store.requests import SqlRequests
from batchwork_server.store.results import SqlResults
from batchwork_server.store.retention import SqlRetention
from batchwork_server.store.statistics import SqlStatistics
from batchwork_server.store.store import Transaction
from batchwork_server.store.uploads import SqlUploads
from batchwork_server.store.user_items import SqlUserItems
from batchwork_server.store.users import SqlUsers
from batchwork_server.store.validation_reports import SqlValidationReports


class SqlStore:
    """Implements ``Store``, and holds the embedded sources of users and categories."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.batches = SqlBatches(database)
        self.events = SqlEvents(database)
        self.chunks = SqlChunks(database)
        self.item_durations = SqlItemDurations(database)
        self.changes = SqlChanges(database)
        self.retention = SqlRetention(database)
        self.uploads = SqlUploads()
        self.deferrals = SqlDeferrals(database)
        self.results = SqlResults(database)
        self.statistics = SqlStatistics(database)
        self.references = SqlReferences(database)
        self.validation_reports = SqlValidationReports(database)
        self.contexts = SqlContexts(database)
        self.user_items = SqlUserItems(database)
        self.notifications = SqlNotifications(database)
        self.requests = SqlRequests(database)
        self.jobs = SqlJobs(database)
        self.occurrences = SqlOccurrences(database)
        self.preferences = SqlPreferences(database)
        self.opt_outs = SqlOptOuts(database)
        self.preference_groups = SqlPreferenceGroups(database)
        self.preference_changes = SqlPreferenceChanges(database)
        self.inactive_users = SqlInactiveUsers(database)
        self.config_sources = SqlConfigSources(database)
        self.group_schedules = SqlGroupSchedules(database)
        self.group_fillings = SqlGroupFillings(database)
        self.group_runs = SqlGroupRuns(database)
        self.group_members = SqlGroupMembers(database)
        self.users = SqlUsers(database)
        self.categories = SqlCategories(database)

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        return self._database.transaction()

    async def end_stalled(self) -> int:
        return await self._database.end_stalled()

    def refuse_when_full(self) -> None:
        self._database.refuse_when_full()

    def ballast_dropped(self) -> AbstractAsyncContextManager[None]:
        return self._database.ballast_dropped()
