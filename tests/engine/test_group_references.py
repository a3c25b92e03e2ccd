"""References in what a job selects for its users are taken out, page by page, and told together."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import orjson
import pytest
from batchwork_server.application import group_pages, validation_reports
from batchwork_server.domain.reference_validation import CategoryCounts, ReferenceCounts
from batchwork_server.logs import get_logger
from batchwork_server.store.database import Database
from structlog.testing import capture_logs

from tests.engine.groups import GroupServer
from tests.factories import make_loaded_item
from tests.fakes import FakeClock

AT_TEN = {"frequency": "daily", "preferred_time": "10:00"}
TEN = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
USERS = [f"user_{n:02}" for n in range(25)]


@pytest.fixture
def server(database: Database, clock: FakeClock) -> GroupServer:
    return GroupServer(database, clock=clock)


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_pages, "PAGE_USERS", 10)


async def test_references_of_each_page_are_counted_and_listed(server: GroupServer):
    shop = {"user_ids": ["user_00", "nobody"], "tags": ["old"]}
    late = {"member_ids": ["stranger"], "tags": ["new"]}
    server.categories.add("shops", make_loaded_item("mugs", data=shop))
    server.categories.add("shops", make_loaded_item("lamps", data=late))
    await server.add_users(*USERS)
    await server.put_job(category="shops")
    for user in USERS:
        wish = {"tags": ["new" if user == USERS[-1] else "old"]}
        await server.wish(user, **AT_TEN, template_overrides=wish)
    await server.scheduler.run_once()

    await server.run_at(TEN + timedelta(minutes=1))

    [batch] = await server.batches_of()
    found = batch.request.reference_validation
    assert found.user_references == ReferenceCounts(total=3, valid=1, invalid=2)
    assert found.categories == CategoryCounts(total=2, valid=1, invalid=1)
    listed, _ = await server.store.validation_reports.invalid_references(
        batch, page_size=10, after=None
    )
    assert [(each.item_id, each.user_id) for each in listed] == [
        ("mugs", "nobody"),
        ("lamps", "stranger"),
    ]
    items = await server.items_of(batch)
    shops = [orjson.loads(item.data_json)["items"] for item in items]
    assert shops[:24] == [[{"user_ids": ["user_00"], "tags": ["old"]}]] * 24
    assert items[24].skip_reason == "NOTHING_SELECTED"


@pytest.mark.parametrize("shape", ["individual", "object"])
async def test_each_page_is_counted_and_warned_of(
    server: GroupServer, monkeypatch: pytest.MonkeyPatch, shape: str
):
    """Only what was found of the first page was told."""
    monkeypatch.setattr(validation_reports, "log", get_logger(validation_reports.__name__))
    late = {"user_ids": ["stranger"], "tags": ["new"]}
    server.categories.add("shops", make_loaded_item("mugs", data={"tags": ["old"]}))
    server.categories.add("shops", make_loaded_item("lamps", data=late))
    await server.add_users(*USERS[:-2])
    await server.put_job(category="shops", type=shape, preference_based=True)
    for user in USERS:
        wish = {"tags": ["new" if user == USERS[22] else "old"]}
        await server.wish(user, **AT_TEN, template_overrides=wish)
    await server.scheduler.run_once()

    with capture_logs() as logs:
        await server.run_at(TEN + timedelta(minutes=1))

    [line] = [line for line in logs if line["event"] == "batch.validated"]
    assert (line["log_level"], line["invalid_users"], line["invalid_references"]) == (
        *("warning", 2, 1),
    )
    assert line["sample"] == [*USERS[-2:], "stranger"]
    name = "batchwork_user_references_total"
    counted = server.meter.registry.get_sample_value(name, {"verdict": "NOT_FOUND"})
    assert counted == 1
