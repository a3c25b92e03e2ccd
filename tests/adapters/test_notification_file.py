"""The operator's file of targets: all that is wrong is told at once, and nothing secret."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from batchwork_server.adapters.notification_file import read_notification_file
from batchwork_server.adapters.notifiers import open_notifiers
from batchwork_server.domain.batch import FINAL_STATES, BatchState
from batchwork_server.domain.notification import NotificationKind
from batchwork_server.errors import ConfigurationError

from tests.fakes import FakeClock
from tests.webhook_receiver import SECRET

URL = "https://hooks.example/token-of-the-path"


def webhook(**changes: Any) -> dict[str, Any]:
    return {"name": "ops", "url": URL, "secret": SECRET} | changes


def write(folder: Path, *targets: Any, name: str = "targets.json", **fields: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps({"targets": list(targets), **fields}))
    return path


def problems(path: Path, *, allow_clear_text: bool = False) -> str:
    """Returns what the file is refused for."""
    with pytest.raises(ConfigurationError) as raised:
        read_notification_file(path, allow_clear_text=allow_clear_text)
    assert str(path) in raised.value.message
    return raised.value.message


def test_a_target_hears_of_every_end_unless_it_says_which(tmp_path):
    path = write(
        tmp_path,
        webhook(),
        webhook(name="pager", kinds=["failed", "expired"], default=True, tenants=["blue"]),
        webhook(name="ledger", kinds=["deliveries"]),
    )

    ops, pager, ledger = (
        entry.target for entry in read_notification_file(path, allow_clear_text=False).entries
    )

    assert (ops.states, ops.deliveries, ops.is_default) == (FINAL_STATES, False, False)
    assert pager.states == {BatchState.FAILED, BatchState.EXPIRED}
    assert pager.is_default
    assert (pager.is_open_to("blue"), pager.is_open_to("green")) == (True, False)
    assert ledger.kinds == (NotificationKind.DELIVERIES,)


def test_yaml_and_json_say_the_same(tmp_path):
    as_yaml = tmp_path / "targets.yaml"
    as_yaml.write_text(f"targets:\n  - name: ops\n    url: {URL}\n    secret: {SECRET}\n")

    read = [
        read_notification_file(path, allow_clear_text=False)
        for path in (as_yaml, write(tmp_path, webhook()))
    ]

    assert read[0] == read[1]


def test_all_that_is_wrong_is_told_at_once_with_its_path(tmp_path):
    path = write(
        tmp_path,
        webhook(name="Ops!"),
        webhook(name="pager", secret="whsec_c2hvcnQ=", kinds=["failed", "sometimes"]),
        webhook(name="pager", url="nonsense"),
        {"name": "mute", "url": URL},
        webhook(name="typo", tennants=["blue"]),
        "https://alone.example",
        allow=True,
    )

    message = problems(path)

    for place in (
        *("$.targets[0].name", "$.targets[1].secret", "$.targets[1].kinds", "$.targets[2].name"),
        *("$.targets[2].url", "$.targets[3].secret", "$.targets[4].tennants", "$.targets[5]"),
        "$.allow",
    ):
        assert f"{place}: " in message
    assert "did you mean `tenants`?" in message


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"targets:\n  - name: ops\n    secret: [{SECRET}\n", id="no YAML"),
        pytest.param(f"- {URL}\n- {SECRET}\n", id="a list"),
        pytest.param(f"targets:\n  - {SECRET}\n", id="a bare secret"),
        pytest.param(
            f"targets:\n  - name: ops\n    url: ['{URL}']\n    secret: x{SECRET}\n", id="kinds"
        ),
        pytest.param(f"targets:\n  - name: {URL}\n    url: http://h/{SECRET}\n", id="places"),
        pytest.param(f"targets: {SECRET}\n", id="no list"),
        pytest.param(
            f"targets:\n  - name: ops\n    url: slack://{SECRET}\n    secret: {SECRET}\n"
            "    kinds: [deliveries]\n",
            id="deliveries",
        ),
        pytest.param(f"1: 2\n{SECRET[6:]}\n", id="keys"),
    ],
)
def test_no_problem_shows_what_is_secret(tmp_path, text):
    path = tmp_path / "targets.yaml"
    path.write_text(text)

    message = problems(path)

    assert "token-of-the-path" not in message
    assert SECRET[6:] not in message


def test_what_was_read_does_not_show_it_either(tmp_path):
    file = read_notification_file(write(tmp_path, webhook()), allow_clear_text=False)

    assert "ops" in repr(file)
    assert URL not in repr(file)
    assert SECRET not in repr(file)


@pytest.mark.parametrize(
    "url, allowed",
    [
        pytest.param("https://hooks.example/x", True, id="encrypted"),
        pytest.param("http://hooks.example/x", False, id="in the clear"),
        pytest.param("http://127.0.0.1:8080/x", False, id="this machine"),
        pytest.param("https://", False, id="no host"),
        pytest.param("https://hooks.example:port/x", False, id="no port"),
        pytest.param("https://hooks.example/a b", False, id="a space"),
    ],
)
def test_a_webhook_is_called_with_tls(tmp_path, url, allowed):
    path = write(tmp_path, webhook(url=url))

    if allowed:
        assert read_notification_file(path, allow_clear_text=False).entries
    else:
        assert "$.targets[0].url: " in problems(path)


def test_clear_text_may_stand_for_this_machine_or_where_the_operator_says_so(tmp_path):
    local = write(tmp_path, webhook(url="http://127.0.0.1:8080/x"), allow_private_addresses=True)
    assert read_notification_file(local, allow_clear_text=False).entries

    beyond = write(tmp_path, webhook(url="http://hooks.example/x"), allow_private_addresses=True)
    assert "BATCHWORK_ALLOW_CLEAR_TEXT" in problems(beyond)
    assert read_notification_file(beyond, allow_clear_text=True).entries


@pytest.mark.parametrize("content", [b"", b"\xff", b"targets: []\n", b"[" * 100_000])
def test_a_file_that_says_nothing_is_refused(tmp_path, content):
    path = tmp_path / "targets.yaml"
    path.write_bytes(content)

    assert "$" in problems(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    assert "cannot be read" in problems(tmp_path / "missing.yaml")


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "targets.yaml"
    path.write_bytes(b"#" * (1024 * 1024 + 1))

    assert "larger than" in problems(path)


def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "batchwork_server.adapters.webhooks", raising=False)
    monkeypatch.setitem(sys.modules, "standardwebhooks.webhooks", None)

    with pytest.raises(ConfigurationError) as raised:
        open_notifiers(write(tmp_path, webhook()), clock=FakeClock(), allow_clear_text=False)

    assert "install batchwork[notifications]" in raised.value.message
