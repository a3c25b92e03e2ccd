"""What every source of templates answers alike: files, a service, and the fake."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from batchwork_server.adapters.template_service import HttpTemplates
from batchwork_server.adapters.templates import FileTemplates
from batchwork_server.domain.batch import Template
from batchwork_server.engine.template_source import TemplateSource
from batchwork_server.ports import TemplateService
from batchwork_server.processors.registry import ProcessorRegistry

from tests.fakes import FakeClock, FakeProcessor, FakeTemplates
from tests.http_service import API_KEY
from tests.template_service import template_service

FIELDS = [
    {"template_id": "tpl_b", "processor": "fake", "operations": ["annotate"]},
    {"template_id": "tpl_a", "processor": "fake", "overrides": {"tone": {"type": "string"}}},
]


@pytest.fixture(params=["files", "service", "fake"])
async def source(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock
) -> AsyncIterator[TemplateService]:
    """Runs the test on each source, with the same templates."""
    registry = ProcessorRegistry()
    registry.register("fake", FakeProcessor())
    (tmp_path / "all.json").write_text(json.dumps({"templates": FIELDS}))
    files = FileTemplates.load(tmp_path, registry)
    if request.param == "files":
        yield files
    elif request.param == "fake":
        yield FakeTemplates(*await files.all())
    else:
        async with template_service() as service:
            service.templates = list(FIELDS)
            client = HttpTemplates(
                url=service.url,
                api_key=API_KEY,
                timeout=timedelta(seconds=10),
                processors=registry,
                clock=clock,
            )
            followed = TemplateSource(client, interval=timedelta(minutes=1), clock=clock)
            await followed.look_first()
            yield followed
            await client.close()


async def test_all_templates_are_told_by_id(source: TemplateService):
    assert [template.template_id for template in await source.all()] == ["tpl_a", "tpl_b"]


async def test_one_template_is_told(source: TemplateService):
    assert await source.get("tpl_b") == Template(
        template_id="tpl_b", processor="fake", operations=("annotate",)
    )


async def test_a_template_that_does_not_exist_is_none(source: TemplateService):
    assert await source.get("tpl_nobody") is None
