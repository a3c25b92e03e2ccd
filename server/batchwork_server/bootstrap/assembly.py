"""The one place that knows every class: it puts the two halves of a server together."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass

from batchwork_server.adapters.item_schemas import JsonSchemas
from batchwork_server.adapters.notifiers import Notifiers
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
from batchwork_server.application.use_cases import UseCases
from batchwork_server.application.user_contexts import UserContexts
from batchwork_server.application.validation import Validation
from batchwork_server.application.validation_reports import ValidationReports
from batchwork_server.application.watching import Watching
from batchwork_server.bootstrap.outside import Outside
from batchwork_server.clock import Clock
from batchwork_server.config import Settings
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
from batchwork_server.ports import ConfigDatabase, Meter
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
    job_file: JobFile | None
    once: Once
    preference_poller: PreferencePoller | None
    user_source: UserSource | None
    template_source: TemplateSource | None
    notifications: Notifications | None
    deferred: DeferredValidation
    engine: Engine
    metrics_port: int | None


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
    metrics, templates, notifiers = outside.metrics, outside.templates, outside.notifiers
    source, user_source = outside.config_database, outside.users
    meter = metrics.meter if metrics is not None else None
    store = SqlStore(database)
    users = store.users if user_source is None else user_source
    wakeups = Wakeups()
    Endings(wakeups, meter=meter)
    alone = database.dialect == "sqlite"  # its lock file keeps other processes away
    validation = Validation(users, meter=meter)
    dispatcher = LocalDispatcher(chunks=store.chunks, clock=clock, wakeups=wakeups)
    planning = Planning(
        store=store,
        categories=store.categories,
        validation=validation,
        templates=templates,
        defaults=settings.batch_options,
        handicaps=settings.handicaps,
        clock=clock,
        targets=notifiers.targets,
        pacing=Pacing(store.item_durations, slots=settings.max_concurrent_items),
    )
    processor = BatchProcessor(
        store=store,
        executor=Executor(
            processors=processors, opt_outs=store.opt_outs, clock=clock, children=children
        ),
        clock=clock,
        wakeups=wakeups,
        owner=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
        slots=settings.max_concurrent_items,
        lease=settings.lease,
        alone=alone,
    )
    retention = Retention(
        store=store,
        clock=clock,
        batches_are_kept=settings.batches_are_kept,
        events_are_kept=settings.events_are_kept,
    )
    job_notices = JobNotices(
        categories=store.categories,
        users=users,
        templates=templates,
        preferences=store.preferences,
        purposes=settings.purposes,
    )
    jobs = Jobs(
        store=store,
        notices=job_notices,
        templates=templates,
        clock=clock,
        wakeups=wakeups,
        zone=settings.time_zone,
        targets=notifiers.targets,
    )
    job_imports = JobImports(
        store=store,
        notices=job_notices,
        templates=templates,
        clock=clock,
        wakeups=wakeups,
        zone=settings.time_zone,
        targets=notifiers.targets,
    )
    job_file = _job_file(settings, job_imports)
    batches = Batches(
        store=store,
        planning=planning,
        dispatcher=dispatcher,
        clock=clock,
        wakeups=wakeups,
        alone=alone,
        draft_timeout=settings.draft_timeout,
        processing=settings.processing,
        meter=meter,
        targets=notifiers.targets,
    )
    firing = Firing(store=store, batches=batches, clock=clock, zone=settings.time_zone)
    preference_views = PreferenceViews(
        store=store, templates=templates, clock=clock, zone=settings.time_zone
    )
    groups = _groups(
        settings,
        store,
        planning,
        batches,
        dispatcher=dispatcher,
        clock=clock,
        wakeups=wakeups,
        meter=meter,
    )
    preference_changes = PreferenceChanges(
        store=store, clock=clock, max_watchers=settings.max_watchers
    )
    notifications = _notifications(notifiers, store, clock, wakeups, meter)
    override_notices = OverrideNotices(jobs=store.jobs, templates=templates)
    poller = _preference_poller(
        settings, source, store, clock, preference_changes.announce, override_notices
    )
    deferred = DeferredValidation(
        store=store, users=users, clock=clock, wakeups=wakeups, meter=meter
    )
    return Application(
        store=store,
        database=database,
        batches=batches,
        changes=BatchChanges(store=store, dispatcher=dispatcher, clock=clock, wakeups=wakeups),
        deletion=Deletion(store=store, clock=clock, rows_left=retention.wake.set),
        uploads=Uploads(
            store=store,
            validation=validation,
            dispatcher=dispatcher,
            clock=clock,
            wakeups=wakeups,
            meter=meter,
        ),
        results=Results(store=store, clock=clock, wakeups=wakeups),
        jobs=jobs,
        job_imports=job_imports,
        upcoming=UpcomingRuns(jobs=jobs, clock=clock, zone=settings.time_zone),
        occurrences=Occurrences(store=store),
        backfills=Backfills(store=store, clock=clock, wakeups=wakeups, zone=settings.time_zone),
        preferences=Preferences(store=store, clock=clock, changed=preference_changes.announce),
        default_preferences=DefaultPreferences(
            store=store, clock=clock, changed=preference_changes.announce
        ),
        preference_views=preference_views,
        compatible_categories=CompatibleCategories(
            categories=store.categories, views=preference_views
        ),
        forecast=Forecast(
            store=store, views=preference_views, clock=clock, zone=settings.time_zone
        ),
        explaining=Explaining(store=store, views=preference_views, clock=clock),
        source_notes=SourceNotes(source, store=store, tenant_id=settings.config_tenant),
        preference_changes=preference_changes,
        preference_imports=PreferenceImports(
            store=store, clock=clock, changed=preference_changes.announce
        ),
        override_notices=override_notices,
        validation=validation,
        item_validation=ItemValidation(
            categories=store.categories, schemas=JsonSchemas(), clock=clock
        ),
        job_validation=JobValidation(
            jobs=store.jobs,
            categories=store.categories,
            notices=job_notices,
            templates=templates,
            clock=clock,
            zone=settings.time_zone,
            targets=notifiers.targets,
        ),
        batch_validation=BatchValidation(planning=planning, batches=store.batches),
        reference_checks=ReferenceChecks(validation),
        validation_reports=ValidationReports(store=store),
        watching=Watching(
            store=store, clock=clock, wakeups=wakeups, max_watchers=settings.max_watchers
        ),
        statistics=Statistics(store=store),
        references=References(store=store),
        contexts=Contexts(store=store, batches=batches),
        user_contexts=UserContexts(store=store, batches=batches, views=preference_views),
        outbox=Outbox(store=store),
        job_file=job_file,
        once=Once(
            store=store,
            batches=batches,
            firing=firing,
            groups=groups,
            clock=clock,
            wakeups=wakeups,
        ),
        preference_poller=poller,
        user_source=user_source,
        template_source=outside.template_source,
        notifications=notifications,
        deferred=deferred,
        engine=Engine(
            processor=processor,
            dispatcher=dispatcher,
            recovery=Recovery(store=store, clock=clock, wakeups=wakeups, alone=alone),
            retention=retention,
            closing=Closing(store=store, clock=clock, wakeups=wakeups),
            deadlines=Deadlines(store=store, clock=clock, wakeups=wakeups),
            deferred=deferred,
            scheduler=BatchScheduler(firing, groups, clock=clock, wakeups=wakeups),
            clock=clock,
            slots=settings.max_concurrent_items,
            lease=settings.lease,
            children=children,
            job_file=job_file,
            processes=settings.processing,
            fires=settings.processing and fires,
            preference_poller=poller,
            user_source=user_source,
            template_source=outside.template_source,
            notifications=notifications,
            loop_lag=LoopLag(clock=clock, meter=meter) if meter is not None else None,
        ),
        metrics_port=metrics.port if metrics is not None else None,
    )


def _groups(
    settings: Settings,
    store: SqlStore,
    planning: Planning,
    batches: Batches,
    *,
    dispatcher: LocalDispatcher,
    clock: Clock,
    wakeups: Wakeups,
    meter: Meter | None,
) -> GroupFiring:
    """Returns what fires the groups of preferences."""
    return GroupFiring(
        store=store,
        batches=batches,
        schedules=GroupSchedules(store=store, clock=clock, zone=settings.time_zone),
        filling=GroupFilling(
            store=store,
            planning=planning,
            batches=batches,
            pages=GroupPages(store=store, zone=settings.time_zone),
            dispatcher=dispatcher,
            clock=clock,
            wakeups=wakeups,
            meter=meter,
        ),
        clock=clock,
    )


def _notifications(
    notifiers: Notifiers, store: SqlStore, clock: Clock, wakeups: Wakeups, meter: Meter | None
) -> Notifications | None:
    if not notifiers.by_name:
        return None
    return Notifications(
        store=store,
        targets=notifiers.targets,
        notifiers=notifiers.by_name,
        clock=clock,
        wakeups=wakeups,
        meter=meter,
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
    settings: Settings,
    source: ConfigDatabase | None,
    store: SqlStore,
    clock: Clock,
    changed: Callable[[str], None],
    overrides: OverrideNotices,
) -> PreferencePoller | None:
    if source is None:
        return None
    sync = ConfigSync(
        store=store,
        clock=clock,
        tenant_id=settings.config_tenant,
        source=f"{settings.config_service_url} {settings.config_preferences_key}",
        changed=changed,
        overrides=overrides,
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
