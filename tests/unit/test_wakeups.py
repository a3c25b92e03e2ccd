"""A batch that was written is told to everybody, whatever somebody makes of that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from batchwork_server import wakeups as module
from batchwork_server.domain.batch import Batch
from batchwork_server.logs import get_logger
from batchwork_server.wakeups import Wakeups

from tests.factories import make_batch

Logged = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def _fresh_log(logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    # A logger keeps the stream that it wrote to first, which was another test's.
    monkeypatch.setattr(module, "log", get_logger(module.__name__))


def test_a_listener_that_fails_holds_up_neither_the_others_nor_the_caller(logged: Logged):
    # The story: it raised out of a CancelBatch that was committed, and out of every commit.
    wakeups = Wakeups()
    heard: list[Batch] = []
    errors = iter([ValueError("bad"), ValueError("again"), KeyError("other")])

    def failing(batch: Batch) -> None:
        raise next(errors)

    wakeups.subscribe(failing)
    wakeups.subscribe(heard.append)
    batches = [make_batch(), make_batch(), make_batch()]
    for batch in batches:
        wakeups.batch_changed(batch)

    assert heard == batches
    lines = [line for line in logged() if line["event"] == "listener.failed"]
    assert ["ValueError: bad" in lines[0]["exception"], len(lines)] == [True, 2]
