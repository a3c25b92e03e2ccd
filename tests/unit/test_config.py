"""Settings: what is refused, and how it is told."""

from __future__ import annotations

from datetime import timedelta

import pytest
from batchwork_server.config import Settings, is_loopback, load_settings
from batchwork_server.domain.batch import HANDICAPS, Priority
from batchwork_server.domain.retry import RetryPolicy
from batchwork_server.errors import ConfigurationError
from pydantic import SecretStr


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
    settings = Settings(database_url=SecretStr("postgresql://u:secret@host/db"))

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


@pytest.mark.parametrize("text", ["5400", "1h30m", "90m", "PT1H30M"])
def test_a_duration_is_seconds_or_has_units(monkeypatch, text):
    monkeypatch.setenv("BATCHWORK_DRAFT_TIMEOUT", text)

    assert load_settings().draft_timeout == timedelta(hours=1, minutes=30)


def test_a_duration_without_sense_is_named(monkeypatch):
    assert "BATCHWORK_LEASE" in refusal(monkeypatch, BATCHWORK_LEASE="5 minutes")
