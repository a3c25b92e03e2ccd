"""Without a key that the server knows, nothing is answered but health."""

from __future__ import annotations

import hashlib
import json
import re

import grpc
import pytest
from batchwork.v1.batch_service_pb2 import GetBatchRequest, ListBatchesRequest
from batchwork_server.domain.caller import Caller
from batchwork_server.errors import ConfigurationError
from batchwork_server.rpc.credentials import load_credentials
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from structlog.testing import capture_logs

from tests.rpc.api import ADA, as_caller, refused, write_keys

HASH = hashlib.sha256(b"secret").hexdigest()


def key(**changes: object) -> dict[str, object]:
    return {"key_sha256": HASH, "tenant_id": "blue", "name": "ada", "role": "member"} | changes


def written(tmp_path, content: object):
    path = tmp_path / "keys.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(0o600)
    return path


async def test_a_known_key_lets_its_owner_in(guarded):
    response = await guarded.batches.ListBatches(ListBatchesRequest(), metadata=as_caller(ADA))

    assert not response.batches


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param((), id="no credentials"),
        pytest.param((("authorization", "Bearer "),), id="no key"),
        pytest.param((("authorization", "Bearer nobody's"),), id="unknown key"),
        pytest.param((("authorization", f"Basic {ADA}"),), id="another scheme"),
        pytest.param((("x-api-key", ADA),), id="another header"),
    ],
)
async def test_others_are_refused_before_their_request_is_looked_at(guarded, metadata):
    refusal = await refused(guarded.batches.GetBatch(GetBatchRequest(), metadata=metadata))

    assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
    assert ADA not in refusal.message


async def test_health_needs_no_key(guarded):
    response = await HealthStub(guarded.channel).Check(HealthCheckRequest())

    assert response.status == HealthCheckResponse.SERVING


async def test_reflection_needs_a_key(guarded):
    async def ask():
        yield ServerReflectionRequest(list_services="")

    refusal = await refused(ServerReflectionStub(guarded.channel).ServerReflectionInfo(ask()))

    assert refusal.code is grpc.StatusCode.UNAUTHENTICATED


def test_a_file_of_keys_tells_who_calls(tmp_path):
    credentials = load_credentials(written(tmp_path, {"keys": [key(role="operator")]}))

    caller = credentials.authenticate((("authorization", "bearer secret"),))

    assert caller == Caller(tenant_id="blue", name="ada", is_operator=True)


@pytest.mark.parametrize(
    ("content", "problems"),
    [
        pytest.param("{", ["$: This is not JSON"], id="no JSON"),
        pytest.param([], ["$: [] is not an object"], id="a list"),
        pytest.param({"keys": []}, ["$.keys: List at least one key"], id="no key at all"),
        pytest.param(
            {"keys": [key(key_sha256="secret", role="owner"), key(tenant_id="-", nmae="ada")]},
            [
                "$.keys[0].key_sha256: Write the SHA-256",
                '$.keys[0].role: "owner" is none of',
                "$.keys[1].tenant_id: '-' stands for all tenants",
                '$.keys[1].nmae: "nmae" is no field',
            ],
            id="several at once",
        ),
        pytest.param(
            {"keys": [key(), key()]}, ["$.keys[1].key_sha256: This key stands twice"], id="twice"
        ),
        pytest.param({"keys": [{}]}, ["key_sha256", "tenant_id", "name", "role"], id="nothing"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_everything_at_once(tmp_path, content, problems):
    with pytest.raises(ConfigurationError) as raised:
        load_credentials(written(tmp_path, content))

    for problem in problems:
        assert re.search(re.escape(problem), raised.value.message)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"keys\.json"):
        load_credentials(tmp_path / "keys.json")


def test_a_file_that_others_may_read_is_a_warning(tmp_path):
    path = write_keys(tmp_path / "keys.json")
    path.chmod(0o644)

    with capture_logs() as logs:
        load_credentials(path)

    assert [entry["event"] for entry in logs] == ["credentials.readable"]
