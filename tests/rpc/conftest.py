"""A whole server for each test: on a free port, over a database of its own, with the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from batchwork_server.bootstrap import Serving, serving
from batchwork_server.config import Settings
from batchwork_server.processors.registry import ProcessorRegistry

from tests.fakes import FakeProcessor
from tests.rpc.api import Api, settings_in, write_keys


@pytest.fixture
def processor() -> FakeProcessor:
    """What every item goes through; it answers with the item's data."""
    return FakeProcessor()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


@pytest.fixture
def processors(processor: FakeProcessor) -> ProcessorRegistry:
    registry = ProcessorRegistry()
    registry.register("fake", processor)
    return registry


@pytest.fixture
async def server(settings: Settings, processors: ProcessorRegistry) -> AsyncIterator[Serving]:
    """A server that asks nobody for a key."""
    async with serving(settings, processors=processors) as running:
        yield running


@pytest.fixture
async def api(server: Serving) -> AsyncIterator[Api]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Api(channel)


@pytest.fixture
async def guarded_server(
    settings: Settings, processors: ProcessorRegistry, tmp_path: Path
) -> AsyncIterator[Serving]:
    """A server that knows the callers of ``KEYS`` and nobody else."""
    guarded = replace(settings, api_keys_file=write_keys(tmp_path / "keys.json"))
    async with serving(guarded, processors=processors) as running:
        yield running


@pytest.fixture
async def guarded(guarded_server: Serving) -> AsyncIterator[Api]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{guarded_server.port}") as channel:
        yield Api(channel)
