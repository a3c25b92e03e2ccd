"""A server runs for as long as a block does, and is taken apart in order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from batchwork_server.bootstrap.assembly import Application, put_together
from batchwork_server.bootstrap.opening import open_database_of
from batchwork_server.bootstrap.outside import open_outside
from batchwork_server.clock import Clock, SystemClock
from batchwork_server.config import Settings
from batchwork_server.engine.child import Load
from batchwork_server.engine.health import EngineHealth
from batchwork_server.engine.isolation import ChildProcesses
from batchwork_server.engine.job_file import JOB_FILE
from batchwork_server.engine.preference_poller import CONFIG_SOURCE
from batchwork_server.engine.template_source import TEMPLATE_SOURCE
from batchwork_server.engine.user_source import USER_SOURCE
from batchwork_server.logs import flush_logs, get_logger
from batchwork_server.process import prepare_process
from batchwork_server.processors.registry import ProcessorRegistry
from batchwork_server.rpc.credentials import Credentials, load_credentials
from batchwork_server.rpc.server import RpcServer

log = get_logger(__name__)


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
    # A process that runs once is over before anybody asks it for metrics.
    async with open_outside(settings, processors, clock=clock, shows_metrics=fires) as outside:
        database = await open_database_of(settings)
        try:
            yield put_together(
                settings,
                database,
                outside,
                processors=processors,
                children=children,
                clock=clock,
                fires=fires,
            )
        finally:
            await database.close()


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
            app,
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
            app.batches.watching.close()
            app.preferences.changes.close()
            app.batches.results.close()
            app.batches.uploads.close()
            app.validation.users.close()
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


def _children(settings: Settings, load: Load | None) -> ChildProcesses | None:
    return ChildProcesses(load=load, workers=settings.child_processes) if load else None
