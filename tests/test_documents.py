"""The job examples of the requirement documents are read as they stand there.

``tests/data/document_jobs.json`` holds them, so that the project stands alone, and
``guide_batch_config.json`` the example of a whole file, to the letter. Where the documents
themselves are at hand, what they say today is read as well. ``tests/rpc/test_guide_examples.py``
runs the examples.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from batchwork_server.domain.batch import Priority
from batchwork_server.domain.job import (
    DataSource,
    JobDefinition,
    JobShape,
    PreferenceSource,
)
from batchwork_server.domain.job_file import parse_job_file, render_job_file
from batchwork_server.domain.preference import parse_wish
from batchwork_server.domain.schedule import parse_schedule

EXAMPLES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "data" / "document_jobs.json").read_text()
)
GUIDE = (Path(__file__).parent / "data" / "guide_batch_config.json").read_text()
DOCUMENTS = Path(__file__).resolve().parents[2] / "shared" / "requirements"

_FENCED_JSON = re.compile(r"^ *```json\n(.*?)^ *```", re.MULTILINE | re.DOTALL)

_SKETCHED = ("//", "...")  # comments and dots: meant for people, no JSON

needs_documents = pytest.mark.skipif(
    not DOCUMENTS.is_dir(), reason="the requirement documents are not beside this checkout"
)


def read(job: dict[str, Any]) -> JobDefinition:
    [definition], violations = parse_job_file(json.dumps({"batch_processing_jobs": [job]}))
    assert violations == []
    return definition


def documented_blocks() -> list[dict[str, Any]]:
    """Returns the JSON objects of the documents; a field without its object gets one."""
    texts = [path.read_text() for path in sorted(DOCUMENTS.glob("*.md"))]
    blocks = [dedent(block) for text in texts for block in _FENCED_JSON.findall(text)]
    blocks = [f"{{{block}}}" if block.startswith('"') else block for block in blocks]
    return [json.loads(block) for block in blocks if not any(mark in block for mark in _SKETCHED)]


def documented_jobs() -> list[dict[str, Any]]:
    """Returns the examples of jobs, and leaves out the form that lists alternatives."""
    jobs = []
    for block in documented_blocks():
        jobs += block.get("batch_processing_jobs", [])
        if "type" in block and ("id" in block or "job_id" in block):
            jobs.append(block)
    return [job for job in jobs if "|" not in job["type"]]


@pytest.mark.parametrize("job", EXAMPLES, ids=lambda job: job.get("id") or job["job_id"])
def test_an_example_is_read_and_written_and_read_again(job: dict[str, Any]) -> None:
    definition = read(job)

    assert parse_job_file(render_job_file([definition])) == ([definition], [])


def test_an_example_in_full_means_what_it_says() -> None:
    [job] = [job for job in EXAMPLES if "marketing_strategy" in job.values()]

    definition = read(job)

    assert definition.shape is JobShape.COMBINED
    assert definition.priority is Priority.HIGH
    assert definition.categories == ("audience", "niche")
    assert definition.filters_of("audience") == {"min_size": 1000, "active_last_days": 30}
    assert definition.retry_limit == 1
    assert definition.distribution_user_ids == ("marketing_manager", "strategy_director")
    assert definition.batch_type == "BATCH_CATEGORIES"


def test_the_example_without_a_name_and_a_template_is_read() -> None:
    [job] = [job for job in EXAMPLES if "job_id" in job]

    definition = read(job)

    assert definition.display_name == "instagram_post_preference_based"
    assert definition.template_id == ""
    assert definition.preference_source is PreferenceSource.DYNAMIC
    assert definition.data_source is DataSource.USERS


def test_the_file_of_the_guide_is_read_as_the_three_examples_that_it_repeats() -> None:
    jobs, violations = parse_job_file(GUIDE)

    assert violations == []
    assert jobs == [read(job) for job in EXAMPLES if "schedule" in job]


def test_the_defaults_of_the_guide_written_out_say_nothing_new() -> None:
    [bare] = [job for job in EXAMPLES if job.get("name") == "Niche Trend Analysis"]
    defaults = {
        "description": "",
        "priority": "medium",
        "schedule": None,
        "filters": bare["filters"],
        "limit": 1000,
        "distribute_results": False,
        "distribution": None,
        "purpose_id": None,
        "preference_based": False,
        "feature_type": None,
    }

    assert read(bare | defaults) == read(bare)
    assert read(bare | {"filters": {}}).filters == {}


@needs_documents
def test_the_file_of_the_guide_is_kept_here_to_the_letter() -> None:
    guide = (DOCUMENTS / "batch-configuration-guide.md").read_text()

    assert f"```json\n{GUIDE}```" in guide


@needs_documents
def test_every_job_of_the_documents_is_kept_here() -> None:
    jobs = documented_jobs()

    assert jobs
    assert [job for job in jobs if job not in EXAMPLES] == []


@needs_documents
def test_every_job_of_the_documents_is_read() -> None:
    for job in documented_jobs():
        read(job)


@needs_documents
def test_every_schedule_of_the_documents_is_read() -> None:
    schedules = [block["schedule"] for block in documented_blocks() if "schedule" in block]

    assert schedules
    for schedule in schedules:
        assert parse_schedule(schedule, path="$")[1] == []


@needs_documents
def test_every_preference_of_the_documents_is_read() -> None:
    wishes = [wish for block in documented_blocks() for wish in block.get("features", {}).values()]

    assert wishes
    for wish in wishes:
        assert parse_wish(wish, path="$")[1] == []
