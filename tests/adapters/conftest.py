"""A real Config Database, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest
import stamina
from batchwork_server.adapters.config_database import HttpConfigDatabase

from tests.config_service import KEY, ConfigService, config_service
from tests.fakes import FakeClock
from tests.http_service import API_KEY

TTL = timedelta(seconds=3600)


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    """Retries without waiting."""
    with stamina.set_testing(True, attempts=10, cap=True):
        yield


@pytest.fixture
async def service() -> AsyncIterator[ConfigService]:
    async with config_service() as running:
        yield running


def client_of(
    service: ConfigService, clock: FakeClock, *, timeout: timedelta = timedelta(seconds=10)
) -> HttpConfigDatabase:
    return HttpConfigDatabase(
        url=service.url,
        api_key=API_KEY,
        config_key=KEY,
        timeout=timeout,
        cache_ttl=TTL,
        clock=clock,
    )


@pytest.fixture
async def source(service: ConfigService, clock: FakeClock) -> AsyncIterator[HttpConfigDatabase]:
    """Reads from the service."""
    client = client_of(service, clock)
    yield client
    await client.close()
