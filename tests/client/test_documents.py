"""Batches as JSON documents become what the client sends, and nothing is lost on the way."""

from __future__ import annotations

import json
from typing import Any

import pytest
from batchwork.v1.batch_pb2 import BatchOptions
from batchwork.v1.job_pb2 import PRIORITY_HIGH
from batchwork_client import DocumentError, batch_from_document
from google.protobuf.duration_pb2 import Duration


def items_of(*entries: Any) -> list[tuple[str, str, Any]]:
    items, _ = batch_from_document({"items": list(entries)})
    return [(item.item_id, item.user_id, json.loads(item.data_json)) for item in items]


def problems_of(document: Any) -> list[str]:
    with pytest.raises(DocumentError) as refused:
        batch_from_document(document)
    return list(refused.value.problems)


def test_what_stands_beside_the_data_goes_into_it():
    entry = {
        "id": "category_123",
        "user_id": "u1",
        "name": "Electronics",
        "user_ids": ["a"],
        "data": {"report_type": "sales"},
    }

    assert items_of(entry) == [
        (
            "category_123",
            "u1",
            {"name": "Electronics", "user_ids": ["a"], "report_type": "sales"},
        )
    ]


@pytest.mark.parametrize(
    ("entry", "item"),
    [
        pytest.param({"id": "a", "data": [1]}, ("a", "", [1]), id="data that is no object"),
        pytest.param({"item_id": "a", "n": 1}, ("a", "", {"n": 1}), id="no data"),
        pytest.param({"id": 7, "data": None, "n": 1}, ("7", "", {"n": 1}), id="null"),
        pytest.param({"data": {}}, ("", "", {}), id="no id"),
        pytest.param(
            {"id": "a", "name": "x", "data": {"name": "x"}}, ("a", "", {"name": "x"}), id="twice"
        ),
    ],
)
def test_items_come_in_many_ways(entry, item):
    assert items_of(entry) == [item]


def test_a_batch_says_who_asks_and_how_to_process():
    _, fields = batch_from_document(
        {
            "source": "shop",
            "template_id": "report",
            "name": "Sales",
            "labels": {"team": "blue"},
            "limit": 5,
            "category": "shops",
            "filters": {"min_sales": 3, "category": "books"},
            "options": {
                "batchSize": 100,
                "retryAttempts": 5,
                "timeout": 60000,
                "priority": "high",
                "failure_policy": {"max_failed": 2},
            },
            "batch_metadata": {"data_source_type": "categories"},
            "purpose_id": None,
        }
    )

    options = fields.pop("options")
    assert fields == {
        "source": "shop",
        "template_id": "report",
        "display_name": "Sales",
        "labels": {"team": "blue"},
        "limit": 5,
        "category": "shops",
        "filters": {"min_sales": 3, "category": "books"},
        "batch_metadata": {"data_source_type": "categories"},
    }
    expected = BatchOptions(
        chunk_size=100,
        retry_limit=5,
        item_timeout=Duration(seconds=60),
        priority=PRIORITY_HIGH,
    )
    expected.failure_policy.max_failed = 2
    assert options == expected


def test_the_category_may_stand_among_the_filters():
    _, fields = batch_from_document(
        {"operation": "annotate", "filters": {"category": "invoice", "status": "pending"}}
    )

    assert fields == {
        "operation": "annotate",
        "category": "invoice",
        "filters": {"status": "pending"},
    }


def test_everything_that_is_wrong_is_told_at_once():
    problems = problems_of(
        {
            "sauce": "shop",
            "template_id": 7,
            "limit": "five",
            "filters": [],
            "name": "a",
            "display_name": "b",
            "options": {"priority": "urgent", "chunk_size": "many", "colour": 1, "timeout": "1s"},
            "items": [
                7,
                {"id": "a", "item_id": "b"},
                {"name": "x", "data": {"name": "y"}},
                {"name": "x", "data": [1]},
                {"data": float("nan")},
            ],
        }
    )

    assert [problem.partition(": ")[0] for problem in problems] == [
        "sauce",
        "template_id",
        "limit",
        "filters",
        "display_name",
        "options.priority",
        "options.chunk_size",
        "options.colour",
        "options.timeout",
        "items[0]",
        "items[1]",
        "items[2].name",
        "items[3].data",
        "items[4]",
    ]
    assert "low, medium, high, critical" in problems[5]
    assert "retryAttempts" in problems[7]


@pytest.mark.parametrize("document", [pytest.param([], id="list"), pytest.param("x", id="text")])
def test_a_document_is_an_object(document):
    assert len(problems_of(document)) == 1


def test_items_are_a_list():
    assert problems_of({"items": {"a": 1}}) == ["items: {'a': 1} is not a list"]
