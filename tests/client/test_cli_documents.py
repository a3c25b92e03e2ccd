"""The command line submits a whole batch as a JSON object, and options go over what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from batchwork.v1.batch_pb2 import Batch
from batchwork.v1.batch_service_pb2 import CreateBatchResponse
from batchwork.v1.job_pb2 import PRIORITY_HIGH

from tests.client.test_cli import batchwork, server  # noqa: F401  # fixtures

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(autouse=True)
def created(server) -> None:  # noqa: F811
    server.answers["CreateBatch"] = CreateBatchResponse(batch=Batch(batch_id="bat-1"))


def test_an_example_of_the_guide_is_submitted_as_it_stands(batchwork, server):  # noqa: F811
    result = batchwork("submit", str(DATA / "guide_category_batch.json"))

    assert (result.exit_code, result.stdout) == (0, "bat-1\n"), result.stderr
    request = server.sent("CreateBatch")
    assert (request.source, request.template_id) == ("category_management", "category_report")
    [item] = request.items
    assert item.item_id == "category_123"
    assert json.loads(item.data_json) == {
        "name": "Electronics",
        "user_ids": ["user_123", "invalid_user"],
        "report_type": "sales",
    }
    assert request.batch_metadata["data_source_type"] == "categories"


def test_options_go_over_what_the_document_says(batchwork, server):  # noqa: F811
    result = batchwork(
        *("submit", str(DATA / "module_batch.json"), "--name", "Mine", "--filter", "status=paid"),
        *("--option", "priority=high", "--option", "chunk_size=7", "--label", "team=blue"),
    )

    assert result.exit_code == 0, result.stderr
    request = server.sent("CreateBatch")
    assert (request.operation, request.category) == ("annotate", "invoice")
    assert (request.display_name, request.filters["status"]) == ("Mine", "paid")
    assert request.description == "Annotate all pending invoices"
    options = request.options
    assert (options.model, options.chunk_size, options.retry_limit) == ("gpt-4", 7, 3)
    assert options.priority == PRIORITY_HIGH
    assert dict(request.labels) == {"team": "blue"}


def test_all_that_is_wrong_with_a_document_is_told_and_nothing_sent(
    batchwork,  # noqa: F811
    server,  # noqa: F811
    tmp_path,
):
    file = tmp_path / "request.json"
    file.write_text('{"items": [7], "templ": "x", "options": {"batchSize": "many"}}')

    result = batchwork("submit", str(file))

    assert result.exit_code == 2
    for place in ("items[0]", "templ", "options.batchSize"):
        assert f"{file}: {place}: " in result.stderr
    assert "CreateBatch" not in server.requests


def test_a_caller_can_name_the_fields_that_name_items(batchwork, server, tmp_path):  # noqa: F811
    file = tmp_path / "posts.json"
    file.write_text('{"items": [{"post": "p1"}]}')

    result = batchwork("submit", str(file), "--id-field", "post", "--operation", "annotate")

    assert result.exit_code == 0, result.stderr
    assert [item.item_id for item in server.sent("CreateBatch").items] == ["p1"]
