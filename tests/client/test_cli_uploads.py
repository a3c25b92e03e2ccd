"""The command line uploads files of any size, and follows results."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
from batchwork.v1.batch_pb2 import Batch, BatchState
from batchwork.v1.batch_service_pb2 import (
    CreateBatchResponse,
    GetBatchResponse,
    SealBatchResponse,
    StreamResultsResponse,
    UploadItemsRequest,
    UploadItemsResponse,
)
from batchwork.v1.item_pb2 import ITEM_STATE_FAILED, ITEM_STATE_SUCCEEDED, Item

from tests.client.servers import Refusal
from tests.client.test_cli import batchwork, server  # noqa: F401  # fixtures

DRAFT = Batch(batch_id="bat-1", state=BatchState.BATCH_STATE_DRAFT)


@pytest.fixture
def uploaded(server: Any, monkeypatch: pytest.MonkeyPatch) -> list[UploadItemsRequest]:  # noqa: F811
    """Answers all that an upload needs, and keeps the messages of it."""
    came: list[UploadItemsRequest] = []
    plain = server.answer

    def answer(method: str, request: Any, context: Any) -> Any:
        if method == "UploadItems":
            came.extend(request)
            refusal = server.answers.get("UploadItems")
            if refusal is not None:
                refusal.abort_now(context)
            return UploadItemsResponse(accepted_count=len(came))
        return plain(method, request, context)

    monkeypatch.setattr(server, "answer", answer)
    server.answers |= {
        "CreateBatch": CreateBatchResponse(batch=DRAFT),
        "SealBatch": SealBatchResponse(batch=Batch(batch_id="bat-1")),
    }
    return came


def ids_in(came: list[UploadItemsRequest]) -> list[str]:
    return [item.item_id for message in came for item in message.items]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("items.jsonl", '{"item_id": "a", "n": 1}\n\n{"item_id": "b", "n": "\u2028"}\n'),
        ("items.csv", 'item_id,n\r\na,1\r\nb,"two\nlines"\r\n'),
    ],
)
def test_a_file_becomes_a_draft_that_is_sealed(batchwork, server, uploaded, tmp_path, name, text):  # noqa: F811
    file = tmp_path / name
    file.write_bytes(text.encode())

    result = batchwork("upload", str(file), "--operation", "annotate")

    assert (result.exit_code, result.stdout) == (0, "bat-1\n")
    assert server.sent("CreateBatch").draft
    assert server.sent("CreateBatch").operation == "annotate"
    assert ids_in(uploaded) == ["a", "b"]
    assert server.sent("SealBatch").batch_id == "bat-1"


def test_every_wrong_line_is_named_before_anything_is_sent(batchwork, server, tmp_path):  # noqa: F811
    file = tmp_path / "items.jsonl"
    file.write_text('{"n": 1}\n{\nnot json\n')

    result = batchwork("upload", str(file))

    assert result.exit_code == 2
    assert "items.jsonl:2" in result.stderr
    assert "items.jsonl:3" in result.stderr
    assert server.requests == {}


def test_an_upload_that_failed_says_how_to_go_on(batchwork, server, uploaded, tmp_path):  # noqa: F811
    file = tmp_path / "items.jsonl"
    file.write_text('{"item_id": "a"}\n{"item_id": "b"}\n{"item_id": "c"}\n')
    server.answers["UploadItems"] = Refusal(
        code=grpc.StatusCode.FAILED_PRECONDITION, reason="WRONG_STATE"
    )

    result = batchwork("upload", str(file))

    assert result.exit_code == 6
    assert "--draft bat-1" in result.stderr

    uploaded.clear()
    del server.answers["UploadItems"]
    half = Batch(batch_id="bat-1", upload_offset=2)
    server.answers["GetBatch"] = GetBatchResponse(batch=half)
    result = batchwork("upload", str(file), "--draft", "bat-1")

    assert result.exit_code == 0
    assert ids_in(uploaded) == ["c"]
    assert uploaded[0].offset == 2


def test_results_are_followed_line_by_line(batchwork, server):  # noqa: F811
    items = [
        Item(item_id="a", state=ITEM_STATE_SUCCEEDED, result_json='{"n":1}'),
        Item(item_id="b", state=ITEM_STATE_FAILED),
    ]
    server.answers["StreamResults"] = lambda _context: iter([StreamResultsResponse(items=items)])

    text = batchwork("results", "bat-1", "--follow")
    as_json = batchwork(
        *("results", "bat-1", "--follow"), *("--user", "ada", "--limit", "1", "--json")
    )

    assert [line.split()[0] for line in text.stdout.splitlines()] == ["a", "b"]
    assert [json.loads(line)["item_id"] for line in as_json.stdout.splitlines()] == ["a"]
    assert all(request.follow for request in server.requests["StreamResults"])
    assert [request.user_id for request in server.requests["StreamResults"]] == ["", "ada"]


def test_following_takes_no_filter_that_it_does_not_know(batchwork, server):  # noqa: F811
    result = batchwork("results", "bat-1", "--follow", "--skip-reason", "NONE")

    assert result.exit_code == 2
    assert "--follow" in result.stderr
