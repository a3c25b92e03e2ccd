"""The contract, the server, the client and the tests tell one story, RPC by RPC."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batchwork.v1 import (
    batch_service_pb2,
    batch_service_pb2_grpc,
    job_service_pb2,
    job_service_pb2_grpc,
    preference_service_pb2,
    preference_service_pb2_grpc,
    validation_service_pb2,
    validation_service_pb2_grpc,
)
from batchwork_client import Batches, Jobs, Preferences, Validation
from batchwork_server.rpc.batch_servicer import BatchServicer
from batchwork_server.rpc.job_servicer import JobServicer
from batchwork_server.rpc.preference_servicer import PreferenceServicer
from batchwork_server.rpc.server import SERVICES
from batchwork_server.rpc.validation_servicer import ValidationServicer

ROOT = Path(__file__).parents[1]
PROTOS = sorted((ROOT / "protos").rglob("*.proto"))
GENERATED = ROOT / "generated"

SERVED: dict[str, tuple[Any, type, type, type]] = {
    "BatchService": (
        batch_service_pb2,
        batch_service_pb2_grpc.BatchServiceServicer,
        BatchServicer,
        Batches,
    ),
    "JobService": (
        job_service_pb2,
        job_service_pb2_grpc.JobServiceServicer,
        JobServicer,
        Jobs,
    ),
    "PreferenceService": (
        preference_service_pb2,
        preference_service_pb2_grpc.PreferenceServiceServicer,
        PreferenceServicer,
        Preferences,
    ),
    "ValidationService": (
        validation_service_pb2,
        validation_service_pb2_grpc.ValidationServiceServicer,
        ValidationServicer,
        Validation,
    ),
}
"""The module of messages, the generated servicer, our servicer and our client of each service."""

RPCS = [
    (service, method.name)
    for service, (module, *_) in SERVED.items()
    for method in module.DESCRIPTOR.services_by_name[service].methods
]


def snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def rpcs_with_comments() -> Iterator[tuple[str, str]]:
    """Yields the name of each rpc in the protos with the comment above it."""
    for proto in PROTOS:
        comment: list[str] = []
        for line in proto.read_text().splitlines():
            stripped = line.strip()
            if stripped.startswith("//"):
                comment.append(stripped)
                continue
            if found := re.match(r"rpc (\w+)\(", stripped):
                yield found[1], "\n".join(comment)
            comment = []


def test_every_service_of_the_protos_is_served() -> None:
    services = {
        f"batchwork.v1.{name}"
        for proto in PROTOS
        for name in re.findall(r"^service (\w+)", proto.read_text(), re.MULTILINE)
    }

    assert services == set(SERVICES)
    assert services == {f"batchwork.v1.{name}" for name in SERVED}


@pytest.mark.parametrize(("service", "rpc"), RPCS)
def test_every_rpc_is_implemented(service: str, rpc: str) -> None:
    _, generated, servicer, _ = SERVED[service]

    assert getattr(servicer, rpc) is not getattr(generated, rpc)


@pytest.mark.parametrize(("service", "rpc"), RPCS)
def test_every_rpc_has_a_client_method(service: str, rpc: str) -> None:
    *_, client = SERVED[service]

    assert callable(getattr(client, snake_case(rpc), None))


@pytest.mark.parametrize("rpc", [rpc for _, rpc in RPCS])
def test_every_rpc_has_tests_of_its_own(rpc: str) -> None:
    assert (ROOT / "tests" / "rpc" / f"test_{snake_case(rpc)}.py").is_file()


def test_every_rpc_says_which_errors_it_answers() -> None:
    comments = dict(rpcs_with_comments())

    assert comments.keys() == {rpc for _, rpc in RPCS}
    assert [rpc for rpc, comment in comments.items() if "// Errors:" not in comment] == []


@pytest.mark.parametrize("proto", PROTOS, ids=lambda proto: proto.name)
def test_protos_import_only_each_other_and_what_protobuf_brings(proto: Path) -> None:
    imported = re.findall(r'^import "([^"]+)";', proto.read_text(), re.MULTILINE)

    ours = {str(path.relative_to(ROOT / "protos")) for path in PROTOS}
    foreign = {name for name in imported if not name.startswith("google/protobuf/")}
    assert foreign <= ours


@pytest.mark.parametrize(
    "module",
    [
        ".".join(path.relative_to(GENERATED).with_suffix("").parts)
        for path in sorted(GENERATED.rglob("*_pb2*.py"))
    ],
)
def test_generated_code_can_be_imported(module: str) -> None:
    importlib.import_module(module)
