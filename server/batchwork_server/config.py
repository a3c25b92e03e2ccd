"""Settings: read once from the environment; every problem is reported together."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from batchwork_server.domain.batch import BatchOptions
from batchwork_server.domain.retry import RetryPolicy
from batchwork_server.errors import ConfigurationError


def _seconds(value: object) -> object:
    """Reads a bare number as seconds; timedelta itself reads ISO 8601 durations."""
    if isinstance(value, str) and value.replace(".", "", 1).isdigit():
        return timedelta(seconds=float(value))
    return value


Seconds = Annotated[timedelta, BeforeValidator(_seconds)]


class Settings(BaseSettings):
    """How one server runs. Each field names its environment variable.

    Durations are seconds, as a number, unless the name says otherwise.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    database_url: SecretStr = Field(
        default=SecretStr("sqlite:///batchwork.db"), validation_alias="BATCHWORK_DATABASE_URL"
    )
    sqlite_synchronous: Literal["FULL", "NORMAL"] = Field(
        default="FULL", validation_alias="BATCHWORK_SQLITE_SYNCHRONOUS"
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
    templates_dir: Path | None = Field(default=None, validation_alias="BATCHWORK_TEMPLATES_DIR")
    max_concurrent_items: int = Field(
        default=25, ge=1, le=10_000, validation_alias="BATCH_MAX_CONCURRENT_ITEMS"
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
    log_level: Literal["debug", "info", "warn", "error"] = Field(
        default="info", validation_alias="LOG_LEVEL"
    )

    @field_validator("listen")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if value.startswith("unix:"):
            return value
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise ValueError("write host:port, such as 127.0.0.1:50051")
        return value

    @property
    def retry_limit(self) -> int:
        """Retries of an item: the first of the two settings that is set, else 3."""
        if self.batch_retry_limit is not None:
            return self.batch_retry_limit
        return self.batch_max_retries

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
            ),
        )

    @property
    def is_loopback(self) -> bool:
        """Tells whether only processes of this machine can reach the server."""
        return is_loopback(self.listen)

    @property
    def has_tls(self) -> bool:
        return self.tls_certificate_file is not None


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
        settings = Settings()
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
        if settings.api_keys_file is None and not settings.allow_anonymous:
            problems.append(
                f"BATCHWORK_LISTEN: {settings.listen} is reachable from other machines, and "
                "without keys everybody may call. Set BATCHWORK_API_KEYS_FILE, or say "
                "BATCHWORK_ALLOW_ANONYMOUS=true when something else checks callers."
            )
    return problems
