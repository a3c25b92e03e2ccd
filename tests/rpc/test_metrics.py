"""Metrics are shown where the settings say, and nowhere else."""

from __future__ import annotations

import asyncio
import re
import socket
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
import pytest
from batchwork.v1.batch_service_pb2 import UploadItemsRequest
from batchwork.v1.item_pb2 import ItemInput
from batchwork.v1.validation_service_pb2 import ValidateUsersRequest
from batchwork_server.bootstrap import Serving, serving, working
from batchwork_server.errors import ConfigurationError, ItemFailed

from tests.rpc.api import Api
from tests.rpc.sources import load_users
from tests.rpc.test_user_references import inputs


@pytest.fixture
async def measured(settings, processors) -> AsyncIterator[Serving]:
    settings = replace(settings, metrics_listen="127.0.0.1:0")
    async with serving(settings, processors=processors) as running:
        yield running


@pytest.fixture
async def api(measured: Serving) -> AsyncIterator[Api]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{measured.port}") as channel:
        yield Api(channel)


async def scrape(server: Serving) -> str:
    """Returns what is shown, as it is."""
    url = f"http://127.0.0.1:{server.application.metrics_port}/metrics"

    def read() -> str:
        with urllib.request.urlopen(url) as answer:  # our own server
            return str(answer.read(), "utf-8")

    return await asyncio.to_thread(read)


async def counted(server: Serving, name: str) -> dict[str, float]:
    """Returns one of our counters by label, as far as it is not 0."""
    lines = re.findall(rf'^batchwork_{name}_total{{\w+="(\w+)"}} (.+)$', await scrape(server), re.M)
    assert lines
    return {label: float(value) for label, value in lines if float(value)}


async def test_what_has_not_happened_is_zero(api, measured):
    shown = await scrape(measured)

    assert 'batchwork_users_validated_total{verdict="NOT_FOUND"} 0.0' in shown
    assert 'batchwork_batches_finished_total{state="EXPIRED"} 0.0' in shown
    assert 'batchwork_notification_attempts_total{state="FAILED"} 0.0' in shown


async def test_users_and_references_are_counted_by_verdict(api, measured):
    await load_users(measured, "ann", inactive=("eve",))
    items = inputs(a={"user_ids": ["ann", "eve", "nobody", 7]})
    items.append(ItemInput(item_id="b", user_id="eve"))

    await api.create_batch(items=items)
    await api.validation.ValidateUsers(ValidateUsersRequest(user_ids=["ann", "", "ann"]))

    references = {"VALID": 1, "INACTIVE": 1, "NOT_FOUND": 1, "MALFORMED": 1}
    assert await counted(measured, "user_references") == references
    assert await counted(measured, "users_validated") == references | {"VALID": 2}


async def test_references_in_uploads_are_counted_too(api, measured):
    batch = await api.create_batch(items=inputs(a={"user_ids": ["nobody"]}), draft=True)
    page = UploadItemsRequest(
        batch_id=batch.batch_id, offset=1, items=inputs(b={"member_ids": ["nobody"]})
    )

    await api.batches.UploadItems(iter([page]))

    assert await counted(measured, "user_references") == {"NOT_FOUND": 2}


async def test_batches_and_their_items_are_counted_at_the_end(api, measured, processor):
    processor.on("b", ItemFailed("BROKEN", retryable=False))
    items = [ItemInput(item_id="a"), ItemInput(item_id="b"), ItemInput(user_id="nobody")]

    batch = await api.create_batch(items=items)
    await api.finished(batch.batch_id)

    assert await counted(measured, "batches_finished") == {"PARTIALLY_SUCCEEDED": 1}
    outcomes = {"succeeded": 1, "failed": 1, "skipped": 1}
    assert await counted(measured, "items_finished") == outcomes


async def test_the_lag_of_the_event_loop_is_measured(measured):
    async with asyncio.timeout(30):
        while "batchwork_event_loop_lag_seconds_count 0.0" in await scrape(measured):
            await asyncio.sleep(0)

    shown = await scrape(measured)
    assert 'batchwork_event_loop_lag_seconds_bucket{le="+Inf"}' in shown


async def test_no_label_names_anybody(api, measured):
    batch = await api.create_batch(items=[ItemInput(item_id="the-item", user_id="the-user")])

    text = await scrape(measured)

    assert batch.batch_id not in text
    assert "the-item" not in text
    assert "the-user" not in text


async def test_a_server_shows_nothing_unless_it_is_told_to(server):
    assert server.application.metrics_port is None


async def test_a_process_that_runs_once_shows_nothing(settings, processors):
    settings = replace(settings, metrics_listen="127.0.0.1:0")

    async with working(settings, processors=processors, fires=False) as app:
        assert app.metrics_port is None


async def test_an_address_that_is_taken_is_named(settings, processors):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        with pytest.raises(ConfigurationError, match="BATCHWORK_METRICS_LISTEN"):
            async with serving(replace(settings, metrics_listen=address), processors=processors):
                pass


async def test_the_port_is_free_when_the_server_has_stopped(settings, processors):
    async with serving(
        replace(settings, metrics_listen="127.0.0.1:0"), processors=processors
    ) as running:
        port = running.application.metrics_port
        assert port is not None

    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))
