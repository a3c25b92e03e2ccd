"""What a newcomer runs works, on the data that comes with it."""

import csv
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from batchwork_example_publisher import Outlet, PublishProcessor
from batchwork_server.adapters.notifiers import open_notifiers
from batchwork_server.adapters.templates import FileTemplates
from batchwork_server.domain.batch import Template
from batchwork_server.errors import ItemFailed
from batchwork_server.ports import ItemCall
from batchwork_server.processors.registry import ProcessorRegistry

from tests.fakes import FakeClock

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
GUIDE = ROOT.parent / "shared/requirements/batch-configuration-guide.md"

DEMO_JOB = "bat_demo_reach_20261123_a1b2c3d4"


@pytest.fixture(scope="module")
def registry():
    return ProcessorRegistry.installed()


@pytest.fixture(scope="module")
def templates(registry):
    return FileTemplates.load(EXAMPLES / "templates", registry)


@pytest.fixture(scope="module")
def jobs():
    content = json.loads((EXAMPLES / "jobs/jobs.json").read_text(encoding="utf-8"))
    return {job["id"]: job for job in content["batch_processing_jobs"]}


def rows(name):
    with (EXAMPLES / "accounts" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def number(text):
    try:
        return int(text)
    except ValueError:
        return float(text)


def account_data(row):
    texts = {name: row[name] for name in ("user_id", "country")}
    return texts | {name: number(value) for name, value in row.items() if name not in texts}


def matching_accounts(job):
    filters = job["filters"]
    return [
        data
        for data in map(account_data, rows("accounts.csv"))
        if data["followers"] >= filters["min_followers"]
        and data["engagement"] >= filters["min_engagement"]
    ]


def item_call(*, parameters, item_id="nasa", data=None, attempt=1, batch_id="bat_one"):
    return ItemCall(
        batch_id=batch_id,
        tenant_id="acme",
        item_id=item_id,
        user_id=item_id,
        data={} if data is None else data,
        attempt=attempt,
        idempotency_key=f"{batch_id}/{item_id}",
        parameters=parameters,
    )


async def attempts_until_done(processor, template, data, *, retry_limit):
    """Tells what an account comes to, and in which attempt."""
    reason = ""
    for attempt in range(1, retry_limit + 2):
        call = item_call(
            parameters=template.parameters, item_id=data["user_id"], data=data, attempt=attempt
        )
        try:
            await processor.process(call)
        except ItemFailed as error:
            reason = error.reason
            if not error.retryable:
                return reason, attempt
        else:
            return "SUCCEEDED", attempt
    return reason, attempt


async def text_of(template, data, registry):
    processor = registry.get(template.processor)
    result = await processor.process(
        item_call(parameters=template.parameters, item_id="nasa", data=data)
    )
    return result.value["text"]


# Accounts and users


def test_ninety_four_accounts_match_the_demos_job(jobs):
    assert len(rows("accounts.csv")) == 200
    assert len(matching_accounts(jobs[DEMO_JOB])) == 94


def test_three_matching_accounts_are_no_users_and_one_is_inactive(jobs):
    active = {row["user_id"]: row["active"] == "true" for row in rows("users.csv")}

    verdicts = {
        data["user_id"]: active.get(data["user_id"]) for data in matching_accounts(jobs[DEMO_JOB])
    }

    assert {name for name, verdict in verdicts.items() if verdict is None} == {
        "cznburak",
        "j.m",
        "toni.kr8s",
    }
    assert {name for name, verdict in verdicts.items() if verdict is False} == {"danbilzerian"}


def test_every_other_account_is_an_active_user():
    accounts = {row["user_id"] for row in rows("accounts.csv")}
    users = {row["user_id"] for row in rows("users.csv")}

    assert users < accounts
    assert len(users) == 197


# Jobs


@pytest.mark.skipif(not GUIDE.exists(), reason="the requirement documents are not beside us")
def test_the_guides_three_jobs_are_as_the_guide_writes_them(jobs):
    _, section = GUIDE.read_text(encoding="utf-8").split(
        "### Batch Config Example with Multiple Jobs"
    )
    [written, *_] = map(json.loads, re.findall(r"```json\n(.*?)```", section, re.DOTALL))

    assert [job for job in jobs.values() if job["id"] != DEMO_JOB] == (
        written["batch_processing_jobs"]
    )


async def test_every_job_names_a_template_there_is(jobs, templates):
    for job in jobs.values():
        assert await templates.get(job["template_id"]) is not None


# Templates


async def test_the_guides_post_is_written_from_an_account(templates, registry):
    template = await templates.get("tpl_api_20230414153012_f7g8h9j0")
    cristiano = account_data(rows("accounts.csv")[0])

    text = await text_of(template, cristiano, registry)

    assert text.startswith("475.8M of you are here now.")
    assert "1.39% of you joined in." in text
    assert "@nasa" in text


async def test_the_guides_post_needs_no_more_than_followers(templates, registry):
    template = await templates.get("tpl_api_20230414153012_f7g8h9j0")

    assert "1K of you" in await text_of(template, {"followers": 1000}, registry)


async def test_the_guides_report_lists_the_items_of_a_category(templates, registry):
    template = await templates.get("tpl_api_20230414160045_g7h8i9j0")
    items = [{"name": "Mug", "likes": 1200, "engagement": 4.6}, {"title": "Vase", "likes": 9000}]

    text = await text_of(
        template, {"category": "etsy_products", "count": 2, "items": items}, registry
    )

    assert text.splitlines() == [
        "etsy_products: 2 items",
        "1. Mug, 1.2K likes, 4.6% engagement",
        "2. Vase, 9K likes",
    ]


async def test_the_guides_report_says_when_nothing_met_the_filters(templates, registry):
    template = await templates.get("tpl_api_20230414160045_g7h8i9j0")

    text = await text_of(template, {"category": "niche", "count": 0, "items": []}, registry)

    assert text.splitlines() == ["niche: 0 items", "Nothing met the filters."]


async def test_the_guides_comparison_covers_every_category(templates, registry):
    template = await templates.get("tpl_api_20230415143022_h8i9j0k1")
    audience = {"count": 12, "items": [{"name": f"group {n}"} for n in range(12)]}
    niche = {"count": 2, "items": [{"name": "a", "engagement": 5}, {"name": "b", "engagement": 7}]}

    text = await text_of(template, {"categories": {"audience": audience, "niche": niche}}, registry)

    assert "audience: 12 items" in text
    assert "- and 2 more" in text
    assert "engagement from 5% to 7%, 6% on average" in text


# The publisher


async def test_the_publisher_is_found_by_its_name(registry):
    assert isinstance(registry.get("publish"), PublishProcessor)


async def without_waiting(seconds):
    return


async def test_the_demos_accounts_show_every_way_an_item_can_go(jobs, templates):
    job = jobs[DEMO_JOB]
    template = await templates.get(job["template_id"])
    active = {row["user_id"] for row in rows("users.csv") if row["active"] == "true"}
    processor = PublishProcessor(sleep=without_waiting)

    ends = Counter(
        [
            await attempts_until_done(processor, template, data, retry_limit=job["retry_limit"])
            for data in matching_accounts(job)
            if data["user_id"] in active
        ]
    )

    assert ends == {
        ("SUCCEEDED", 1): 79,
        ("SUCCEEDED", 2): 8,
        ("TEXT_TOO_LONG", 1): 2,
        ("OUTLET_BUSY", 4): 1,
    }


async def test_an_item_that_comes_again_is_published_once():
    outlet = Outlet()
    processor = PublishProcessor(outlet)
    call = item_call(parameters={"text": "Hello"})

    first = await processor.process(call)
    again = await processor.process(call)

    assert first == again
    assert [publication.text for publication in outlet.publications] == ["Hello"]


async def busy_items(processor, *, batch_id):
    busy = set()
    for item_id in map(str, range(100)):
        parameters = {"text": "Hello", "busy_share": 0.5}
        call = item_call(parameters=parameters, item_id=item_id, batch_id=batch_id)
        try:
            await processor.process(call)
        except ItemFailed:
            busy.add(item_id)
    return busy


async def test_who_finds_the_outlet_busy_is_the_same_in_every_batch():
    processor = PublishProcessor()

    in_one = await busy_items(processor, batch_id="bat_one")
    in_two = await busy_items(processor, batch_id="bat_two")

    assert in_one == in_two
    assert 30 < len(in_one) < 70


async def test_the_outlet_takes_as_long_as_the_template_says():
    waits = []

    async def note_wait(seconds):
        waits.append(seconds)

    processor = PublishProcessor(sleep=note_wait)
    await processor.process(item_call(parameters={"text": "Hello", "seconds_per_post": 0.2}))

    assert waits == [0.2]


async def test_a_busy_outlet_is_worth_another_attempt():
    call = item_call(parameters={"text": "Hello", "always_busy_share": 1}, attempt=4)

    with pytest.raises(ItemFailed) as caught:
        await PublishProcessor().process(call)

    assert (caught.value.reason, caught.value.retryable) == ("OUTLET_BUSY", True)


async def test_a_post_over_the_limit_is_refused_for_good():
    processor = PublishProcessor()

    await processor.process(item_call(parameters={"text": "12345", "character_limit": 5}))
    with pytest.raises(ItemFailed) as caught:
        await processor.process(item_call(parameters={"text": "123456", "character_limit": 5}))

    assert (caught.value.reason, caught.value.retryable) == ("TEXT_TOO_LONG", False)


def test_the_publisher_tells_all_that_is_wrong_with_a_template():
    parameters = {
        "text": {"title": "Hello"},
        "character_limit": 0,
        "busy_share": 2,
        "always_busy_share": "often",
        "seconds_per_post": -1,
        "colour": "red",
    }
    template = Template(template_id="t", processor="publish", parameters=parameters)

    found = PublishProcessor().check(template)

    assert [problem.split()[0] for problem in found] == [
        "colour",
        "text",
        "character_limit",
        "busy_share",
        "always_busy_share",
        "seconds_per_post",
    ]


def test_the_notification_targets_of_the_example_are_read():
    notifiers = open_notifiers(
        EXAMPLES / "notifications.yaml", clock=FakeClock(), allow_clear_text=False
    )

    targets = notifiers.targets
    assert targets.names(tenant_id="default") == ["editors", "ledger", "night-watch", "ops"]
    assert targets.names(tenant_id="blue") == ["ledger", "night-watch", "ops"]
    assert targets.defaults(tenant_id="blue") == ("ops",)
