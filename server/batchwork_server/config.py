"""Settings: read once from the environment; every problem is reported together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

from batchwork_server.database_url import postgresql_url
from batchwork_server.domain.batch import HANDICAPS, BatchOptions, Priority
from batchwork_server.domain.job import LONGEST_BATCH_TIMEOUT, SHORTEST_BATCH_TIMEOUT
from batchwork_server.domain.preference import LONGEST_NAME
from batchwork_server.domain.retry import LARGEST_MULTIPLIER, LEAST_MULTIPLIER, RetryPolicy
from batchwork_server.domain.user import UsersAway
from batchwork_server.errors import ConfigurationError
from batchwork_server.setting_contradictions import contradictions
from batchwork_server.setting_kinds import (
    Address,
    Duration,
    FilePath,
    HeaderText,
    Identifier,
    Line,
    Number,
    Secret,
    SecretText,
    Tenant,
    Text,
    TimeZone,
    UnreadableSettings,
    WebAddress,
    Whole,
    Word,
    YesOrNo,
    is_loopback,
    read,
    setting,
)

Mode = Literal["serve", "scheduler", "once", "health"]
"""What ``batchwork-server`` does when no command says it."""

SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]

UsersAwayWord = Literal["fail", "assume_valid", "defer"]

_MOST_PROCESSES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How one server runs. Each field names its environment variable.

    Durations are seconds, as a number, or have units (``1h30m``), unless the name says otherwise.
    """

    database_url: Secret = setting(
        "BATCHWORK_DATABASE_URL", SecretText(), Secret("sqlite:///batchwork.db")
    )
    other_database_url: Secret | None = setting("DATABASE_URL", SecretText(), None)
    db_host: str | None = setting("DB_HOST", Text(least=1), None)
    db_port: int | None = setting("DB_PORT", Whole(1, 65535), None)
    db_user: str | None = setting("DB_USER", Text(least=1), None)
    db_password: Secret | None = setting("DB_PASSWORD", SecretText(), None)
    db_name: str | None = setting("DB_NAME", Text(least=1), None)
    db_sslmode: SslMode | None = setting("DB_SSLMODE", Word(SslMode), None)
    connect_timeout: timedelta = setting(
        "DB_CONNECT_TIMEOUT",
        Duration(timedelta(milliseconds=100), timedelta(hours=1)),
        timedelta(seconds=30),
    )
    max_open_connections: int = setting("DB_MAX_OPEN_CONNS", Whole(8, 1000), 20)
    max_idle_connections: int = setting("DB_MAX_IDLE_CONNS", Whole(5, 1000), 12)
    sqlite_synchronous: Literal["FULL", "NORMAL"] = setting(
        "BATCHWORK_SQLITE_SYNCHRONOUS", Word(Literal["FULL", "NORMAL"]), "FULL"
    )
    min_free_bytes: int = setting("BATCHWORK_MIN_FREE_BYTES", Whole(0), 64 * 1024 * 1024)
    listen: str = setting("BATCHWORK_LISTEN", Address(), "127.0.0.1:50051")
    tls_certificate_file: Path | None = setting("BATCHWORK_TLS_CERTIFICATE_FILE", FilePath(), None)
    tls_key_file: Path | None = setting("BATCHWORK_TLS_KEY_FILE", FilePath(), None)
    allow_clear_text: bool = setting("BATCHWORK_ALLOW_CLEAR_TEXT", YesOrNo(), False)
    api_keys_file: Path | None = setting("BATCHWORK_API_KEYS_FILE", FilePath(), None)
    allow_anonymous: bool = setting("BATCHWORK_ALLOW_ANONYMOUS", YesOrNo(), False)
    reflection: bool = setting("BATCHWORK_REFLECTION", YesOrNo(), True)
    max_message_bytes: int = setting(
        "BATCHWORK_MAX_MESSAGE_BYTES", Whole(4 * 1024 * 1024, 256 * 1024 * 1024), 32 * 1024 * 1024
    )
    metrics_listen: str | None = setting(
        "BATCHWORK_METRICS_LISTEN", Address(unix_sockets=False), None
    )
    max_watchers: int = setting("BATCHWORK_MAX_WATCHERS", Whole(1, 1000000), 10000)
    write_timeout: timedelta = setting(
        "BATCHWORK_WRITE_TIMEOUT",
        Duration(timedelta(seconds=1), timedelta(hours=1)),
        timedelta(seconds=30),
    )
    templates_dir: Path | None = setting("BATCHWORK_TEMPLATES_DIR", FilePath(), None)
    template_service_url: str | None = setting(
        "TEMPLATE_SERVICE_URL", WebAddress(key="TEMPLATE_SERVICE_API_KEY"), None
    )
    template_service_api_key: Secret | None = setting(
        "TEMPLATE_SERVICE_API_KEY", HeaderText(), None
    )
    template_service_timeout: timedelta = setting(
        "TEMPLATE_SERVICE_TIMEOUT",
        Duration(timedelta(seconds=1), timedelta(minutes=10)),
        timedelta(seconds=30),
    )
    template_poll_interval: timedelta = setting(
        "TEMPLATE_SERVICE_POLL_INTERVAL",
        Duration(timedelta(seconds=1), timedelta(hours=1)),
        timedelta(minutes=1),
    )
    jobs_file: Path | None = setting("BATCHWORK_JOBS_FILE", FilePath(), None)
    jobs_tenant: str = setting("BATCHWORK_JOBS_TENANT", Tenant(), "default")
    jobs_poll_interval: timedelta = setting(
        "BATCHWORK_JOBS_POLL_INTERVAL",
        Duration(timedelta(seconds=1), timedelta(hours=1)),
        timedelta(seconds=5),
    )
    notifications_file: Path | None = setting("BATCHWORK_NOTIFICATIONS_FILE", FilePath(), None)
    mode: Mode | None = setting("BATCH_MODE", Word(Mode), None)
    environment: Literal["development", "production"] = setting(
        "ENVIRONMENT", Word(Literal["development", "production"]), "development"
    )
    processing: bool = setting("ENABLE_BATCH_PROCESSING", YesOrNo(), True)
    processing_timeout: timedelta | None = setting(
        "BATCH_PROCESSING_TIMEOUT", Duration(SHORTEST_BATCH_TIMEOUT, LONGEST_BATCH_TIMEOUT), None
    )
    user_id_filter: str | None = setting("USER_ID_FILTER", Text(), None)
    max_concurrent_items: int = setting("BATCH_MAX_CONCURRENT_ITEMS", Whole(1, 10000), 25)
    process_workers: int | None = setting(
        "BATCHWORK_PROCESS_WORKERS", Whole(1, _MOST_PROCESSES), None
    )
    chunk_size: int = setting("BATCH_DEFAULT_SIZE", Whole(1, 1000), 50)
    batch_retry_limit: int | None = setting("BATCH_RETRY_LIMIT", Whole(0, 100), None)
    batch_max_retries: int = setting("BATCH_MAX_RETRIES", Whole(0, 100), 3)
    retry_initial_backoff: timedelta = setting(
        "BATCHWORK_RETRY_INITIAL_BACKOFF",
        Duration(timedelta(0), timedelta(hours=1)),
        timedelta(seconds=1),
    )
    retry_max_backoff: timedelta = setting(
        "BATCHWORK_RETRY_MAX_BACKOFF",
        Duration(timedelta(0), timedelta(days=1)),
        timedelta(minutes=5),
    )
    retry_multiplier: float = setting(
        "BATCHWORK_RETRY_MULTIPLIER", Number(LEAST_MULTIPLIER, LARGEST_MULTIPLIER), 2
    )
    handicap_high: timedelta = setting(
        "BATCHWORK_HANDICAP_HIGH",
        Duration(timedelta(0), timedelta(days=1)),
        HANDICAPS[Priority.HIGH],
    )
    handicap_medium: timedelta = setting(
        "BATCHWORK_HANDICAP_MEDIUM",
        Duration(timedelta(0), timedelta(days=1)),
        HANDICAPS[Priority.MEDIUM],
    )
    handicap_low: timedelta = setting(
        "BATCHWORK_HANDICAP_LOW", Duration(timedelta(0), timedelta(days=1)), HANDICAPS[Priority.LOW]
    )
    item_timeout_ms: int = setting("BATCH_TIMEOUT_MS", Whole(1, 3600000), 30000)
    lease: timedelta = setting(
        "BATCHWORK_LEASE", Duration(timedelta(seconds=3), timedelta(hours=1)), timedelta(seconds=30)
    )
    shutdown_grace: timedelta = setting(
        "BATCHWORK_SHUTDOWN_GRACE",
        Duration(timedelta(0), timedelta(hours=1)),
        timedelta(seconds=30),
    )
    draft_timeout: timedelta = setting(
        "BATCHWORK_DRAFT_TIMEOUT",
        Duration(timedelta(seconds=1), timedelta(days=30)),
        timedelta(days=1),
    )
    retention_days: int = setting("BATCH_RETENTION_DAYS", Whole(0, 36500), 30)
    event_retention_days: int = setting("BATCHWORK_EVENT_RETENTION_DAYS", Whole(0, 36500), 7)
    config_service_url: str | None = setting(
        "CONFIG_SERVICE_URL", WebAddress(key="CONFIG_SERVICE_API_KEY"), None
    )
    config_service_api_key: Secret | None = setting("CONFIG_SERVICE_API_KEY", HeaderText(), None)
    config_service_timeout: timedelta = setting(
        "CONFIG_SERVICE_TIMEOUT",
        Duration(timedelta(seconds=1), timedelta(minutes=10)),
        timedelta(seconds=30),
    )
    config_preferences_key: str = setting(
        "CONFIG_PREFERENCES_KEY", Line(LONGEST_NAME), "feature_preferences"
    )
    config_cache_ttl: timedelta = setting(
        "CONFIG_CACHE_TTL", Duration(timedelta(0), timedelta(days=30)), timedelta(hours=1)
    )
    config_poll_interval: timedelta = setting(
        "CONFIG_POLL_INTERVAL",
        Duration(timedelta(seconds=1), timedelta(hours=1)),
        timedelta(minutes=1),
    )
    config_tenant: str = setting("CONFIG_TENANT", Tenant(), "default")
    users_database_url: Secret | None = setting("BATCHWORK_USERS_DATABASE_URL", SecretText(), None)
    users_table: str = setting("BATCHWORK_USERS_TABLE", Identifier(parts=2), "system_users")
    users_id_column: str = setting("BATCHWORK_USERS_ID_COLUMN", Identifier(), "user_id")
    users_tenant_column: str | None = setting("BATCHWORK_USERS_TENANT_COLUMN", Identifier(), None)
    users_active_column: str | None = setting("BATCHWORK_USERS_ACTIVE_COLUMN", Identifier(), None)
    user_service_url: str | None = setting(
        "USER_SERVICE_URL", WebAddress(key="USER_SERVICE_API_KEY"), None
    )
    user_service_api_key: Secret | None = setting("USER_SERVICE_API_KEY", HeaderText(), None)
    user_service_timeout: timedelta = setting(
        "USER_SERVICE_TIMEOUT",
        Duration(timedelta(seconds=1), timedelta(minutes=10)),
        timedelta(seconds=30),
    )
    purpose_ids: str | None = setting("BATCHWORK_PURPOSES", Text(), None)
    users_away: UsersAwayWord = setting("BATCHWORK_USERS_AWAY", Word(UsersAwayWord), "fail")
    time_zone: str = setting("BATCHWORK_TIME_ZONE", TimeZone(), "UTC")
    log_level: Literal["debug", "info", "warn", "error"] = setting(
        "LOG_LEVEL", Word(Literal["debug", "info", "warn", "error"]), "info"
    )
    debug: bool = setting("DEBUG", YesOrNo(), False)

    @property
    def database(self) -> Secret:
        """The URL of the database, whichever way it is named."""
        if self.other_database_url is not None:
            return self.other_database_url
        if self.db_host is None or self.db_name is None:
            return self.database_url
        password = self.db_password
        return Secret(
            postgresql_url(
                host=self.db_host,
                name=self.db_name,
                port=self.db_port,
                user=self.db_user,
                password=None if password is None else password.reveal(),
                sslmode=self.db_sslmode,
            )
        )

    @property
    def least_level(self) -> str:
        """The level from which on lines are logged."""
        return "debug" if self.debug else self.log_level

    @property
    def purposes(self) -> frozenset[str] | None:
        """The purposes that jobs may have; None allows any."""
        if self.purpose_ids is None:
            return None
        named = self.purpose_ids.split(",")
        return frozenset(purpose.strip() for purpose in named if purpose.strip())

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
            users_away=UsersAway(self.users_away.upper()),
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


def load_settings() -> Settings:
    """Reads the settings from the environment.

    Raises:
        ConfigurationError: naming every variable that is wrong, without its value where that
            may be a secret.
    """
    try:
        values = read(Settings, os.environ)
    except UnreadableSettings as error:
        raise ConfigurationError("\n".join(error.problems)) from error
    settings = Settings(**values)
    problems = contradictions(settings, given=set(values))
    if problems:
        raise ConfigurationError("\n".join(problems))
    return settings
