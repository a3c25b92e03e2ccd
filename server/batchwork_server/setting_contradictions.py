"""What cannot hold together among settings that can each be read."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

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
    return [
        *problems,
        *_database_problems(settings, given),
        *_config_service_problems(settings),
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


def _config_service_problems(settings: Settings) -> Iterator[str]:
    if settings.config_service_url is None or settings.allow_clear_text:
        return
    parts = urlsplit(settings.config_service_url)
    if parts.scheme != "https" and not is_loopback(f"{parts.hostname}:{parts.port or 80}"):
        yield (
            f"CONFIG_SERVICE_URL: without TLS everybody on the way to {parts.hostname} can read "
            "the key and the preferences. Write https, or say BATCHWORK_ALLOW_CLEAR_TEXT=true "
            "when something else encrypts."
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
