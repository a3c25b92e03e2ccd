"""What cannot hold together among settings that can each be read."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from batchwork_server.setting_kinds import is_loopback, variables_of

if TYPE_CHECKING:
    from batchwork_server.config import Settings


def contradictions(settings: Settings, *, given: Collection[str]) -> list[str]:
    """Returns a sentence for each problem.

    Args:
        given: The fields whose variables are set.
    """
    problems = []
    if (settings.tls_certificate_file is None) != (settings.tls_key_file is None):
        problems.append(
            "BATCHWORK_TLS_CERTIFICATE_FILE and BATCHWORK_TLS_KEY_FILE: set both, or none."
        )
    files = (
        ("BATCHWORK_TLS_CERTIFICATE_FILE", settings.tls_certificate_file),
        ("BATCHWORK_TLS_KEY_FILE", settings.tls_key_file),
        ("BATCHWORK_API_KEYS_FILE", settings.api_keys_file),
    )
    problems += [
        f"{name}: there is no file {path}."
        for name, path in files
        if path is not None and not path.is_file()
    ]
    if not settings.is_loopback:
        if not settings.has_tls and not settings.allow_clear_text:
            problems.append(
                f"BATCHWORK_LISTEN: {settings.listen} is reachable from other machines, and "
                "without TLS everybody on the way can read along. Set "
                "BATCHWORK_TLS_CERTIFICATE_FILE and BATCHWORK_TLS_KEY_FILE, or say "
                "BATCHWORK_ALLOW_CLEAR_TEXT=true when something else encrypts."
            )
        if settings.api_keys_file is None and settings.environment == "production":
            problems.append(
                f"BATCHWORK_LISTEN: {settings.listen} is reachable from other machines, and with "
                "ENVIRONMENT=production nobody may call without a key, whatever "
                "BATCHWORK_ALLOW_ANONYMOUS says. Set BATCHWORK_API_KEYS_FILE."
            )
        elif settings.api_keys_file is None and not settings.allow_anonymous:
            problems.append(
                f"BATCHWORK_LISTEN: {settings.listen} is reachable from other machines, and "
                "without keys everybody may call. Set BATCHWORK_API_KEYS_FILE, or say "
                "BATCHWORK_ALLOW_ANONYMOUS=true when something else checks callers."
            )
    metrics = settings.metrics_listen
    if metrics is not None and not is_loopback(metrics) and not settings.allow_clear_text:
        problems.append(
            f"BATCHWORK_METRICS_LISTEN: {metrics} is reachable from other machines, and metrics "
            "have no TLS. Listen at 127.0.0.1, or say BATCHWORK_ALLOW_CLEAR_TEXT=true when "
            "something else encrypts."
        )
    return [
        *problems,
        *_database_problems(settings, given),
        *_clear_text_problems(settings),
        *_clear_database_problems(settings),
        *_users_problems(settings, given),
        *_template_problems(settings),
        *_handicap_problems(settings),
    ]


def _database_problems(settings: Settings, given: Collection[str]) -> list[str]:
    variables = variables_of(type(settings))
    problems = []
    ways = [name for name in ("database_url", "other_database_url") if name in given]
    parts = [name for name in _PARTS if name in given]
    if len(ways) + bool(parts) > 1:
        problems.append(
            f"{', '.join(variables[name] for name in ways + parts)}: the database is named more "
            "than once. Keep BATCHWORK_DATABASE_URL, or DATABASE_URL, or DB_HOST with DB_NAME and "
            "what belongs to them."
        )
    missing = [name for name in ("db_host", "db_name") if name not in parts]
    if parts and missing:
        problems.append(
            f"{', '.join(variables[name] for name in missing)}: missing beside "
            f"{', '.join(variables[name] for name in parts)}; a database has a host and a name."
        )
    if settings.max_idle_connections > settings.max_open_connections:
        problems.append(
            f"DB_MAX_IDLE_CONNS: {settings.max_idle_connections} is more than DB_MAX_OPEN_CONNS, "
            f"{settings.max_open_connections}; set it to at most that."
        )
    return problems


_PARTS = ("db_host", "db_port", "db_user", "db_password", "db_name", "db_sslmode")


def _clear_text_problems(settings: Settings) -> Iterator[str]:
    services = (
        ("CONFIG_SERVICE_URL", settings.config_service_url, "the preferences"),
        ("USER_SERVICE_URL", settings.user_service_url, "the users"),
        ("TEMPLATE_SERVICE_URL", settings.template_service_url, "the templates"),
    )
    for variable, url, what in services:
        if url is None or settings.allow_clear_text:
            continue
        parts = urlsplit(url)
        if parts.scheme != "https" and not is_loopback(f"{parts.hostname}:{parts.port or 80}"):
            yield (
                f"{variable}: without TLS everybody on the way to {parts.hostname} can read "
                f"the key and {what}. Write https, or say BATCHWORK_ALLOW_CLEAR_TEXT=true "
                "when something else encrypts."
            )


def _clear_database_problems(settings: Settings) -> Iterator[str]:
    if settings.allow_clear_text:
        return
    databases = {"the database": settings.database, "the users": settings.users_database_url}
    for what, url in databases.items():
        host = None if url is None else _host_in_clear_text(url.reveal())
        if host is not None:
            variables = "DB_SSLMODE, BATCHWORK_DATABASE_URL"
            if what == "the users":
                variables = "BATCHWORK_USERS_DATABASE_URL"
            yield (
                f"{variables}: without TLS everybody on the way to {host} can read {what}. Say "
                "sslmode=require, or verify-full, or BATCHWORK_ALLOW_CLEAR_TEXT=true when "
                "something else encrypts."
            )


def _host_in_clear_text(url: str) -> str | None:
    """Returns the machine of a PostgreSQL database to which a connection may go without TLS."""
    parts = urlsplit(url)
    if not parts.scheme.startswith("postgres"):
        return None
    query = parse_qs(parts.query)
    if _ENCRYPTED.intersection((*query.get("sslmode", ()), *query.get("ssl", ()))):
        return None
    named = query.get("host", [parts.hostname or ""])
    hosts = [host for each in named for host in each.split(",")]
    return next((host for host in hosts if not _is_here(host)), None)


_ENCRYPTED = frozenset({"require", "verify-ca", "verify-full"})


def _is_here(host: str) -> bool:
    return not host or host.startswith("/") or is_loopback(f"{host}:0")


def _users_problems(settings: Settings, given: Collection[str]) -> Iterator[str]:
    variables = variables_of(type(settings))
    if settings.users_database_url is not None and settings.user_service_url is not None:
        yield (
            "BATCHWORK_USERS_DATABASE_URL, USER_SERVICE_URL: the users are in one place. Keep one "
            "of them, or none for the embedded table."
        )
    parts = [variables[name] for name in _USERS_DATABASE_PARTS if name in given]
    if parts and settings.users_database_url is None:
        yield (
            f"{', '.join(parts)}: missing beside them is BATCHWORK_USERS_DATABASE_URL, the "
            "database that the table is in."
        )


_USERS_DATABASE_PARTS = (
    "users_table",
    "users_id_column",
    "users_tenant_column",
    "users_active_column",
)


def _template_problems(settings: Settings) -> Iterator[str]:
    if settings.templates_dir is not None and settings.template_service_url is not None:
        yield (
            "BATCHWORK_TEMPLATES_DIR, TEMPLATE_SERVICE_URL: the templates are in one place. Keep "
            "one of them."
        )


def _handicap_problems(settings: Settings) -> list[str]:
    high, medium, low = settings.handicap_high, settings.handicap_medium, settings.handicap_low
    if high <= medium <= low:
        return []
    return [
        "BATCHWORK_HANDICAP_HIGH, BATCHWORK_HANDICAP_MEDIUM, BATCHWORK_HANDICAP_LOW: with "
        f"{high.total_seconds():.10g} s, {medium.total_seconds():.10g} s and "
        f"{low.total_seconds():.10g} s a lower priority would go first. Set the handicap of high "
        "to at most that of medium, and that of medium to at most that of low."
    ]
