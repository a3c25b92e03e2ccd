"""Who is called, over what, with which credentials."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import grpc
import pytest
from batchwork.v1 import batch_service_pb2 as messages
from batchwork.v1.batch_service_pb2_grpc import BatchServiceServicer
from batchwork_client import ConfigurationError, DeadlineExceededError, UnavailableError, connect
from batchwork_client.connection import _CHANNEL_OPTIONS, credentials_for, stays_on_this_machine

from tests.client.servers import UNAVAILABLE, Unary, servicer


@pytest.fixture
def get_batch():
    return Unary(messages.GetBatchResponse())


@pytest.fixture
def batches(get_batch):
    return servicer(BatchServiceServicer, GetBatch=get_batch)


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("localhost:50051", True),
        ("LOCALHOST:50051", True),
        ("127.0.0.1:50051", True),
        ("127.8.8.8:50051", True),
        ("[::1]:50051", True),
        ("unix:/run/batchwork.sock", True),
        ("unix-abstract:batchwork", True),
        ("ipv4:127.0.0.1:50051", True),
        ("ipv6:[::1]:50051", True),
        ("dns:localhost:50051", True),
        ("dns:///localhost:50051", True),
        ("dns://8.8.8.8/localhost:50051", True),
        ("dns:///batchwork.example:443", False),
        ("batchwork.example:443", False),
        ("localhost.example:443", False),
        ("10.0.0.1:50051", False),
        ("0.0.0.0:50051", False),
        ("[2001:db8::1]:50051", False),
        ("ipv4:127.0.0.1:50051,10.0.0.1:50051", False),
        ("xds:///localhost", False),
        ("", False),
    ],
)
def test_only_loopback_and_unix_sockets_stay_on_this_machine(target, local):
    assert stays_on_this_machine(target) is local


async def test_api_key_never_travels_in_clear_text():
    with pytest.raises(ConfigurationError, match=r"batchwork\.example:80.*TLS") as refused:
        connect("batchwork.example:80", api_key="secret", allow_clear_text=True)

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("target", "given", "encrypted"),
    [
        pytest.param("batchwork.example:443", {}, True, id="another machine"),
        pytest.param("batchwork.example:443", {"has_api_key": True}, True, id="with a key"),
        pytest.param("batchwork.example:80", {"allow_clear_text": True}, False, id="asked for"),
        pytest.param("localhost:50051", {}, False, id="this machine"),
        pytest.param("localhost:50051", {"has_api_key": True}, False, id="this machine, a key"),
        pytest.param("localhost:443", {"root_certificates": b""}, True, id="certificates"),
    ],
)
def test_clear_text_beyond_this_machine_has_to_be_asked_for(target, given, encrypted):
    nothing = {
        "has_api_key": False,
        "root_certificates": None,
        "credentials": None,
        "allow_clear_text": False,
    }

    assert (credentials_for(target, **(nothing | given)) is not None) is encrypted


@pytest.mark.parametrize("api_key", ["", "two\nlines", "secret\n", " secret", "schlüssel"])
async def test_api_key_that_cannot_travel_is_refused_without_showing_it(api_key):
    with pytest.raises(ConfigurationError) as refused:
        connect("localhost:50051", api_key=api_key)

    assert not api_key or api_key not in str(refused.value)


async def test_credentials_and_certificates_exclude_each_other():
    with pytest.raises(ConfigurationError, match="not both"):
        connect(
            "batchwork.example:443",
            root_certificates=b"pem",
            credentials=grpc.ssl_channel_credentials(),
        )


async def test_timeout_of_nothing_is_refused():
    with pytest.raises(ConfigurationError, match="more than 0"):
        connect("localhost:50051", timeout=timedelta(0))


async def test_api_key_travels_as_a_bearer_token(client_of, batches, get_batch):
    client = await client_of(batches, api_key="secret")

    await client.batches.get_batch("bat-1")

    assert get_batch.metadata[0]["authorization"] == "Bearer secret"


async def test_without_an_api_key_nothing_is_claimed(client_of, batches, get_batch):
    client = await client_of(batches)

    await client.batches.get_batch("bat-1")

    assert "authorization" not in get_batch.metadata[0]


async def test_every_call_has_a_correlation_id_of_its_own(client_of, batches, get_batch):
    client = await client_of(batches)

    await client.batches.get_batch("bat-1")
    await client.batches.get_batch("bat-1")

    first, second = (metadata["x-correlation-id"] for metadata in get_batch.metadata)
    assert first != second


async def test_given_correlation_id_travels_with_every_call(client_of, batches, get_batch):
    client = await client_of(batches)

    await client.with_options(correlation_id="order-7").batches.get_batch("bat-1")

    assert get_batch.metadata[0]["x-correlation-id"] == "order-7"


async def test_unavailable_is_tried_again(client_of):
    get_batch = Unary(UNAVAILABLE, messages.GetBatchResponse())
    client = await client_of(servicer(BatchServiceServicer, GetBatch=get_batch))

    await client.batches.get_batch("bat-1")

    assert len(get_batch.requests) == 2


async def test_large_batch_is_tried_again_with_the_same_request_id(client_of):
    # gRPC repeats only what fits into its buffer, by default 256 KiB.
    create_batch = Unary(UNAVAILABLE, messages.CreateBatchResponse())
    client = await client_of(servicer(BatchServiceServicer, CreateBatch=create_batch))

    await client.batches.create_batch({"a": "x" * 1_000_000})

    first, second = create_batch.requests
    assert first == second
    assert first.request_id


async def test_call_that_is_not_answered_ends_at_its_deadline(client_of):
    async def hang(request, context):
        await asyncio.Event().wait()

    client = await client_of(servicer(BatchServiceServicer, GetBatch=hang))

    with pytest.raises(DeadlineExceededError):
        await client.with_options(timeout=timedelta(milliseconds=50)).batches.get_batch("bat-1")


async def test_unreachable_server_is_unavailable(tmp_path):
    async with connect(
        f"unix:{tmp_path}/nobody.sock", options=(("grpc.enable_retries", 0),)
    ) as client:
        with pytest.raises(UnavailableError):
            await client.batches.get_batch("bat-1")


async def test_keepalive_stays_below_what_servers_accept():
    options = dict(_CHANNEL_OPTIONS)

    assert int(options["grpc.keepalive_time_ms"]) > 5 * 60 * 1000
    assert options["grpc.keepalive_permit_without_calls"] == 0
