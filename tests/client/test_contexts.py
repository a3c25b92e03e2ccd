"""Contexts at the client: the documents' JSON of them, and what the command shows."""

from __future__ import annotations

import json
from typing import Any

from batchwork.v1.batch_pb2 import BATCH_STATE_SUCCEEDED
from batchwork.v1.batch_service_pb2 import GetContextResponse
from batchwork.v1.context_pb2 import (
    Context,
    ContextBatch,
    ContextItems,
    ContextPreference,
    ContextProgress,
    ContextUserItem,
    ContextValidation,
)
from batchwork.v1.item_pb2 import ItemState
from batchwork.v1.reference_pb2 import Reference, ReferenceState
from batchwork_client import context_document
from google.protobuf.struct_pb2 import Struct

from tests.client.test_cli import batchwork, server  # noqa: F401  # fixtures


def struct(**values) -> Struct:
    found = Struct()
    found.update(values)
    return found


def make_context(**changes) -> Context:
    defaults: dict[str, Any] = {
        "batches": [ContextBatch(batch_id="bat-1", state=BATCH_STATE_SUCCEEDED)],
        "metadata": struct(data_source_type="users", due=3, share=0.5, nested=[{"n": 2}]),
        "items": ContextItems(valid_users=["ada"], invalid_users=["nobody"]),
        "progress": ContextProgress(processed=1, succeeded=1, total=3, percent=100 / 3),
        "validation": ContextValidation(total=2, valid=1, invalid=1),
    }
    return Context(**defaults | changes)


def test_the_document_has_plain_numbers():
    results = context_document(make_context())["results"]

    assert results["metadata"] == {
        "data_source_type": "users",
        "due": 3,
        "share": 0.5,
        "nested": [{"n": 2}],
    }
    assert results["progress"]["percentage"] == 33.33
    assert results["items"] == {"valid_users": ["ada"], "invalid_users": ["nobody"]}


def test_of_merged_batches_by_categories_the_document_lists_categories():
    said = {"one": {"data_source_type": "categories"}, "two": {"data_source_type": "users"}}

    document = context_document(make_context(metadata=struct(batches=said)))

    assert document["results"]["items"] == {
        "valid_categories": [],
        "invalid_categories": [],
        "valid_users": ["ada"],
        "invalid_users": ["nobody"],
    }


def test_the_document_of_a_user_lists_users_whatever_the_batch_is_over():
    context = make_context(metadata=struct(data_source_type="categories"), user_id="ada")

    results = context_document(context)["results"]

    assert results["items"] == {"valid_users": ["ada"], "invalid_users": ["nobody"]}
    assert (results["user_items"], results["references"]) == ([], [])


def test_the_command_shows_facts_or_the_document(batchwork, server):  # noqa: F811
    server.answers["GetContext"] = GetContextResponse(context=make_context())

    text = batchwork("context", "bat-1", "bat-2")
    as_json = batchwork("context", "bat-1", "--json")

    assert "bat-1 SUCCEEDED" in text.stdout
    assert "1 of 3, 33%" in text.stdout
    assert list(server.requests["GetContext"][0].batch_ids) == ["bat-1", "bat-2"]
    assert json.loads(as_json.stdout) == context_document(make_context())


def test_the_command_shows_what_was_done_for_a_user(batchwork, server):  # noqa: F811
    item = ContextUserItem(
        batch_id="bat-1", item_id="all", state=ItemState.ITEM_STATE_FAILED, reason="BROKEN"
    )
    reference = Reference(batch_id="bat-1", state=ReferenceState.REFERENCE_STATE_PENDING)
    preference = ContextPreference(feature_type="posts", frequency="daily", time="09:00")
    context = make_context(
        user_id="ada", user_items=[item], references=[reference], preferences=[preference]
    )
    server.answers["GetContext"] = GetContextResponse(context=context)

    text = batchwork("context", "--user", "ada")

    assert server.sent("GetContext").user_id == "ada"
    assert "bat-1 all FAILED BROKEN" in text.stdout
    assert "bat-1 all results PENDING" in text.stdout
    assert "posts daily 09:00" in text.stdout
