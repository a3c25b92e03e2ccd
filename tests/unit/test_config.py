"""Settings: what is refused, and how it is told."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from batchwork_server.config import Settings, load_settings
from batchwork_server.domain.batch import HANDICAPS, Priority
from batchwork_server.domain.retry import RetryPolicy
from batchwork_server.domain.user import UsersAway
from batchwork_server.errors import ConfigurationError
from batchwork_server.setting_kinds import Secret, is_loopback


def refusal(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as error:
        load_settings()
    return error.value.message


def test_a_server_without_settings_stays_on_this_machine():
    settings = Settings()

    assert settings.is_loopback
    assert settings.retry_limit == 3
    assert settings.batch_options.chunk_size == 50
    assert settings.batch_options.item_timeout == timedelta(seconds=30)


@pytest.mark.parametrize(
    ("environment", "limit"),
    [
        pytest.param({}, 3, id="neither"),
        pytest.param({"BATCH_MAX_RETRIES": "5"}, 5, id="the second alone"),
        pytest.param({"BATCH_RETRY_LIMIT": "0", "BATCH_MAX_RETRIES": "5"}, 0, id="the first wins"),
    ],
)
def test_the_first_retry_setting_that_is_set_counts(monkeypatch, environment, limit):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert load_settings().retry_limit == limit


def test_a_server_without_settings_retries_and_orders_as_the_domain_says():
    settings = Settings()

    assert settings.batch_options.retry == RetryPolicy()
    assert settings.handicaps == HANDICAPS


def test_retries_and_handicaps_are_settings(monkeypatch):
    monkeypatch.setenv("BATCHWORK_RETRY_MULTIPLIER", "1.5")
    monkeypatch.setenv("BATCHWORK_HANDICAP_HIGH", "0")
    monkeypatch.setenv("BATCHWORK_HANDICAP_MEDIUM", "0.5")
    monkeypatch.setenv("BATCHWORK_HANDICAP_LOW", "86400")

    settings = load_settings()

    assert settings.batch_options.retry.multiplier == 1.5
    assert settings.handicaps == {
        Priority.CRITICAL: timedelta(0),
        Priority.HIGH: timedelta(0),
        Priority.MEDIUM: timedelta(milliseconds=500),
        Priority.LOW: timedelta(days=1),
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BATCHWORK_RETRY_MULTIPLIER", "0.9"),
        ("BATCHWORK_RETRY_MULTIPLIER", "11"),
        ("BATCHWORK_RETRY_MULTIPLIER", "nan"),
        ("BATCHWORK_HANDICAP_HIGH", "-1"),
        ("BATCHWORK_HANDICAP_MEDIUM", "soon"),
        ("BATCHWORK_HANDICAP_LOW", "86401"),
        ("BATCHWORK_JOBS_POLL_INTERVAL", "0.9"),
        ("BATCHWORK_JOBS_POLL_INTERVAL", "3601"),
        ("BATCHWORK_JOBS_TENANT", ""),
        ("BATCHWORK_JOBS_TENANT", "-"),
        ("BATCHWORK_JOBS_TENANT", "two\nlines"),
        ("BATCHWORK_JOBS_TENANT", "t" * 129),
    ],
)
def test_a_setting_beyond_its_range_is_named(monkeypatch, name, value):
    assert name in refusal(monkeypatch, **{name: value})


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"BATCHWORK_HANDICAP_HIGH": "301"}, id="high after medium"),
        pytest.param({"BATCHWORK_HANDICAP_LOW": "299"}, id="low before medium"),
    ],
)
def test_a_lower_priority_may_not_go_first(monkeypatch, environment):
    message = refusal(monkeypatch, **environment)

    for name in ("HIGH", "MEDIUM", "LOW"):
        assert f"BATCHWORK_HANDICAP_{name}" in message


def test_every_problem_is_told_at_once(monkeypatch):
    message = refusal(
        monkeypatch,
        BATCH_MAX_CONCURRENT_ITEMS="many",
        BATCH_DEFAULT_SIZE="0",
        BATCHWORK_LISTEN="50051",
    )

    assert "BATCH_MAX_CONCURRENT_ITEMS" in message
    assert "BATCH_DEFAULT_SIZE" in message
    assert "BATCHWORK_LISTEN" in message


def test_metrics_beyond_loopback_must_be_meant(monkeypatch):
    message = refusal(monkeypatch, BATCHWORK_METRICS_LISTEN="0.0.0.0:9464")

    assert "BATCHWORK_METRICS_LISTEN" in message
    assert "BATCHWORK_ALLOW_CLEAR_TEXT" in message

    monkeypatch.setenv("BATCHWORK_ALLOW_CLEAR_TEXT", "true")
    assert load_settings().metrics_listen == "0.0.0.0:9464"


def test_metrics_are_shown_at_an_address_of_the_web(monkeypatch):
    message = refusal(monkeypatch, BATCHWORK_METRICS_LISTEN="unix:/tmp/metrics")

    assert message.count("unix:path") == 0
    assert "host:port" in message


def test_clear_text_and_anonymous_callers_beyond_loopback_must_be_meant(monkeypatch):
    message = refusal(monkeypatch, BATCHWORK_LISTEN="0.0.0.0:50051")

    assert "BATCHWORK_ALLOW_CLEAR_TEXT" in message
    assert "BATCHWORK_ALLOW_ANONYMOUS" in message

    monkeypatch.setenv("BATCHWORK_ALLOW_CLEAR_TEXT", "true")
    monkeypatch.setenv("BATCHWORK_ALLOW_ANONYMOUS", "true")
    assert load_settings().listen == "0.0.0.0:50051"


def test_files_that_do_not_exist_are_named(monkeypatch, tmp_path):
    missing = str(tmp_path / "none.pem")

    message = refusal(
        monkeypatch,
        BATCHWORK_TLS_CERTIFICATE_FILE=missing,
        BATCHWORK_API_KEYS_FILE=missing,
    )

    assert "BATCHWORK_API_KEYS_FILE: there is no file" in message
    assert "BATCHWORK_TLS_KEY_FILE: set both" in message


def test_a_password_does_not_show():
    settings = Settings(database_url=Secret("postgresql://u:secret@host/db"))

    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("unix:/tmp/socket", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("localhost.example.com:1", False),
        ("127.0.0.1.example.com:1", False),
    ],
)
def test_only_this_machine_is_loopback(address, expected):
    assert is_loopback(address) is expected


def test_there_are_as_many_child_processes_as_processors_unless_it_is_said(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 96)
    assert load_settings().child_processes == 64

    monkeypatch.setenv("BATCHWORK_PROCESS_WORKERS", "3")
    assert load_settings().child_processes == 3

    monkeypatch.setenv("BATCHWORK_PROCESS_WORKERS", "65")
    with pytest.raises(ConfigurationError, match="BATCHWORK_PROCESS_WORKERS"):
        load_settings()


@pytest.mark.parametrize("text", ["5400", "1h30m", "90m"])
def test_a_duration_is_seconds_or_has_units(monkeypatch, text):
    monkeypatch.setenv("BATCHWORK_DRAFT_TIMEOUT", text)

    assert load_settings().draft_timeout == timedelta(hours=1, minutes=30)


def test_a_duration_without_sense_is_named(monkeypatch):
    assert "BATCHWORK_LEASE" in refusal(monkeypatch, BATCHWORK_LEASE="5 minutes")


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        pytest.param({}, "sqlite:///batchwork.db", id="none"),
        pytest.param({"DATABASE_URL": "postgres://u@h/n"}, "postgres://u@h/n", id="the other name"),
        pytest.param({"DB_HOST": "h", "DB_NAME": "n"}, "postgresql://h/n", id="the fewest parts"),
        pytest.param(
            {
                "DB_HOST": "postgres",
                "DB_PORT": "5432",
                "DB_USER": "link_user",
                "DB_PASSWORD": "link_pass",
                "DB_NAME": "link_app",
                "DB_SSLMODE": "disable",
            },
            "postgresql://link_user:link_pass@postgres:5432/link_app?sslmode=disable",
            id="all parts",
        ),
        pytest.param(
            {"DB_HOST": "/var/run/pg", "DB_PORT": "1", "DB_NAME": "n"},
            "postgresql:///n?host=%2Fvar%2Frun%2Fpg&port=1",
            id="a unix socket",
        ),
    ],
)
def test_a_database_is_named_by_a_url_or_by_its_parts(monkeypatch, environment, url):
    monkeypatch.setenv("BATCHWORK_ALLOW_CLEAR_TEXT", "true")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert load_settings().database.reveal() == url


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        pytest.param("postgresql://u@db.example.com/n", False, id="elsewhere"),
        pytest.param("postgresql://u@10.0.0.5/n?sslmode=prefer", False, id="only preferred"),
        pytest.param("postgres:///n?host=localhost,db.example.com", False, id="one of two"),
        pytest.param("postgresql://u@db.example.com/n?sslmode=require", True, id="encrypted"),
        pytest.param("postgresql://u@db.example.com/n?ssl=verify-full", True, id="and verified"),
        pytest.param("postgresql://u@[::1]:5433/n", True, id="loopback"),
        pytest.param("postgresql:///n?host=/var/run/pg", True, id="a unix socket"),
        pytest.param("sqlite:///batchwork.db", True, id="a file"),
    ],
)
@pytest.mark.parametrize("variable", ["DATABASE_URL", "BATCHWORK_USERS_DATABASE_URL"])
def test_clear_text_to_a_database_elsewhere_must_be_meant(monkeypatch, variable, url, allowed):
    if not allowed:
        message = refusal(monkeypatch, **{variable: url})
        assert "sslmode=require" in message
        assert "BATCHWORK_ALLOW_CLEAR_TEXT" in message
        monkeypatch.setenv("BATCHWORK_ALLOW_CLEAR_TEXT", "true")
    monkeypatch.setenv(variable, url)

    load_settings()


def test_what_a_part_of_the_database_holds_is_quoted(monkeypatch):
    parts = {"DB_HOST": "::1", "DB_USER": "a@b", "DB_PASSWORD": "p/?#[]@:% ü", "DB_NAME": "my/db ?"}
    for name, value in parts.items():
        monkeypatch.setenv(name, value)

    url = sa.make_url(load_settings().database.reveal())

    assert (url.host, url.username, url.password, url.database) == tuple(parts.values())


@pytest.mark.parametrize(
    "environment",
    [
        {"BATCHWORK_DATABASE_URL": "sqlite:///a.db", "DATABASE_URL": "sqlite:///a.db"},
        {"BATCHWORK_DATABASE_URL": "sqlite:///a.db", "DB_HOST": "h", "DB_NAME": "n"},
        {"DATABASE_URL": "postgresql://h/n", "DB_PASSWORD": "secret"},
    ],
)
def test_a_database_that_is_named_twice_is_refused(monkeypatch, environment):
    message = refusal(monkeypatch, **environment)

    assert all(name in message for name in environment)
    assert "more than once" in message


def test_what_is_missing_of_the_database_is_named(monkeypatch):
    message = refusal(monkeypatch, DB_USER="u", DB_PASSWORD="secret", DB_MAX_OPEN_CONNS="8")

    assert "DB_HOST, DB_NAME: missing beside DB_USER, DB_PASSWORD" in message
    assert "DB_MAX_IDLE_CONNS: 12 is more than" in message
    assert "secret" not in message


def test_a_password_in_parts_does_not_show(monkeypatch):
    parts = {"DB_HOST": "localhost", "DB_NAME": "n", "DB_PASSWORD": "secret"}
    for name, value in parts.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()

    assert "secret" not in f"{settings!r} {settings.database!r}"
    assert "secret" not in refusal(monkeypatch, DB_PORT="secretly", LOG_LEVEL="secre")


def test_an_unknown_mode_names_those_that_there_are(monkeypatch):
    message = refusal(monkeypatch, BATCH_MODE="daemon", ENVIRONMENT="staging")

    for word in ("BATCH_MODE", "serve", "scheduler", "once", "health", "ENVIRONMENT", "production"):
        assert word in message


def test_debug_is_the_lowest_level_whatever_the_level_is(monkeypatch):
    monkeypatch.setenv("LOG_LEVEL", "error")
    assert load_settings().least_level == "error"

    monkeypatch.setenv("DEBUG", "true")
    assert load_settings().least_level == "debug"


def test_a_batch_has_all_the_time_unless_it_is_said(monkeypatch):
    assert load_settings().batch_options.batch_timeout is None

    monkeypatch.setenv("BATCH_PROCESSING_TIMEOUT", "1h30m")
    assert load_settings().batch_options.batch_timeout == timedelta(minutes=90)
    assert "BATCH_PROCESSING_TIMEOUT" in refusal(monkeypatch, BATCH_PROCESSING_TIMEOUT="0s")


def test_in_production_nobody_calls_from_elsewhere_without_a_key(monkeypatch):
    message = refusal(
        monkeypatch,
        ENVIRONMENT="production",
        BATCHWORK_LISTEN="0.0.0.0:50051",
        BATCHWORK_ALLOW_CLEAR_TEXT="true",
        BATCHWORK_ALLOW_ANONYMOUS="true",
    )

    assert "ENVIRONMENT=production" in message
    monkeypatch.setenv("BATCHWORK_LISTEN", "127.0.0.1:50051")
    assert load_settings().environment == "production"


def test_users_are_separated_by_commas(monkeypatch):
    assert load_settings().user_ids == frozenset()

    monkeypatch.setenv("USER_ID_FILTER", "user123, user456,")
    assert load_settings().user_ids == {"user123", "user456"}


def test_a_variable_that_is_spelled_like_a_field_means_nothing(monkeypatch):
    monkeypatch.setenv("LISTEN", "127.0.0.1:1")
    monkeypatch.setenv("MODE", "once")
    monkeypatch.setenv("log_level", "error")

    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        pytest.param("config-service:8000", "Write a URL", id="no scheme"),
        pytest.param("ftp://config.example.com", "Write a URL", id="another scheme"),
        pytest.param("https://", "Write a URL", id="no host"),
        pytest.param("https://config.example.com:port", "Write a URL", id="no port"),
        pytest.param("https://config.example.com/a\nb", "Write a URL", id="two lines"),
        pytest.param("https://me:secret@config.example.com", "CONFIG_SERVICE_API_KEY", id="user"),
        pytest.param("https://config.example.com/?tenant=a", "without a query", id="query"),
    ],
)
def test_the_url_of_a_config_service_is_one_that_paths_are_added_to(monkeypatch, url, words):
    message = refusal(monkeypatch, CONFIG_SERVICE_URL=url)

    assert message.startswith("CONFIG_SERVICE_URL: ")
    assert words in message
    assert "secret@" not in message


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        pytest.param("https://config.example.com/api/v1", True, id="TLS"),
        pytest.param("http://127.0.0.1:8000/api/v1", True, id="this machine"),
        pytest.param("http://[::1]:8000", True, id="this machine by IPv6"),
        pytest.param("http://localhost", True, id="this machine by name"),
        pytest.param("http://config-service:8000/api/v1", False, id="another machine"),
        pytest.param("http://localhost.example.com", False, id="a name that looks like it"),
    ],
)
def test_clear_text_to_a_config_service_elsewhere_must_be_meant(monkeypatch, url, allowed):
    if not allowed:
        assert "BATCHWORK_ALLOW_CLEAR_TEXT" in refusal(monkeypatch, CONFIG_SERVICE_URL=url)
        monkeypatch.setenv("BATCHWORK_ALLOW_CLEAR_TEXT", "true")
    monkeypatch.setenv("CONFIG_SERVICE_URL", url)

    assert load_settings().config_service_url == url


def test_an_empty_url_of_a_config_service_means_none(monkeypatch):
    monkeypatch.setenv("CONFIG_SERVICE_URL", "")

    assert load_settings().config_service_url is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CONFIG_SERVICE_API_KEY", "two words"),
        ("CONFIG_SERVICE_API_KEY", "a\r\nx-other: b"),
        ("CONFIG_PREFERENCES_KEY", ""),
        ("CONFIG_TENANT", "-"),
        ("CONFIG_CACHE_TTL", "-1"),
        ("CONFIG_POLL_INTERVAL", "0"),
        ("CONFIG_SERVICE_TIMEOUT", "0"),
    ],
)
def test_a_wrong_setting_of_a_config_service_is_named_without_its_value(monkeypatch, name, value):
    message = refusal(monkeypatch, **{name: value})

    assert message.startswith(f"{name}: ")
    assert "two words" not in message
    assert "x-other" not in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BATCHWORK_USERS_TABLE", "users; DROP TABLE users"),
        ("BATCHWORK_USERS_TABLE", "a.b.c"),
        ("BATCHWORK_USERS_TABLE", ""),
        ("BATCHWORK_USERS_ID_COLUMN", 'id"'),
        ("BATCHWORK_USERS_ID_COLUMN", "public.id"),
        ("BATCHWORK_USERS_TENANT_COLUMN", "1st"),
        ("BATCHWORK_USERS_ACTIVE_COLUMN", "x" * 64),
        ("USER_SERVICE_API_KEY", "two words"),
        ("USER_SERVICE_TIMEOUT", "0"),
        ("USER_SERVICE_URL", "users"),
        ("BATCHWORK_USERS_AWAY", "perhaps"),
    ],
)
def test_a_wrong_setting_of_a_source_of_users_is_named(monkeypatch, name, value):
    assert refusal(monkeypatch, **{name: value}).startswith(f"{name}: ")


def test_the_users_are_in_one_place(monkeypatch):
    url = "postgresql://me:secret@host/people?sslmode=require"
    monkeypatch.setenv("BATCHWORK_USERS_DATABASE_URL", url)

    message = refusal(monkeypatch, USER_SERVICE_URL="https://users.example.com")

    assert message.startswith("BATCHWORK_USERS_DATABASE_URL, USER_SERVICE_URL: ")
    assert "secret" not in message


def test_a_table_of_users_needs_its_database(monkeypatch):
    monkeypatch.setenv("BATCHWORK_USERS_TABLE", "people")

    message = refusal(monkeypatch, BATCHWORK_USERS_ID_COLUMN="id")

    assert message.startswith("BATCHWORK_USERS_TABLE, BATCHWORK_USERS_ID_COLUMN: ")


def test_clear_text_to_a_user_service_elsewhere_must_be_meant(monkeypatch):
    message = refusal(monkeypatch, USER_SERVICE_URL="http://user-svc:8080")
    monkeypatch.setenv("BATCHWORK_ALLOW_CLEAR_TEXT", "true")
    monkeypatch.setenv("USER_SERVICE_URL", "http://user-svc:8080")

    assert message.startswith("USER_SERVICE_URL: ")
    assert load_settings().user_service_url == "http://user-svc:8080"


def test_templates_are_in_one_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BATCHWORK_TEMPLATES_DIR", str(tmp_path))

    message = refusal(monkeypatch, TEMPLATE_SERVICE_URL="https://templates.example.com")

    assert message.startswith("BATCHWORK_TEMPLATES_DIR, TEMPLATE_SERVICE_URL: ")


def test_templates_are_not_read_in_clear_text(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, TEMPLATE_SERVICE_URL="http://templates:8080")

    assert message.startswith("TEMPLATE_SERVICE_URL: ")
    assert "BATCHWORK_ALLOW_CLEAR_TEXT" in message


def test_batches_without_verdicts_are_refused_unless_the_setting_says_otherwise(monkeypatch):
    assert load_settings().batch_options.users_away is UsersAway.FAIL

    monkeypatch.setenv("BATCHWORK_USERS_AWAY", "assume_valid")
    assert load_settings().batch_options.users_away is UsersAway.ASSUME_VALID
