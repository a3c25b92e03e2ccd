"""The only file that knows every class: it puts a server together, and takes it apart in order."""

from __future__ import annotations

import os
import secrets
import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchwork_server.adapters.item_schemas import JsonSchemas
from batchwork_server.adapters.notifiers import NO_NOTIFIERS, Notifiers, open_notifiers
from batchwork_server.adapters.templates import FileTemplates
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
from batchwork_server.application.notifications import Outbox
from batchwork_server.application.occurrences import Occurrences
from batchwork_server.application.once import Once
from batchwork_server.application.override_notices import OverrideNotices
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
from batchwork_server.application.user_contexts import UserContexts
from batchwork_server.application.validation import Validation
from batchwork_server.application.validation_reports import ValidationReports
from batchwork_server.application.watching import Watching
from batchwork_server.clock import Clock, SystemClock
from batchwork_server.config import Settings
from batchwork_server.engine.batch_processor import BatchProcessor
from batchwork_server.engine.batch_scheduler import BatchScheduler
from batchwork_server.engine.child import Load
from batchwork_server.engine.closing import Closing
from batchwork_server.engine.deadlines import Deadlines
from batchwork_server.engine.deferred_validation import DeferredValidation
from batchwork_server.engine.dispatch.local import LocalDispatcher
from batchwork_server.engine.endings import Endings
from batchwork_server.engine.engine import Engine
from batchwork_server.engine.executor import Executor
from batchwork_server.engine.health import EngineHealth
from batchwork_server.engine.isolation import ChildProcesses
from batchwork_server.engine.job_file import JOB_FILE, JobFile
from batchwork_server.engine.notifications import Notifications
from batchwork_server.engine.preference_poller import CONFIG_SOURCE, PreferencePoller
from batchwork_server.engine.recovery import Recovery
from batchwork_server.engine.retention import Retention
from batchwork_server.engine.template_source import TEMPLATE_SOURCE, TemplateSource
from batchwork_server.engine.user_source import USER_SOURCE, UserSource
from batchwork_server.logs import flush_logs, get_logger
from batchwork_server.ports import ConfigDatabase, OutsideTemplates, OutsideUsers, TemplateService
from batchwork_server.process import prepare_process
from batchwork_server.processors.registry import ProcessorRegistry
from batchwork_server.rpc.credentials import Credentials, load_credentials
from batchwork_server.rpc.server import RpcServer
from batchwork_server.setting_kinds import Secret
from batchwork_server.store.database import Database, PostgresLimits, open_database
from batchwork_server.store.disk import BALLAST_BYTES, DiskLimits
from batchwork_server.store.location import parse_url
from batchwork_server.store.sql_store import SqlStore
from batchwork_server.wakeups import Wakeups

if TYPE_CHECKING:
    from batchwork_server.adapters.config_database import HttpConfigDatabase
    from batchwork_server.metrics import MetricsServer

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """The use cases over one store, and the engine that does what they leave to be done.

    Attributes:
        metrics_port: Where metrics are shown; none when they are not.
    """

    store: SqlStore
    database: Database
    batches: Batches
    changes: BatchChanges
    deletion: Deletion
    uploads: Uploads
    results: Results
    jobs: Jobs
    job_imports: JobImports
    upcoming: UpcomingRuns
    occurrences: Occurrences
    backfills: Backfills
    preferences: Preferences
    default_preferences: DefaultPreferences
    preference_views: PreferenceViews
    preference_changes: PreferenceChanges
    preference_imports: PreferenceImports
    compatible_categories: CompatibleCategories
    forecast: Forecast
    explaining: Explaining
    source_notes: SourceNotes
    override_notices: OverrideNotices
    validation: Validation
    job_validation: JobValidation
    item_validation: ItemValidation
    batch_validation: BatchValidation
    reference_checks: ReferenceChecks
    validation_reports: ValidationReports
    watching: Watching
    statistics: Statistics
    references: References
    contexts: Contexts
    user_contexts: UserContexts
    outbox: Outbox
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
class Serving:
    """A server that answers.

    Attributes:
        port: On which it listens; the one that the system chose when the settings say 0.
    """

    application: Application
    rpc: RpcServer
    port: int


@asynccontextmanager
async def application(
    settings: Settings,
    *,
    clock: Clock | None = None,
    processors: ProcessorRegistry | None = None,
    load_processors: Load | None = None,
    fires: bool = True,
) -> AsyncIterator[Application]:
    """Opens the database and puts the two halves together; nothing runs yet.

    Args:
        processors: Instead of those that are installed.
        load_processors: Builds the same ones in a child process. Without it, ``processors`` run in
            this process only.
        fires: Whether jobs fire by themselves when they are due.

    Raises:
        ConfigurationError: the server cannot start like this.
        StoreUnavailable: the database does not answer.
    """
    clock = clock or SystemClock()
    if processors is None:
        processors = ProcessorRegistry.installed()
        load_processors = ProcessorRegistry.installed
    children = _children(settings, load_processors)
    outside_templates = _outside_templates(settings, processors, clock)
    template_source = _template_source(settings, outside_templates, clock)
    templates = template_source or _file_templates(settings, processors)
    notifiers = _notifiers(settings, clock)
    database = await open_database(
        settings.database.reveal(),
        synchronous=settings.sqlite_synchronous,
        disk_limits=DiskLimits(min_free_bytes=settings.min_free_bytes, ballast_bytes=BALLAST_BYTES),
        silent_after=settings.lease,
        postgres_limits=PostgresLimits(
            connect_timeout=settings.connect_timeout,
            max_open=settings.max_open_connections,
            max_idle=settings.max_idle_connections,
        ),
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        if outside_templates is not None and template_source is not None:
            stack.push_async_callback(outside_templates.close)
            await template_source.look_first()
        # A process that runs once is over before anybody asks it.
        metrics = _metrics(settings) if fires else None
        if metrics is not None:
            stack.push_async_callback(metrics.close)
        stack.push_async_callback(notifiers.close)
        source = _config_database(settings, clock)
        if source is not None:
            stack.push_async_callback(source.close)
        outside_users = _outside_users(settings, clock)
        users = None if outside_users is None else UserSource(outside_users, clock=clock)
        if outside_users is not None and users is not None:
            stack.push_async_callback(outside_users.close)
            await users.check()
        yield _put_together(
            settings,
            database,
            templates,
            template_source,
            processors,
            children,
            source,
            users,
            notifiers,
            clock,
            fires,
            metrics,
        )


def _metrics(settings: Settings) -> MetricsServer | None:
    if settings.metrics_listen is None:
        return None
    # Only who is watched pays for it.
    from batchwork_server.metrics import MetricsServer

    server = MetricsServer.listening(settings.metrics_listen)
    log.info("metrics.started", listen=settings.metrics_listen, port=server.port)
    return server


def _file_templates(settings: Settings, processors: ProcessorRegistry) -> FileTemplates:
    if settings.templates_dir is None:
        action = "set BATCHWORK_TEMPLATES_DIR to a folder of templates, or TEMPLATE_SERVICE_URL"
        log.warning("templates.none", action=action)
        return FileTemplates([])
    return FileTemplates.load(settings.templates_dir, processors)


def _notifiers(settings: Settings, clock: Clock) -> Notifiers:
    path = settings.notifications_file
    if path is None:
        return NO_NOTIFIERS
    notifiers = open_notifiers(path, clock=clock, allow_clear_text=settings.allow_clear_text)
    if path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        log.warning("notifications.readable", path=str(path), action="chmod 600")
    return notifiers


def _notifications(
    notifiers: Notifiers, store: SqlStore, clock: Clock, wakeups: Wakeups
) -> Notifications | None:
    if not notifiers.by_name:
        return None
    return Notifications(
        store=store,
        targets=notifiers.targets,
        notifiers=notifiers.by_name,
        clock=clock,
        wakeups=wakeups,
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


def _config_database(settings: Settings, clock: Clock) -> HttpConfigDatabase | None:
    if settings.config_service_url is None:
        return None
    # Only who follows a service pays for a client of HTTP, which takes megabytes.
    from batchwork_server.adapters.config_database import HttpConfigDatabase

    key = settings.config_service_api_key
    return HttpConfigDatabase(
        url=settings.config_service_url,
        api_key=key.reveal() if key is not None else "",
        config_key=settings.config_preferences_key,
        timeout=settings.config_service_timeout,
        cache_ttl=settings.config_cache_ttl,
        clock=clock,
    )


def _outside_templates(
    settings: Settings, processors: ProcessorRegistry, clock: Clock
) -> OutsideTemplates | None:
    if settings.template_service_url is None:
        return None
    # As for the Config Database.
    from batchwork_server.adapters.template_service import HttpTemplates

    key = settings.template_service_api_key
    return HttpTemplates(
        url=settings.template_service_url,
        api_key=key.reveal() if key is not None else "",
        timeout=settings.template_service_timeout,
        processors=processors,
        clock=clock,
    )


def _template_source(
    settings: Settings, outside: OutsideTemplates | None, clock: Clock
) -> TemplateSource | None:
    if outside is None:
        return None
    return TemplateSource(outside, interval=settings.template_poll_interval, clock=clock)


def _outside_users(settings: Settings, clock: Clock) -> OutsideUsers | None:
    if settings.users_database_url is not None:
        return _users_database(settings, settings.users_database_url)
    if settings.user_service_url is None:
        return None
    # As for the Config Database.
    from batchwork_server.adapters.user_service import HttpUserService

    key = settings.user_service_api_key
    return HttpUserService(
        url=settings.user_service_url,
        api_key=key.reveal() if key is not None else "",
        timeout=settings.user_service_timeout,
        clock=clock,
    )


def _users_database(settings: Settings, url: Secret) -> OutsideUsers:
    from batchwork_server.adapters.users_database import URL_SETTING, UsersDatabase, UsersTable

    table = UsersTable(
        name=settings.users_table,
        id_column=settings.users_id_column,
        tenant_column=settings.users_tenant_column or "",
        active_column=settings.users_active_column or "",
    )
    return UsersDatabase(parse_url(url.reveal(), variable=URL_SETTING), table)


def _preference_poller(
    settings: Settings,
    source: ConfigDatabase | None,
    store: SqlStore,
    clock: Clock,
    changed: Callable[[str], None],
) -> PreferencePoller | None:
    if source is None:
        return None
    sync = ConfigSync(
        store=store,
        clock=clock,
        tenant_id=settings.config_tenant,
        source=f"{settings.config_service_url} {settings.config_preferences_key}",
        changed=changed,
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


def _children(settings: Settings, load: Load | None) -> ChildProcesses | None:
    return ChildProcesses(load=load, workers=settings.child_processes) if load else None


def _put_together(
    settings: Settings,
    database: Database,
    templates: TemplateService,
    template_source: TemplateSource | None,
    processors: ProcessorRegistry,
    children: ChildProcesses | None,
    source: ConfigDatabase | None,
    user_source: UserSource | None,
    notifiers: Notifiers,
    clock: Clock,
    fires: bool,
    metrics: MetricsServer | None,
) -> Application:
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
    )
    processor = BatchProcessor(
        store=store,
        executor=Executor(
            processors=processors, preferences=store.preferences, clock=clock, children=children
        ),
        clock=clock,
        wakeups=wakeups,
        owner=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
        slots=settings.max_concurrent_items,
        lease=settings.lease,
    )
    retention = Retention(
        store=store,
        clock=clock,
        batches_are_kept=settings.batches_are_kept,
        events_are_kept=settings.events_are_kept,
    )
    jobs = Jobs(
        store=store,
        categories=store.categories,
        users=users,
        templates=templates,
        clock=clock,
        wakeups=wakeups,
        zone=settings.time_zone,
        purposes=settings.purposes,
        targets=notifiers.targets,
    )
    job_imports = JobImports(
        store=store,
        categories=store.categories,
        users=users,
        templates=templates,
        clock=clock,
        wakeups=wakeups,
        zone=settings.time_zone,
        purposes=settings.purposes,
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
        settings, store, planning, batches, dispatcher=dispatcher, clock=clock, wakeups=wakeups
    )
    preference_changes = PreferenceChanges(
        store=store, clock=clock, max_watchers=settings.max_watchers
    )
    notifications = _notifications(notifiers, store, clock, wakeups)
    poller = _preference_poller(settings, source, store, clock, preference_changes.announce)
    deferred = DeferredValidation(store=store, users=users, clock=clock, wakeups=wakeups)
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
        override_notices=OverrideNotices(jobs=store.jobs, templates=templates),
        validation=validation,
        item_validation=ItemValidation(
            categories=store.categories, schemas=JsonSchemas(), clock=clock
        ),
        job_validation=JobValidation(
            jobs=store.jobs,
            preferences=store.preferences,
            categories=store.categories,
            users=users,
            templates=templates,
            clock=clock,
            zone=settings.time_zone,
            purposes=settings.purposes,
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
        template_source=template_source,
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
            template_source=template_source,
            notifications=notifications,
        ),
        metrics_port=metrics.port if metrics is not None else None,
    )


@asynccontextmanager
async def working(
    settings: Settings,
    *,
    clock: Clock | None = None,
    processors: ProcessorRegistry | None = None,
    load_processors: Load | None = None,
    fires: bool = True,
) -> AsyncIterator[Application]:
    """Runs the engine without the API for as long as the block does.

    The end goes in order: no chunk is claimed any more, items in flight finish within the grace or
    are given back, the database closes.

    Args:
        fires: Whether jobs fire by themselves when they are due.
    """
    async with application(
        settings, clock=clock, processors=processors, load_processors=load_processors, fires=fires
    ) as app:
        prepare_process()
        await app.engine.start()
        try:
            yield app
        finally:
            await app.engine.stop_claims()
            await app.engine.drain(settings.shutdown_grace)
            await app.engine.stop()
            flush_logs()


def _groups(
    settings: Settings,
    store: SqlStore,
    planning: Planning,
    batches: Batches,
    *,
    dispatcher: LocalDispatcher,
    clock: Clock,
    wakeups: Wakeups,
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
        ),
        clock=clock,
    )


@asynccontextmanager
async def serving(
    settings: Settings,
    *,
    clock: Clock | None = None,
    processors: ProcessorRegistry | None = None,
    load_processors: Load | None = None,
) -> AsyncIterator[Serving]:
    """Runs a whole server for as long as the block does.

    The end goes in order: health says no, no chunk is claimed any more, watchers are told, items
    in flight finish within the grace or are given back, calls end, the database closes.
    """
    clock = clock or SystemClock()
    credentials = _credentials(settings)
    async with application(
        settings, clock=clock, processors=processors, load_processors=load_processors
    ) as app:
        rpc = RpcServer(
            batches=app.batches,
            changes=app.changes,
            deletion=app.deletion,
            uploads=app.uploads,
            results=app.results,
            jobs=app.jobs,
            job_imports=app.job_imports,
            upcoming=app.upcoming,
            occurrences=app.occurrences,
            backfills=app.backfills,
            preferences=app.preferences,
            default_preferences=app.default_preferences,
            preference_views=app.preference_views,
            preference_changes=app.preference_changes,
            preference_imports=app.preference_imports,
            compatible_categories=app.compatible_categories,
            forecast=app.forecast,
            explaining=app.explaining,
            source_notes=app.source_notes,
            override_notices=app.override_notices,
            validation=app.validation,
            job_validation=app.job_validation,
            item_validation=app.item_validation,
            batch_validation=app.batch_validation,
            reference_checks=app.reference_checks,
            validation_reports=app.validation_reports,
            watching=app.watching,
            statistics=app.statistics,
            references=app.references,
            contexts=app.contexts,
            user_contexts=app.user_contexts,
            outbox=app.outbox,
            credentials=credentials,
            clock=clock,
            listen=settings.listen,
            tls=_tls(settings),
            reflection=settings.reflection,
            max_message_bytes=settings.max_message_bytes,
            write_timeout=settings.write_timeout,
        )
        prepare_process()
        await app.engine.start()
        health = EngineHealth(
            engine=app.engine,
            job_file=app.job_file,
            preference_poller=app.preference_poller,
            user_source=app.user_source,
            template_source=app.template_source,
            ping=app.database.ping,
            report=rpc.set_health,
            clock=clock,
        )
        if app.job_file is not None:
            await rpc.set_health(JOB_FILE, app.job_file.is_well)
        if app.preference_poller is not None:
            await rpc.set_health(CONFIG_SOURCE, app.preference_poller.is_well)
        if app.template_source is not None:
            await rpc.set_health(TEMPLATE_SOURCE, app.template_source.is_well)
        if app.user_source is not None:
            await rpc.set_health(USER_SOURCE, app.user_source.is_well)
        try:
            port = await rpc.start()
            health.start()
            log.info("server.started", listen=settings.listen, port=port)
            yield Serving(application=app, rpc=rpc, port=port)
        finally:
            await health.stop()
            await rpc.stop_serving()
            await app.engine.stop_claims()
            app.watching.close()
            app.preference_changes.close()
            app.results.close()
            app.uploads.close()
            app.validation.close()
            await app.engine.drain(settings.shutdown_grace)
            await rpc.stop(settings.shutdown_grace)
            await app.engine.stop()
            log.info("server.stopped")
            flush_logs()


def _credentials(settings: Settings) -> Credentials | None:
    if settings.api_keys_file is None:
        return None
    return load_credentials(settings.api_keys_file)


def _tls(settings: Settings) -> tuple[bytes, bytes] | None:
    """Returns the certificate chain and the key, if there are any."""
    if settings.tls_certificate_file is None or settings.tls_key_file is None:
        return None
    return settings.tls_certificate_file.read_bytes(), settings.tls_key_file.read_bytes()
