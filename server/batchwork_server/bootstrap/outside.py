"""The systems around a server, opened as the settings say, and closed in order."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchwork_server.adapters.notifiers import NO_NOTIFIERS, Notifiers, open_notifiers
from batchwork_server.adapters.templates import FileTemplates
from batchwork_server.clock import Clock
from batchwork_server.config import Settings
from batchwork_server.engine.template_source import TemplateSource
from batchwork_server.engine.user_source import UserSource
from batchwork_server.logs import get_logger
from batchwork_server.ports import ConfigDatabase, OutsideTemplates, OutsideUsers, TemplateService
from batchwork_server.processors.registry import ProcessorRegistry
from batchwork_server.setting_kinds import Secret
from batchwork_server.store.location import parse_url

if TYPE_CHECKING:
    from batchwork_server.adapters.config_database import HttpConfigDatabase
    from batchwork_server.metrics import MetricsServer

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What a server asks, and whom it tells.

    Attributes:
        templates: Of the service, or of the files.
        template_source: What follows the service of templates, if there is one.
        users: What asks the other database or the service of users, if there is one.
        metrics: Where numbers are shown, if anywhere.
    """

    templates: TemplateService
    template_source: TemplateSource | None
    config_database: ConfigDatabase | None
    users: UserSource | None
    notifiers: Notifiers
    metrics: MetricsServer | None


@asynccontextmanager
async def open_outside(
    settings: Settings, processors: ProcessorRegistry, *, clock: Clock, shows_metrics: bool
) -> AsyncIterator[Outside]:
    """Opens what the settings name; what is away does not keep the server from starting.

    Raises:
        ConfigurationError: something is wrong with a file, a table or an address.
    """
    async with AsyncExitStack() as stack:
        notifiers = _notifiers(settings, clock)
        stack.push_async_callback(notifiers.close)
        template_source = None
        outside_templates = _outside_templates(settings, processors, clock)
        if outside_templates is not None:
            stack.push_async_callback(outside_templates.close)
            interval = settings.template_poll_interval
            template_source = TemplateSource(outside_templates, interval=interval, clock=clock)
            await template_source.look_first()
        users = None
        outside_users = users_outside(settings, clock)
        if outside_users is not None:
            stack.push_async_callback(outside_users.close)
            users = UserSource(outside_users, clock=clock)
            await users.look_first()
        config_database = _config_database(settings, clock)
        if config_database is not None:
            stack.push_async_callback(config_database.close)
        metrics = _metrics(settings) if shows_metrics else None
        if metrics is not None:
            stack.push_async_callback(metrics.close)
        yield Outside(
            templates=template_source or _file_templates(settings, processors),
            template_source=template_source,
            config_database=config_database,
            users=users,
            notifiers=notifiers,
            metrics=metrics,
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


def users_outside(settings: Settings, clock: Clock) -> OutsideUsers | None:
    """Returns the other database or the service that knows the users, if the settings name one."""
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
