"""Settings: what is refused, and how it is told."""

from __future__ import annotations

from datetime import timedelta

import pytest
from batchwork_server.config import Settings, is_loopback, load_settings
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
