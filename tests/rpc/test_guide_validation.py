"""The examples of the guide's chapter on validation, sent as they stand there.

``tests/data/guide_user_batch.json`` and ``guide_category_batch.json`` are its two examples,
``module_batch.json`` is the one of the module document, all to the letter.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from batchwork.v1.batch_pb2 import (
    BATCH_STATE_SUCCEEDED,
    Batch,
    CategoryCounts,
    ReferenceCounts,
    ReferenceValidation,
    UserValidation,
)
from batchwork_client import Batchwork, batch_from_document, connect, context_document
from batchwork_server.application import validation_reports
from batchwork_server.config import Settings
from batchwork_server.logs import get_logger
from structlog.testing import capture_logs

from tests.rpc.api import settings_in
from tests.rpc.sources import load_category, load_users
from tests.rpc.test_metrics import counted

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A server that has the templates and operations which the documents name."""
    settings = replace(settings_in(tmp_path), metrics_listen="127.0.0.1:0")
    assert settings.templates_dir is not None
    for template_id, operations in (("user_report", []), ("category_report", ["annotate"])):
        template = {"template_id": template_id, "processor": "fake", "operations": operations}
        (settings.templates_dir / f"{template_id}.json").write_text(json.dumps(template))
    return settings


@pytest.fixture
async def batchwork(server) -> AsyncIterator[Batchwork]:
    await load_users(server, "user_123")
    async with connect(f"127.0.0.1:{server.port}") as client:
        yield client


async def submit(batchwork: Batchwork, name: str) -> Batch:
    """Sends a document and waits until its batch is done."""
    items, fields = batch_from_document(json.loads((DATA / name).read_text()))
    created = await batchwork.batches.create_batch(items, **fields)
    done = await batchwork.batches.wait_for_batch(created.batch_id)
    assert done.reference_validation == created.reference_validation
    assert done.user_validation == created.user_validation
    return done


async def test_the_user_batch_works_on_the_valid_user_and_excludes_the_other(batchwork, processor):
    batch = await submit(batchwork, "guide_user_batch.json")

    assert (batch.state, batch.batch_type) == (BATCH_STATE_SUCCEEDED, "INDIVIDUAL_USERS")
    assert (batch.source, batch.template_id) == ("user_management", "user_report")
    assert batch.user_validation == UserValidation(total=2, valid=1, invalid=1)
    assert (batch.counts.succeeded, batch.counts.skipped) == (1, 1)
    [call] = processor.calls
    assert (call.item_id, call.user_id, call.data) == (
        "user_123",
        "user_123",
        {"report_type": "activity"},
    )
    report = await batchwork.validation.get_validation_report(batch.batch_id)
    assert [user.user_id for user in report.invalid_users] == ["invalid_user"]


async def test_the_category_batch_keeps_the_valid_reference_and_names_the_other(
    batchwork, processor
):
    batch = await submit(batchwork, "guide_category_batch.json")

    assert (batch.state, batch.batch_type) == (BATCH_STATE_SUCCEEDED, "INDIVIDUAL_CATEGORIES")
    assert batch.reference_validation == ReferenceValidation(
        categories=CategoryCounts(total=1, valid=1),
        user_references=ReferenceCounts(total=2, valid=1, invalid=1),
    )
    [call] = processor.calls
    assert call.item_id == "category_123"
    assert call.data == {
        "name": "Electronics",
        "user_ids": ["user_123"],
        "report_type": "sales",
    }
    report = await batchwork.validation.get_validation_report(batch.batch_id)
    [reference] = report.invalid_references
    assert (reference.user_id, reference.item_id) == ("invalid_user", "category_123")


@pytest.mark.parametrize(
    ("name", "validation", "items", "references"),
    [
        pytest.param(
            "guide_user_batch.json",
            {"total": 2, "valid": 1, "invalid": 1},
            {"valid_users": ["user_123"], "invalid_users": ["invalid_user"]},
            None,
            id="users",
        ),
        pytest.param(
            "guide_category_batch.json",
            {"total": 1, "valid": 1, "invalid": 0},
            {"valid_categories": ["category_123"], "invalid_categories": []},
            {"total": 2, "valid": 1, "invalid": 1},
            id="categories",
        ),
    ],
)
async def test_validation_statistics_are_in_the_context_the_log_and_the_metrics(
    batchwork, server, monkeypatch, name, validation, items, references
):
    monkeypatch.setattr(validation_reports, "log", get_logger(validation_reports.__name__))

    with capture_logs() as logs:
        batch = await submit(batchwork, name)
    found = context_document(await batchwork.batches.get_context(batch.batch_id))["results"]

    assert (found["validation"], found["items"]) == (validation, items)
    assert found["metadata"].get("user_references") == references
    [line] = [line for line in logs if line["event"] == "batch.validated"]
    assert (line["log_level"], line["sample"]) == ("warning", ["invalid_user"])
    assert line["invalid_users"] + line["invalid_references"] == 1
    assert await counted(server, "users_validated") == {"VALID": 1, "NOT_FOUND": 1}
    if references is not None:
        assert await counted(server, "user_references") == {"VALID": 1, "NOT_FOUND": 1}


async def test_the_operation_of_the_module_selects_what_its_filters_say(
    batchwork, server, processor
):
    await load_category(server, "invoice", {"i1": {"status": "pending"}, "i2": {"status": "paid"}})

    batch = await submit(batchwork, "module_batch.json")

    assert (batch.operation, batch.display_name) == ("annotate", "Monthly invoice annotation")
    assert list(batch.categories) == ["invoice"]
    assert (batch.options.model, batch.options.chunk_size, batch.options.retry_limit) == (
        "gpt-4",
        50,
        3,
    )
    assert [call.item_id for call in processor.calls] == ["i1"]
