"""GetContext of a user: what was done for them, by what wishes, and what they were given."""

from __future__ import annotations

import json

import pytest
from batchwork.v1.batch_service_pb2 import GetContextRequest
from batchwork.v1.item_pb2 import ITEM_STATE_FAILED, ITEM_STATE_SKIPPED, ITEM_STATE_SUCCEEDED
from batchwork.v1.job_service_pb2 import DeleteJobRequest
from batchwork.v1.preference_pb2 import Preference
from batchwork.v1.preference_service_pb2 import SetPreferenceRequest
from batchwork_client import connect, context_document
from batchwork_server.errors import ItemFailed
from google.protobuf.json_format import MessageToDict

from tests.rpc.api import refused
from tests.rpc.test_get_context import USERS, add_users, finish
from tests.rpc.test_own_references import run, wishing  # noqa: F401  # fixture

pytestmark = pytest.mark.usefixtures("wishing")


async def user_context(api, user_id: str, *batch_ids: str, metadata=(), **fields):
    request = GetContextRequest(user_id=user_id, batch_ids=batch_ids, **fields)
    response = await api.batches.GetContext(request, metadata=metadata)
    return response.context


async def wish(api, user_id: str, **overrides) -> None:
    preference = Preference(user_id=user_id, feature_type="posts", enabled=True)
    preference.template_overrides.update(overrides)
    await api.preferences.SetPreference(SetPreferenceRequest(preference=preference))


@pytest.mark.parametrize("shape", ["individual", "object"])
async def test_in_a_run_it_holds_the_user_s_item_and_wishes_as_they_were_applied(api, shape):
    await wish(api, "ada", tone="dry")
    batch_id = await run(api, type=shape)
    await wish(api, "ada", tone="warm")

    found = await user_context(api, "ada", batch_id)

    [item], [preference], [reference] = found.user_items, found.preferences, found.references
    assert (item.batch_id, item.state, item.reason) == (batch_id, ITEM_STATE_SUCCEEDED, "")
    assert (item.is_shared, item.HasField("end_time")) == (shape == "object", True)
    assert (preference.feature_type, preference.job_id) == ("posts", "job-pref")
    assert MessageToDict(preference.template_overrides) == {"tone": "dry"}
    assert (reference.user_id, reference.is_own, reference.item_id) == ("ada", True, item.item_id)
    assert (found.tenant_id, found.user_id) == ("default", "ada")
    assert found.metadata["feature_type"] == "posts"
    assert (found.progress.processed, found.progress.total, found.progress.percent) == (1, 1, 100)
    assert list(found.items.valid_users) == ["ada"]


async def test_users_in_one_item_have_their_own_wishes(api):
    await wish(api, "ada", tone="dry")
    await wish(api, "bob", tone="loud")
    batch_id = await run(api, type="object", data_source="users")

    tones = [
        (await user_context(api, user_id, batch_id)).preferences[0].template_overrides["tone"]
        for user_id in ("ada", "bob")
    ]

    assert tones == ["dry", "loud"]


async def test_who_was_skipped_is_told_why(api):
    batch_id = await run(api)

    found = await user_context(api, "nobody", batch_id)

    [item] = found.user_items
    assert (item.state, item.reason) == (ITEM_STATE_SKIPPED, "USER_NOT_FOUND")
    assert list(found.items.invalid_users) == ["nobody"]
    assert (found.validation.total, found.validation.invalid) == (1, 1)
    assert found.progress.total == 0


async def test_alone_it_holds_everything_of_the_user_newest_first(api, server, processor):
    processor.on("ada", ItemFailed("BROKEN", "It is broken.", retryable=False))
    await add_users(server, "ada")
    plain = await finish(api, "ada", "bob", batch_metadata=USERS)
    await wish(api, "ada", tone="dry")
    runs = [await run(api, distribution={"users": ["ada"]}) for _ in range(2)]

    found = await user_context(api, "ada")

    assert [each.batch_id for each in found.batches] == [*reversed(runs), plain]
    assert [each.batch_id for each in found.user_items] == [*reversed(runs), plain]
    assert [each.state for each in found.user_items] == [
        *(ITEM_STATE_SUCCEEDED, ITEM_STATE_SUCCEEDED, ITEM_STATE_FAILED),
    ]
    assert [(each.batch_id, each.is_own) for each in found.references] == [
        (batch_id, is_own) for batch_id in reversed(runs) for is_own in (False, True)
    ]
    assert (found.progress.succeeded, found.progress.failed) == (2, 1)
    [preference] = found.preferences
    assert MessageToDict(preference.template_overrides) == {"tone": "dry"}


async def test_what_counts_for_a_user_is_told_also_when_the_job_is_gone(api):
    await run(api)
    await api.jobs.DeleteJob(DeleteJobRequest(job_id="job-pref"))

    [preference] = (await user_context(api, "ada")).preferences

    assert (preference.feature_type, preference.job_id) == ("posts", "")


async def test_the_client_puts_the_pages_of_a_user_together(api, server, monkeypatch):
    monkeypatch.setattr("batchwork_client.batches.LARGEST_PAGE", 1)
    runs = [await run(api, distribution={"users": ["ada"]}) for _ in range(2)]

    async with connect(f"127.0.0.1:{server.port}") as batchwork:
        found = await batchwork.batches.get_context(user_id="ada")
    document = context_document(found)["results"]

    assert [each.batch_id for each in found.batches] == runs[::-1]
    assert [each.batch_id for each in found.user_items] == runs[::-1]
    assert len(found.references) == 4
    assert len(found.preferences) == 1
    assert document["items"] == {"valid_users": ["ada"], "invalid_users": []}
    assert document["user_items"][0]["state"] == "SUCCEEDED"
    assert document["references"][0]["state"] == "DELIVERED"
    assert document["metadata"]["preferences"][0]["feature_type"] == "posts"
    assert json.loads(json.dumps(document)) == document


async def test_a_stranger_has_an_empty_context(api):
    batch_id = await run(api)

    alone, inside = await user_context(api, "zoe"), await user_context(api, "zoe", batch_id)

    assert (list(alone.batches), list(alone.user_items), alone.validation.total) == ([], [], 0)
    assert (list(inside.user_items), list(inside.items.valid_users)) == ([], [])


async def test_everything_wrong_about_a_user_is_told_at_once(api):
    request = GetContextRequest(
        user_id="a\nb", batch_ids=["bat-1", "bat-2"], page_size=-1, page_token="x"
    )

    refusal = await refused(api.batches.GetContext(request))

    assert set(refusal.violations) == {"batch_ids", "user_id", "page_size", "page_token"}
