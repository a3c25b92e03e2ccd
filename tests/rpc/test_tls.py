"""TLS: the way to the server is closed to those who only listen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from batchwork_client import UnavailableError, connect
from batchwork_server.bootstrap import Serving, serving
from batchwork_server.config import Settings
from batchwork_server.processors.registry import ProcessorRegistry

from tests.rpc.api import KEYS, write_keys

ONCE = [("grpc.enable_retries", 0)]  # it would not come out better


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def secure_server(
    settings: Settings, processors: ProcessorRegistry, authority: trustme.CA, tmp_path: Path
) -> AsyncIterator[Serving]:
    certificate = authority.issue_cert("localhost")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(key)
    secured = replace(
        settings,
        tls_certificate_file=chain,
        tls_key_file=key,
        api_keys_file=write_keys(tmp_path / "keys.json"),
    )
    async with serving(secured, processors=processors) as running:
        yield running


async def test_a_client_that_trusts_the_authority_is_served(secure_server, authority):
    api_key = next(iter(KEYS))
    trusted = authority.cert_pem.bytes()
    target = f"localhost:{secure_server.port}"

    async with connect(target, root_certificates=trusted, api_key=api_key) as client:
        batches = [batch async for batch in client.batches.list_batches()]

    assert batches == []


async def test_a_client_that_does_not_know_the_authority_leaves(secure_server):
    stranger = trustme.CA().cert_pem.bytes()
    target = f"localhost:{secure_server.port}"

    async with connect(target, root_certificates=stranger, options=ONCE) as client:
        with pytest.raises(UnavailableError):
            await client.batches.get_batch("bat-1")


async def test_clear_text_is_not_understood(secure_server):
    async with connect(f"localhost:{secure_server.port}", options=ONCE) as client:
        with pytest.raises(UnavailableError):
            await client.batches.get_batch("bat-1")
