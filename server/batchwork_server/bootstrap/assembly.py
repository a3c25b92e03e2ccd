"""The one place that knows every class: it puts the two halves of a server together."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass

from batchwork_server.adapters.item_schemas import JsonSchemas
from batchwork_server.application.backfills import Backfills
from batchwork_server.application.batch_changes import BatchChanges
from batchwork_server.application.batch_validation import BatchValidation
from batchwork_server.application.batches import Batches
from batchwork_server.application.compatible_categories import CompatibleCategories
from batchwork_server.application.config_drift import ConfigDrift
from batchwork_server.application.config_sync import ConfigSync
from batchwork_server.application.contexts import Contexts
from batchwork_server.application.default_preferences import DefaultPreferences
from batchwork_server.application.explaining import Explaining
from batchwork_server.application.firing import Firing
from batchwork_server.application.forecast import Forecast
from batchwork_server.application.group_filling import GroupFilling
from batchwork_server.application.group_firing import GroupFiring
from batchwork_server.application.group_pages import GroupPages
from batchwork_server.application.group_schedules import GroupSchedules
from batchwork_server.application.item_validation import ItemValidation
from batchwork_server.application.job_imports import JobImports
from batchwork_server.application.job_validation import JobValidation
from batchwork_server.application.jobs import Jobs
from batchwork_server.application.notices import JobNotices
from batchwork_server.application.notifications import Outbox
from batchwork_server.application.occurrences import Occurrences
from batchwork_server.application.once import Once
from batchwork_server.application.override_notices import OverrideNotices
from batchwork_server.application.pacing import Pacing
from batchwork_server.application.planning import Planning
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
from batchwork_server.application.use_cases import (
    BatchUseCases,
    JobUseCases,
    PreferenceUseCases,
    UseCases,
    ValidationUseCases,
)
from batchwork_server.application.user_contexts import UserContexts
from batchwork_server.application.validation import Validation
from batchwork_server.application.validation_reports import ValidationReports
from batchwork_server.application.watchers import Watchers
from batchwork_server.application.watching import Watching
from batchwork_server.bootstrap.outside import Outside
from batchwork_server.clock import Clock
from batchwork_server.config import Settings
from batchwork_server.domain.notification import NotificationTargets
from batchwork_server.engine.batch_processor import BatchProcessor
from batchwork_server.engine.batch_scheduler import BatchScheduler
from batchwork_server.engine.closing import Closing
from batchwork_server.engine.deadlines import Deadlines
from batchwork_server.engine.deferred_validation import DeferredValidation
from batchwork_server.engine.dispatch.local import LocalDispatcher
from batchwork_server.engine.endings import Endings
from batchwork_server.engine.engine import Engine
from batchwork_server.engine.executor import Executor
from batchwork_server.engine.isolation import ChildProcesses
from batchwork_server.engine.job_file import JobFile
from batchwork_server.engine.loop_lag import LoopLag
from batchwork_server.engine.notifications import Notifications
from batchwork_server.engine.preference_poller import PreferencePoller
from batchwork_server.engine.recovery import Recovery
from batchwork_server.engine.retention import Retention
from batchwork_server.engine.template_source import TemplateSource
from batchwork_server.engine.user_source import UserSource
from batchwork_server.ports import ConfigDatabase, Meter, TemplateService, UserRepository
from batchwork_server.processors.registry import ProcessorRegistry
from batchwork_server.store.database import Database
from batchwork_server.store.sql_store import SqlStore
from batchwork_server.wakeups import Wakeups


@dataclass(frozen=True, slots=True, kw_only=True)
class Application(UseCases):
    """The use cases over one store, and the engine that does what they leave to be done.

    Attributes:
        metrics_port: Where metrics are shown; none when they are not.
    """

    store: SqlStore
    database: Database
    watchers: Watchers
    job_file: JobFile | None
    once: Once
    preference_poller: PreferencePoller | None
    user_source: UserSource | None
    template_source: TemplateSource | None
    notifications: Notifications | None
    deferred: DeferredValidation
    engine: Engine
    metrics_port: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ground:
    """What both halves stand on.

    Attributes:
        users: Those of the store, or of whom else the settings name.
        targets: Who can be told of the ends of batches.
        alone: Whether no other process writes to the database.
    """

    settings: Settings
    clock: Clock
    store: SqlStore
    users: UserRepository
    templates: TemplateService
    targets: NotificationTargets
    wakeups: Wakeups
    watchers: Watchers
    meter: Meter | None
    dispatcher: LocalDispatcher
    validation: Validation
    planning: Planning
    alone: bool


def put_together(
    settings: Settings,
    database: Database,
    outside: Outside,
    *,
    processors: ProcessorRegistry,
    children: ChildProcesses | None,
    clock: Clock,
    fires: bool,
) -> Application:
    """Returns the two halves of a server over a database; nothing runs yet.

    Args:
        fires: Whether jobs fire by themselves when they are due.
    """
    ground = _ground(settings, database, outside, clock=clock)
    retention = _retention(ground)
    notices = _job_notices(ground)
    preferences = _preferences(ground, outside.config_database)
    batches = _batches(ground, views=preferences.views, rows_left=retention.wake.set)
    jobs = _jobs(ground, batches.batches, notices)
    firing = Firing(
        store=ground.store, batches=batches.batches, clock=clock, zone=settings.time_zone
    )
    groups = _groups(ground, batches.batches)
    job_file = _job_file(settings, jobs.imports)
    preference_poller = _preference_poller(ground, outside.config_database, preferences)
    notifications = _notifications(ground, outside)
    deferred = _deferred(ground)
    metrics = outside.metrics
    return Application(
        batches=batches,
        jobs=jobs,
        preferences=preferences,
        validation=_validation(ground, notices),
        store=ground.store,
        database=database,
        watchers=ground.watchers,
        job_file=job_file,
        once=_once(ground, batches.batches, firing, groups),
        preference_poller=preference_poller,
        user_source=outside.users,
        template_source=outside.template_source,
        notifications=notifications,
        deferred=deferred,
        engine=_engine(
            ground,
            outside,
            processor=_processor(ground, processors, children),
            scheduler=BatchScheduler(firing, groups, clock=clock, wakeups=ground.wakeups),
            retention=retention,
            deferred=deferred,
            children=children,
            fires=fires,
            job_file=job_file,
            preference_poller=preference_poller,
            notifications=notifications,
        ),
        metrics_port=metrics.port if metrics is not None else None,
    )


def _ground(settings: Settings, database: Database, outside: Outside, *, clock: Clock) -> _Ground:
    store = SqlStore(database)
    users = store.users if outside.users is None else outside.users
    meter = outside.metrics.meter if outside.metrics is not None else None
    targets = outside.notifiers.targets
    wakeups = Wakeups()
    Endings(wakeups, meter=meter)
    validation = Validation(users, meter=meter)
    planning = Planning(
        store=store,
        categories=store.categories,
        validation=validation,
        templates=outside.templates,
        defaults=settings.batch_options,
        handicaps=settings.handicaps,
        clock=clock,
        targets=targets,
        pacing=Pacing(store.item_durations, slots=settings.max_concurrent_items),
    )
    return _Ground(
        settings=settings,
        clock=clock,
        store=store,
        users=users,
        templates=outside.templates,
        targets=targets,
        wakeups=wakeups,
        watchers=Watchers(settings.max_watchers),
        meter=meter,
        dispatcher=LocalDispatcher(chunks=store.chunks, clock=clock, wakeups=wakeups),
        validation=validation,
        planning=planning,
        alone=database.dialect == "sqlite",  # its lock file keeps other processes away
    )


def _retention(ground: _Ground) -> Retention:
    return Retention(
        store=ground.store,
        clock=ground.clock,
        batches_are_kept=ground.settings.batches_are_kept,
        events_are_kept=ground.settings.events_are_kept,
    )


def _job_notices(ground: _Ground) -> JobNotices:
    return JobNotices(
        categories=ground.store.categories,
        users=ground.users,
        templates=ground.templates,
        preferences=ground.store.preferences,
        purposes=ground.settings.purposes,
    )


def _preferences(ground: _Ground, source: ConfigDatabase | None) -> PreferenceUseCases:
    """Returns the use cases of preferences, which ``source`` may have as well."""
    store, clock, settings = ground.store, ground.clock, ground.settings
    zone = settings.time_zone
    changes = PreferenceChanges(store=store, clock=clock, watchers=ground.watchers)
    views = PreferenceViews(store=store, templates=ground.templates, clock=clock, zone=zone)
    return PreferenceUseCases(
        preferences=Preferences(store=store, clock=clock, changed=changes.announce),
        defaults=DefaultPreferences(store=store, clock=clock, changed=changes.announce),
        views=views,
        changes=changes,
        imports=PreferenceImports(store=store, clock=clock, changed=changes.announce),
        categories=CompatibleCategories(categories=store.categories, views=views),
        forecast=Forecast(store=store, views=views, clock=clock, zone=zone),
        explaining=Explaining(store=store, views=views, clock=clock),
        source_notes=SourceNotes(source, store=store, tenant_id=settings.config_tenant),
        overrides=OverrideNotices(jobs=store.jobs, templates=ground.templates),
    )


def _batches(
    ground: _Ground, *, views: PreferenceViews, rows_left: Callable[[], None]
) -> BatchUseCases:
    store, clock, wakeups = ground.store, ground.clock, ground.wakeups
    batches = Batches(
        store=store,
        planning=ground.planning,
        dispatcher=ground.dispatcher,
        clock=clock,
        wakeups=wakeups,
        alone=ground.alone,
        draft_timeout=ground.settings.draft_timeout,
        processing=ground.settings.processing,
        meter=ground.meter,
        targets=ground.targets,
    )
    return BatchUseCases(
        batches=batches,
        changes=BatchChanges(
            store=store, dispatcher=ground.dispatcher, clock=clock, wakeups=wakeups
        ),
        deletion=Deletion(store=store, clock=clock, rows_left=rows_left),
        uploads=Uploads(
            store=store,
            validation=ground.validation,
            dispatcher=ground.dispatcher,
            clock=clock,
            wakeups=wakeups,
            meter=ground.meter,
        ),
        results=Results(store=store, clock=clock, wakeups=wakeups),
        watching=Watching(
            store=store,
            clock=clock,
            wakeups=wakeups,
            watchers=ground.watchers,
        ),
        statistics=Statistics(store=store),
        references=References(store=store),
        contexts=Contexts(store=store, batches=batches),
        user_contexts=UserContexts(store=store, batches=batches, views=views),
        outbox=Outbox(store=store),
    )


def _jobs(ground: _Ground, batches: Batches, notices: JobNotices) -> JobUseCases:
    store, clock, wakeups = ground.store, ground.clock, ground.wakeups
    zone = ground.settings.time_zone
    jobs = Jobs(
        store=store,
        notices=notices,
        templates=ground.templates,
        clock=clock,
        wakeups=wakeups,
        zone=zone,
        targets=ground.targets,
    )
    return JobUseCases(
        jobs=jobs,
        imports=JobImports(
            store=store,
            notices=notices,
            templates=ground.templates,
            clock=clock,
            wakeups=wakeups,
            zone=zone,
            targets=ground.targets,
        ),
        batches=batches,
        upcoming=UpcomingRuns(jobs=jobs, clock=clock, zone=zone),
        occurrences=Occurrences(store=store),
        backfills=Backfills(store=store, clock=clock, wakeups=wakeups, zone=zone),
    )


def _groups(ground: _Ground, batches: Batches) -> GroupFiring:
    """Returns what fires the groups of preferences."""
    store, clock, zone = ground.store, ground.clock, ground.settings.time_zone
    return GroupFiring(
        store=store,
        batches=batches,
        schedules=GroupSchedules(store=store, clock=clock, zone=zone),
        filling=GroupFilling(
            store=store,
            planning=ground.planning,
            batches=batches,
            pages=GroupPages(store=store, zone=zone),
            dispatcher=ground.dispatcher,
            clock=clock,
            wakeups=ground.wakeups,
            meter=ground.meter,
        ),
        clock=clock,
    )


def _job_file(settings: Settings, imports: JobImports) -> JobFile | None:
    if settings.jobs_file is None:
        return None
    return JobFile(
        settings.jobs_file,
        imports=imports,
        tenant_id=settings.jobs_tenant,
        interval=settings.jobs_poll_interval,
    )


def _preference_poller(
    ground: _Ground, source: ConfigDatabase | None, preferences: PreferenceUseCases
) -> PreferencePoller | None:
    if source is None:
        return None
    store, clock, settings = ground.store, ground.clock, ground.settings
    sync = ConfigSync(
        store=store,
        clock=clock,
        tenant_id=settings.config_tenant,
        source=f"{settings.config_service_url} {settings.config_preferences_key}",
        changed=preferences.changes.announce,
        overrides=preferences.overrides,
    )
    drift = ConfigDrift(
        source,
        store=store,
        tenant_id=settings.config_tenant,
        ttl=settings.config_cache_ttl,
        clock=clock,
    )
    return PreferencePoller(
        source,
        sync=sync,
        drift=drift,
        interval=settings.config_poll_interval,
        reread=settings.config_cache_ttl,
        clock=clock,
    )


def _notifications(ground: _Ground, outside: Outside) -> Notifications | None:
    if not outside.notifiers.by_name:
        return None
    return Notifications(
        store=ground.store,
        targets=ground.targets,
        notifiers=outside.notifiers.by_name,
        clock=ground.clock,
        wakeups=ground.wakeups,
        meter=ground.meter,
    )


def _deferred(ground: _Ground) -> DeferredValidation:
    return DeferredValidation(
        store=ground.store,
        users=ground.users,
        clock=ground.clock,
        wakeups=ground.wakeups,
        meter=ground.meter,
    )


def _validation(ground: _Ground, notices: JobNotices) -> ValidationUseCases:
    store, clock = ground.store, ground.clock
    return ValidationUseCases(
        users=ground.validation,
        jobs=JobValidation(
            jobs=store.jobs,
            categories=store.categories,
            notices=notices,
            templates=ground.templates,
            clock=clock,
            zone=ground.settings.time_zone,
            targets=ground.targets,
        ),
        items=ItemValidation(categories=store.categories, schemas=JsonSchemas(), clock=clock),
        references=ReferenceChecks(ground.validation),
        batches=BatchValidation(planning=ground.planning, batches=store.batches),
        reports=ValidationReports(store=store),
    )


def _once(ground: _Ground, batches: Batches, firing: Firing, groups: GroupFiring) -> Once:
    return Once(
        store=ground.store,
        batches=batches,
        firing=firing,
        groups=groups,
        clock=ground.clock,
        wakeups=ground.wakeups,
    )


def _processor(
    ground: _Ground, processors: ProcessorRegistry, children: ChildProcesses | None
) -> BatchProcessor:
    store, clock = ground.store, ground.clock
    return BatchProcessor(
        store=store,
        executor=Executor(
            processors=processors, opt_outs=store.opt_outs, clock=clock, children=children
        ),
        clock=clock,
        wakeups=ground.wakeups,
        owner=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
        slots=ground.settings.max_concurrent_items,
        lease=ground.settings.lease,
        alone=ground.alone,
    )


def _engine(
    ground: _Ground,
    outside: Outside,
    *,
    processor: BatchProcessor,
    scheduler: BatchScheduler,
    retention: Retention,
    deferred: DeferredValidation,
    children: ChildProcesses | None,
    fires: bool,
    job_file: JobFile | None,
    preference_poller: PreferencePoller | None,
    notifications: Notifications | None,
) -> Engine:
    store, clock, wakeups = ground.store, ground.clock, ground.wakeups
    settings, meter = ground.settings, ground.meter
    return Engine(
        processor=processor,
        dispatcher=ground.dispatcher,
        recovery=Recovery(store=store, clock=clock, wakeups=wakeups, alone=ground.alone),
        retention=retention,
        closing=Closing(store=store, clock=clock, wakeups=wakeups),
        deadlines=Deadlines(store=store, clock=clock, wakeups=wakeups),
        deferred=deferred,
        scheduler=scheduler,
        clock=clock,
        slots=settings.max_concurrent_items,
        lease=settings.lease,
        children=children,
        job_file=job_file,
        processes=settings.processing,
        fires=settings.processing and fires,
        preference_poller=preference_poller,
        user_source=outside.users,
        template_source=outside.template_source,
        notifications=notifications,
        loop_lag=LoopLag(clock=clock, meter=meter) if meter is not None else None,
    )
