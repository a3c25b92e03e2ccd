"""Settings: read once from the environment; every problem is reported together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)

from batchwork_server.database_url import postgresql_url
from batchwork_server.domain.batch import HANDICAPS, BatchOptions, Priority
from batchwork_server.domain.caller import ALL_TENANTS, LONGEST_TENANT_ID
from batchwork_server.domain.durations import parse_duration
from batchwork_server.domain.job import LONGEST_BATCH_TIMEOUT, SHORTEST_BATCH_TIMEOUT
from batchwork_server.domain.json_object import is_line
from batchwork_server.domain.preference import LONGEST_NAME
from batchwork_server.domain.retry import LARGEST_MULTIPLIER, LEAST_MULTIPLIER, RetryPolicy
from batchwork_server.domain.schedule import is_time_zone
from batchwork_server.errors import ConfigurationError


def _seconds(value: object) -> object:
    """Reads seconds and Go's notation; timedelta itself reads ISO 8601 durations."""
    duration = parse_duration(value) if isinstance(value, str) else None
    return value if duration is None else duration


Seconds = Annotated[timedelta, BeforeValidator(_seconds)]

Mode = Literal["serve", "scheduler", "once", "health"]
"""What ``batchwork-server`` does when no command says it."""

SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]

_MOST_PROCESSES = 64


class Settings(BaseModel):
    """How one server runs. Each field names its environment variable.

    Durations are seconds, as a number, or have units (``1h30m``), unless the name says otherwise.
    """

    # By their names fields are filled in code only; see ``load_settings``.
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    database_url: SecretStr = Field(
        default=SecretStr("sqlite:///batchwork.db"), validation_alias="BATCHWORK_DATABASE_URL"
    )
    other_database_url: SecretStr | None = Field(default=None, validation_alias="DATABASE_URL")
    db_host: str | None = Field(default=None, min_length=1, validation_alias="DB_HOST")
    db_port: int | None = Field(default=None, ge=1, le=65535, validation_alias="DB_PORT")
    db_user: str | None = Field(default=None, min_length=1, validation_alias="DB_USER")
    db_password: SecretStr | None = Field(default=None, validation_alias="DB_PASSWORD")
    db_name: str | None = Field(default=None, min_length=1, validation_alias="DB_NAME")
    db_sslmode: SslMode | None = Field(default=None, validation_alias="DB_SSLMODE")
    connect_timeout: Seconds = Field(
        default=timedelta(seconds=30),
        ge=timedelta(milliseconds=100),
        le=timedelta(hours=1),
        validation_alias="DB_CONNECT_TIMEOUT",
    )
    max_open_connections: int = Field(
        default=20, ge=8, le=1000, validation_alias="DB_MAX_OPEN_CONNS"
    )
    max_idle_connections: int = Field(
        default=12, ge=5, le=1000, validation_alias="DB_MAX_IDLE_CONNS"
    )
    sqlite_synchronous: Literal["FULL", "NORMAL"] = Field(
        default="FULL", validation_alias="BATCHWORK_SQLITE_SYNCHRONOUS"
    )
    min_free_bytes: int = Field(
        default=64 * 1024 * 1024, ge=0, validation_alias="BATCHWORK_MIN_FREE_BYTES"
    )
    listen: str = Field(default="127.0.0.1:50051", validation_alias="BATCHWORK_LISTEN")
    tls_certificate_file: Path | None = Field(
        default=None, validation_alias="BATCHWORK_TLS_CERTIFICATE_FILE"
    )
    tls_key_file: Path | None = Field(default=None, validation_alias="BATCHWORK_TLS_KEY_FILE")
    allow_clear_text: bool = Field(default=False, validation_alias="BATCHWORK_ALLOW_CLEAR_TEXT")
    api_keys_file: Path | None = Field(default=None, validation_alias="BATCHWORK_API_KEYS_FILE")
    allow_anonymous: bool = Field(default=False, validation_alias="BATCHWORK_ALLOW_ANONYMOUS")
    reflection: bool = Field(default=True, validation_alias="BATCHWORK_REFLECTION")
    max_message_bytes: int = Field(
        default=32 * 1024 * 1024,
        ge=4 * 1024 * 1024,
        le=256 * 1024 * 1024,
        validation_alias="BATCHWORK_MAX_MESSAGE_BYTES",
    )
    max_watchers: int = Field(
        default=10_000, ge=1, le=1_000_000, validation_alias="BATCHWORK_MAX_WATCHERS"
    )
    write_timeout: Seconds = Field(
        default=timedelta(seconds=30),
        ge=timedelta(seconds=1),
        le=timedelta(hours=1),
        validation_alias="BATCHWORK_WRITE_TIMEOUT",
    )
    templates_dir: Path | None = Field(default=None, validation_alias="BATCHWORK_TEMPLATES_DIR")
    jobs_file: Path | None = Field(default=None, validation_alias="BATCHWORK_JOBS_FILE")
    jobs_tenant: str = Field(default="default", validation_alias="BATCHWORK_JOBS_TENANT")
    jobs_poll_interval: Seconds = Field(
        default=timedelta(seconds=5),
        ge=timedelta(seconds=1),
        le=timedelta(hours=1),
        validation_alias="BATCHWORK_JOBS_POLL_INTERVAL",
    )
    mode: Mode | None = Field(default=None, validation_alias="BATCH_MODE")
    environment: Literal["development", "production"] = Field(
        default="development", validation_alias="ENVIRONMENT"
    )
    processing: bool = Field(default=True, validation_alias="ENABLE_BATCH_PROCESSING")
    processing_timeout: Seconds | None = Field(
        default=None,
        ge=SHORTEST_BATCH_TIMEOUT,
        le=LONGEST_BATCH_TIMEOUT,
        validation_alias="BATCH_PROCESSING_TIMEOUT",
    )
    user_id_filter: str | None = Field(default=None, validation_alias="USER_ID_FILTER")
    max_concurrent_items: int = Field(
        default=25, ge=1, le=10_000, validation_alias="BATCH_MAX_CONCURRENT_ITEMS"
    )
    process_workers: int | None = Field(
        default=None, ge=1, le=_MOST_PROCESSES, validation_alias="BATCHWORK_PROCESS_WORKERS"
    )
    chunk_size: int = Field(default=50, ge=1, le=1000, validation_alias="BATCH_DEFAULT_SIZE")
    batch_retry_limit: int | None = Field(
        default=None, ge=0, le=100, validation_alias="BATCH_RETRY_LIMIT"
    )
    batch_max_retries: int = Field(default=3, ge=0, le=100, validation_alias="BATCH_MAX_RETRIES")
    retry_initial_backoff: Seconds = Field(
        default=timedelta(seconds=1),
        ge=timedelta(0),
        le=timedelta(hours=1),
        validation_alias="BATCHWORK_RETRY_INITIAL_BACKOFF",
    )
    retry_max_backoff: Seconds = Field(
        default=timedelta(minutes=5),
        ge=timedelta(0),
        le=timedelta(days=1),
        validation_alias="BATCHWORK_RETRY_MAX_BACKOFF",
    )
    retry_multiplier: float = Field(
        default=2,
        ge=LEAST_MULTIPLIER,
        le=LARGEST_MULTIPLIER,
        validation_alias="BATCHWORK_RETRY_MULTIPLIER",
    )
    handicap_high: Seconds = Field(
        default=HANDICAPS[Priority.HIGH],
        ge=timedelta(0),
        le=timedelta(days=1),
        validation_alias="BATCHWORK_HANDICAP_HIGH",
    )
    handicap_medium: Seconds = Field(
        default=HANDICAPS[Priority.MEDIUM],
        ge=timedelta(0),
        le=timedelta(days=1),
        validation_alias="BATCHWORK_HANDICAP_MEDIUM",
    )
    handicap_low: Seconds = Field(
        default=HANDICAPS[Priority.LOW],
        ge=timedelta(0),
        le=timedelta(days=1),
        validation_alias="BATCHWORK_HANDICAP_LOW",
    )
    item_timeout_ms: int = Field(
        default=30_000, ge=1, le=3_600_000, validation_alias="BATCH_TIMEOUT_MS"
    )
    lease: Seconds = Field(
        default=timedelta(seconds=30),
        ge=timedelta(seconds=3),
        le=timedelta(hours=1),
        validation_alias="BATCHWORK_LEASE",
    )
    shutdown_grace: Seconds = Field(
        default=timedelta(seconds=30),
        ge=timedelta(0),
        le=timedelta(hours=1),
        validation_alias="BATCHWORK_SHUTDOWN_GRACE",
    )
    draft_timeout: Seconds = Field(
        default=timedelta(days=1),
        ge=timedelta(seconds=1),
        le=timedelta(days=30),
        validation_alias="BATCHWORK_DRAFT_TIMEOUT",
    )
    retention_days: int = Field(
        default=30, ge=0, le=36_500, validation_alias="BATCH_RETENTION_DAYS"
    )
    event_retention_days: int = Field(
        default=7, ge=0, le=36_500, validation_alias="BATCHWORK_EVENT_RETENTION_DAYS"
    )
    config_service_url: str | None = Field(default=None, validation_alias="CONFIG_SERVICE_URL")
    config_service_api_key: SecretStr | None = Field(
        default=None, validation_alias="CONFIG_SERVICE_API_KEY"
    )
    config_service_timeout: Seconds = Field(
        default=timedelta(seconds=30),
        ge=timedelta(seconds=1),
        le=timedelta(minutes=10),
        validation_alias="CONFIG_SERVICE_TIMEOUT",
    )
    config_preferences_key: str = Field(
        default="feature_preferences", validation_alias="CONFIG_PREFERENCES_KEY"
    )
    config_cache_ttl: Seconds = Field(
        default=timedelta(hours=1),
        ge=timedelta(0),
        le=timedelta(days=30),
        validation_alias="CONFIG_CACHE_TTL",
    )
    config_poll_interval: Seconds = Field(
        default=timedelta(minutes=1),
        ge=timedelta(seconds=1),
        le=timedelta(hours=1),
        validation_alias="CONFIG_POLL_INTERVAL",
    )
    config_tenant: str = Field(default="default", validation_alias="CONFIG_TENANT")
    time_zone: str = Field(default="UTC", validation_alias="BATCHWORK_TIME_ZONE")
    log_level: Literal["debug", "info", "warn", "error"] = Field(
        default="info", validation_alias="LOG_LEVEL"
    )
    debug: bool = Field(default=False, validation_alias="DEBUG")

    @field_validator("listen")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if value.startswith("unix:"):
            return value
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise ValueError("write host:port, such as 127.0.0.1:50051")
        return value

    @field_validator("jobs_tenant", "config_tenant")
    @classmethod
    def _is_tenant(cls, value: str) -> str:
        if not is_line(value, longest=LONGEST_TENANT_ID) or value == ALL_TENANTS:
            raise ValueError(f"write the id of one tenant, at most {LONGEST_TENANT_ID} characters")
        return value

    @field_validator("config_service_url")
    @classmethod
    def _is_web_address(cls, value: str | None) -> str | None:
        return _web_address(value) if value else None

    @field_validator("config_service_api_key")
    @classmethod
    def _fits_into_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        key = value.get_secret_value() if value is not None else ""
        if not all("!" <= character <= "~" for character in key):
            raise ValueError("write ASCII characters without spaces")
        return value

    @field_validator("config_preferences_key")
    @classmethod
    def _is_config_key(cls, value: str) -> str:
        if not is_line(value, longest=LONGEST_NAME):
            raise ValueError(f"write text of one line with 1 to {LONGEST_NAME} characters")
        return value

    @field_validator("time_zone")
    @classmethod
    def _is_time_zone(cls, value: str) -> str:
        if not is_time_zone(value):
            raise ValueError("write an IANA time zone such as Europe/Berlin")
        return value

    @property
    def database(self) -> SecretStr:
        """The URL of the database, whichever way it is named."""
        if self.other_database_url is not None:
            return self.other_database_url
        if self.db_host is None or self.db_name is None:
            return self.database_url
        password = self.db_password
        return SecretStr(
            postgresql_url(
                host=self.db_host,
                name=self.db_name,
                port=self.db_port,
                user=self.db_user,
                password=None if password is None else password.get_secret_value(),
                sslmode=self.db_sslmode,
            )
        )

    @property
    def least_level(self) -> str:
        """The level from which on lines are logged."""
        return "debug" if self.debug else self.log_level

    @property
    def user_ids(self) -> frozenset[str]:
        """To whom ``once`` restricts runs; empty means to nobody."""
        named = (self.user_id_filter or "").split(",")
        return frozenset(user_id.strip() for user_id in named if user_id.strip())

    @property
    def retry_limit(self) -> int:
        """Retries of an item: the first of the two settings that is set, else 3."""
        if self.batch_retry_limit is not None:
            return self.batch_retry_limit
        return self.batch_max_retries

    @property
    def child_processes(self) -> int:
        """How many child processes there may be: the setting, else one for each processor."""
        return self.process_workers or min(os.cpu_count() or 1, _MOST_PROCESSES)

    @property
    def batch_options(self) -> BatchOptions:
        """The options of requests and jobs that say nothing."""
        return BatchOptions(
            chunk_size=self.chunk_size,
            item_timeout=timedelta(milliseconds=self.item_timeout_ms),
            retry=RetryPolicy(
                retry_limit=self.retry_limit,
                initial_backoff=self.retry_initial_backoff,
                max_backoff=self.retry_max_backoff,
                multiplier=self.retry_multiplier,
            ),
            batch_timeout=self.processing_timeout,
        )

    @property
    def handicaps(self) -> Mapping[Priority, timedelta]:
        """How much later than a critical batch one of each priority counts as due."""
        return {
            Priority.CRITICAL: timedelta(0),
            Priority.HIGH: self.handicap_high,
            Priority.MEDIUM: self.handicap_medium,
            Priority.LOW: self.handicap_low,
        }

    @property
    def batches_are_kept(self) -> timedelta | None:
        """How long a batch is kept after its end; None means until somebody deletes it."""
        return timedelta(days=self.retention_days) if self.retention_days else None

    @property
    def events_are_kept(self) -> timedelta | None:
        """How long events are kept after the end of their batch; None means as long as it."""
        return timedelta(days=self.event_retention_days) if self.event_retention_days else None

    @property
    def is_loopback(self) -> bool:
        """Tells whether only processes of this machine can reach the server."""
        return is_loopback(self.listen)

    @property
    def has_tls(self) -> bool:
        return self.tls_certificate_file is not None


def _web_address(value: str) -> str:
    """Returns a URL that paths can be added to.

    Raises:
        ValueError: it is none; the message does not repeat it, because it may hold a secret.
    """
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError as error:
        raise ValueError("write a URL such as https://config.example.com/api/v1") from error
    is_web = parts.scheme in ("http", "https") and bool(parts.hostname)
    if not is_web or not is_line(value, longest=2048):
        raise ValueError("write a URL such as https://config.example.com/api/v1")
    if parts.username is not None or parts.password is not None:
        raise ValueError("write no user and password; CONFIG_SERVICE_API_KEY is the secret")
    if parts.query or parts.fragment:
        raise ValueError("write a URL without a query; paths are added to it")
    return value.rstrip("/")


def is_loopback(address: str) -> bool:
    """Tells whether an address, ``host:port`` or ``unix:path``, is this machine's own."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def load_settings() -> Settings:
    """Reads the settings from the environment.

    Raises:
        ConfigurationError: naming every variable that is wrong, without its value where that
            may be a secret.
    """
    try:
        # Not by names of fields, else a variable such as ``listen`` would mean more than is said.
        settings = Settings.model_validate(dict(os.environ), by_alias=True, by_name=False)
    except ValidationError as error:
        raise ConfigurationError(
            "\n".join(f"{_name(problem['loc'])}: {problem['msg']}" for problem in error.errors())
        ) from error
    problems = list(_problems(settings))
    if problems:
        raise ConfigurationError("\n".join(problems))
    return settings


def _name(location: tuple[int | str, ...]) -> str:
    return str(location[0]) if location else "settings"


def _problems(settings: Settings) -> list[str]:
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
        *_database_problems(settings),
        *_config_service_problems(settings),
        *_handicap_problems(settings),
    ]


def _database_problems(settings: Settings) -> list[str]:
    problems = []
    given = settings.model_fields_set
    ways = [name for name in ("database_url", "other_database_url") if name in given]
    parts = [name for name in _PARTS if name in given]
    if len(ways) + bool(parts) > 1:
        problems.append(
            f"{', '.join(_variable(name) for name in ways + parts)}: the database is named more "
            "than once. Keep BATCHWORK_DATABASE_URL, or DATABASE_URL, or DB_HOST with DB_NAME and "
            "what belongs to them."
        )
    missing = [name for name in ("db_host", "db_name") if name not in parts]
    if parts and missing:
        problems.append(
            f"{', '.join(map(_variable, missing))}: missing beside "
            f"{', '.join(map(_variable, parts))}; a database has a host and a name."
        )
    if settings.max_idle_connections > settings.max_open_connections:
        problems.append(
            f"DB_MAX_IDLE_CONNS: {settings.max_idle_connections} is more than DB_MAX_OPEN_CONNS, "
            f"{settings.max_open_connections}; set it to at most that."
        )
    return problems


_PARTS = ("db_host", "db_port", "db_user", "db_password", "db_name", "db_sslmode")


def _variable(field: str) -> str:
    return str(Settings.model_fields[field].validation_alias)


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
