"""Logs: JSON lines that get out."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator

import orjson
import pytest
import structlog
from batchwork_server.logs import configure_logs, correlation_id

from tests.console import log_to_console


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure_logs(level="info", stream=stream)
    yield stream
    configure_logs(level="error", stream=io.StringIO())
    log_to_console()


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_begins_with_when_how_bad_and_what(out):
    token = correlation_id.set("call-1")
    structlog.get_logger().warning("batch.paused", batch_id="bat-1")
    correlation_id.reset(token)

    [line] = lines(out)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert (line["event"], line["batch_id"], line["correlation_id"]) == (
        "batch.paused",
        "bat-1",
        "call-1",
    )


def test_what_is_below_the_level_is_left_out(out):
    structlog.get_logger().debug("loop.ticked")

    assert lines(out) == []


async def test_a_warning_takes_what_waited_before_it_along(out):
    log = structlog.get_logger()

    log.info("first")
    waiting = lines(out)
    log.warning("second")

    assert waiting == []
    assert [line["event"] for line in lines(out)] == ["first", "second"]


def test_a_loop_that_ended_early_holds_nothing_back(out):
    async def tell(event: str) -> None:
        structlog.get_logger().info(event)

    asyncio.run(tell("first"))
    structlog.get_logger().info("second")

    assert [line["event"] for line in lines(out)] == ["first", "second"]
