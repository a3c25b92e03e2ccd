"""The server says clearly why it cannot start, and ends in order."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import grpc
import pytest
from batchwork.v1.batch_service_pb2 import GetBatchRequest
from batchwork_server.bootstrap import serving
from batchwork_server.errors import ConfigurationError

from tests.rpc.api import Api, refused, settings_in


async def test_an_address_that_is_taken_is_named(server, tmp_path, processors):
    folder = tmp_path / "second"
    folder.mkdir()
    taken = f"127.0.0.1:{server.port}"
    second = replace(settings_in(folder), listen=taken)

    with pytest.raises(ConfigurationError, match=taken):
        async with serving(second, processors=processors):
            pass


async def test_a_certificate_that_is_none_is_refused(settings, tmp_path, processors):
    for name in ("chain.pem", "key.pem"):
        (tmp_path / name).write_text("no certificate")
    broken = replace(
        settings,
        tls_certificate_file=tmp_path / "chain.pem",
        tls_key_file=tmp_path / "key.pem",
    )

    with pytest.raises(ConfigurationError, match="certificate"):
        async with serving(broken, processors=processors):
            pass


async def test_a_unix_socket_serves_as_well(settings, tmp_path, processors):
    target = f"unix:{tmp_path / 'batchwork.sock'}"
    local = replace(settings, listen=target)

    async with (
        serving(local, processors=processors),
        grpc.aio.insecure_channel(target) as channel,
    ):
        batch = await Api(channel).create_batch()

    assert batch.counts.total == 1


async def test_calls_that_come_while_the_server_drains_are_sent_elsewhere(api, server):
    await server.rpc.stop_serving()

    refusal = await refused(api.batches.GetBatch(GetBatchRequest(batch_id="batch-1")))

    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert refusal.reason == "SHUTTING_DOWN"


async def test_items_that_a_stop_interrupts_are_done_after_the_next_start(
    settings, processors, processor
):
    processor.gate = asyncio.Event()
    impatient = replace(settings, shutdown_grace=timedelta(0))
    async with (
        serving(impatient, processors=processors) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        batch = await Api(channel).create_batch("a")
        await processor.started.wait()

    processor.gate.set()
    async with (
        serving(impatient, processors=processors) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        done = await Api(channel).finished(batch.batch_id)

    assert (done.counts.succeeded, done.counts.retries) == (1, 0)
    assert processor.attempts("a") == 2
