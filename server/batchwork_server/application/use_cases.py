"""What the services of the contract call, one class a noun."""

from __future__ import annotations

from dataclasses import dataclass

from batchwork_server.application.backfills import Backfills
from batchwork_server.application.batch_changes import BatchChanges
from batchwork_server.application.batch_validation import BatchValidation
from batchwork_server.application.batches import Batches
from batchwork_server.application.compatible_categories import CompatibleCategories
from batchwork_server.application.contexts import Contexts
from batchwork_server.application.default_preferences import DefaultPreferences
from batchwork_server.application.explaining import Explaining
from batchwork_server.application.forecast import Forecast
from batchwork_server.application.item_validation import ItemValidation
from batchwork_server.application.job_imports import JobImports
from batchwork_server.application.job_validation import JobValidation
from batchwork_server.application.jobs import Jobs
from batchwork_server.application.notifications import Outbox
from batchwork_server.application.occurrences import Occurrences
from batchwork_server.application.override_notices import OverrideNotices
from batchwork_server.application.preference_changes import PreferenceChanges
from batchwork_server.application.preference_imports import PreferenceImports
from batchwork_server.application.preference_views import PreferenceViews
from batchwork_server.application.preferences import Preferences
from batchwork_server.application.reference_checks import ReferenceChecks
from batchwork_server.application.references import References
from batchwork_server.application.results import Results
from batchwork_server.application.retention import Deletion
from batchwork_server.application.source_notes import SourceNotes
from batchwork_server.application.statistics import Statistics
from batchwork_server.application.upcoming import UpcomingRuns
from batchwork_server.application.uploads import Uploads
from batchwork_server.application.user_contexts import UserContexts
from batchwork_server.application.validation import Validation
from batchwork_server.application.validation_reports import ValidationReports
from batchwork_server.application.watching import Watching


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchUseCases:
    """What ``BatchService`` calls."""

    batches: Batches
    changes: BatchChanges
    deletion: Deletion
    uploads: Uploads
    results: Results
    watching: Watching
    statistics: Statistics
    references: References
    contexts: Contexts
    user_contexts: UserContexts
    outbox: Outbox


@dataclass(frozen=True, slots=True, kw_only=True)
class JobUseCases:
    """What ``JobService`` calls."""

    jobs: Jobs
    imports: JobImports
    batches: Batches
    upcoming: UpcomingRuns
    occurrences: Occurrences
    backfills: Backfills


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceUseCases:
    """What ``PreferenceService`` calls."""

    preferences: Preferences
    defaults: DefaultPreferences
    views: PreferenceViews
    changes: PreferenceChanges
    imports: PreferenceImports
    categories: CompatibleCategories
    forecast: Forecast
    explaining: Explaining
    source_notes: SourceNotes
    overrides: OverrideNotices


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationUseCases:
    """What ``ValidationService`` calls."""

    users: Validation
    jobs: JobValidation
    items: ItemValidation
    references: ReferenceChecks
    batches: BatchValidation
    reports: ValidationReports


@dataclass(frozen=True, slots=True, kw_only=True)
class UseCases:
    """The use cases behind the contract, over one store."""

    batches: BatchUseCases
    jobs: JobUseCases
    preferences: PreferenceUseCases
    validation: ValidationUseCases
