"""The modes of the process: serve, scheduler, once, health."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from dataclasses import dataclass

from batchwork_server.adapters.notifiers import open_notifiers
from batchwork_server.adapters.templates import FileTemplates
from batchwork_server.bootstrap import serving, working
from batchwork_server.bootstrap.outside import users_outside
from batchwork_server.clock import SystemClock
from batchwork_server.config import Settings
from batchwork_server.engine.user_source import UserSource
from batchwork_server.errors import BatchworkError, ConfigurationError, Unavailable
from batchwork_server.logs import get_logger
from batchwork_server.processors.registry import ProcessorRegistry
from batchwork_server.rpc.credentials import load_credentials
from batchwork_server.store.inspection import inspect_database

log = get_logger(__name__)

DEFAULT_TENANT = "default"

_INTERRUPTED = 128  # and the number of the signal, as shells have it
_STOPS = (signal.SIGTERM, signal.SIGINT)


async def serve(settings: Settings) -> None:
    """Runs a whole server until it is told to stop."""
    stop = asyncio.Event()
    _on_signals(lambda _: stop.set())
    async with serving(settings) as server:
        # The one line for people, and for programs that let the system choose the port.
        print(f"Batchwork listens on port {server.port}.", flush=True)  # noqa: T201
        await stop.wait()


async def schedule(settings: Settings) -> None:
    """Fires what is due and works until it is told to stop; nobody can call it."""
    stop = asyncio.Event()
    _on_signals(lambda _: stop.set())
    async with working(settings):
        log.info("scheduler.started")
        await stop.wait()
        log.info("scheduler.stopping")


@dataclass(frozen=True, slots=True, kw_only=True)
class OnceWanted:
    """What a process is to run once.

    Attributes:
        job_ids: Empty means all that is due.
        tenant_id: Whose jobs they are.
        user_ids: To whom runs are restricted; empty means to nobody.
        strict: Whether a run of which an item failed counts as not completed.
    """

    job_ids: tuple[str, ...] = ()
    tenant_id: str = DEFAULT_TENANT
    user_ids: frozenset[str] = frozenset()
    strict: bool = False


async def run_once(
    settings: Settings, wanted: OnceWanted, *, say: Callable[[str], None]
) -> int | None:
    """Runs jobs, works until their runs are over, and returns an exit code that says how it went.

    Raises:
        ConfigurationError: processing is switched off.
    """
    if not settings.processing:
        raise ConfigurationError(
            "ENABLE_BATCH_PROCESSING: false, so nothing would be processed; set it to true to run "
            "jobs."
        )
    received: list[int] = []
    async with working(settings, fires=False) as app:

        def stop(number: int) -> None:
            received.append(number)
            app.once.stop()

        _on_signals(stop)
        if wanted.job_ids:
            outcome = await app.once.run_named(
                wanted.job_ids, tenant_id=wanted.tenant_id, user_ids=wanted.user_ids
            )
        elif wanted.user_ids:
            outcome = await app.once.run_due_for(wanted.user_ids)
        else:
            outcome = await app.once.run_due()
        if app.notifications is not None and not outcome.is_interrupted:
            # Each is tried once; what is not taken is left to whoever runs next.
            with contextlib.suppress(Unavailable):
                await app.notifications.run_once()
            await app.notifications.idle()
    for problem in outcome.problems:
        say(problem)
    if outcome.is_interrupted:
        return _INTERRUPTED + received[0]
    return 0 if outcome.is_completed(strict=wanted.strict) else 1


async def problems_of(settings: Settings) -> list[str]:
    """Looks at everything that a server needs to start, and returns what is wrong, in words."""
    problems = []
    if settings.templates_dir is not None:
        try:
            FileTemplates.load(settings.templates_dir, ProcessorRegistry.installed())
        except ConfigurationError as error:
            problems.append(error.message)
    if settings.api_keys_file is not None:
        try:
            load_credentials(settings.api_keys_file)
        except ConfigurationError as error:
            problems.append(error.message)
    if settings.notifications_file is not None:
        try:
            open_notifiers(
                settings.notifications_file,
                clock=SystemClock(),
                allow_clear_text=settings.allow_clear_text,
            )
        except ConfigurationError as error:
            problems.append(error.message)
    try:
        await _look_for_users(settings)
    except ConfigurationError as error:
        problems.append(error.message)
    schema = ""
    try:
        schema = await inspect_database(
            settings.database.reveal(), connect_timeout=settings.connect_timeout
        )
    except BatchworkError as error:
        problems.append(error.message)
    if not problems:
        log.info(
            "health.passed",
            environment=settings.environment,
            schema=schema,
            processing=settings.processing,
        )
    return problems


async def _look_for_users(settings: Settings) -> None:
    """Looks at the source of users, as a server does that starts; one may be away.

    Raises:
        ConfigurationError: it answers, and is not what the settings say.
    """
    users = users_outside(settings, SystemClock())
    if users is not None:
        try:
            await UserSource(users, clock=SystemClock()).check()
        finally:
            await users.close()


def _on_signals(stop: Callable[[int], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in _STOPS:
        loop.add_signal_handler(number, stop, number)
