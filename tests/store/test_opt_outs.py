"""Who is not to be served after all, on each database."""

from __future__ import annotations

from batchwork_server.domain.batch import Batch
from batchwork_server.domain.filters import ReferenceFilter
from batchwork_server.domain.item import ItemUser
from batchwork_server.domain.reference import ReferenceState
from batchwork_server.store.sql_store import SqlStore

from tests.factories import TENANT, make_item
from tests.store.test_preferences import make_preference, put
from tests.store.test_references import give_own

DISABLED, INACTIVE = "PREFERENCE_DISABLED", "TENANT_INACTIVE"


async def test_a_user_is_not_served_who_opted_out_or_rests(store: SqlStore):
    await put(
        store,
        make_preference("out", enabled=False),
        make_preference("resting", active=False),
        make_preference("both", enabled=False, active=False),
        make_preference("in"),
    )
    await put(store, make_preference("silent", enabled=False), tenant_id="other")

    told = {
        user_id: await store.opt_outs.reason_of(user_id, feature_type="posts", tenant_id=TENANT)
        for user_id in ("out", "resting", "both", "in", "silent")
    }

    assert told == {
        "out": DISABLED,
        "resting": INACTIVE,
        "both": DISABLED,
        "in": None,
        "silent": None,
    }


async def shared(store: SqlStore, *users: str, batch_id: str = "shared") -> Batch:
    """Stores a batch with an item that users share."""
    together = [ItemUser(user_id=user, item_index=0) for user in users]
    return await give_own(store, batch_id, make_item("all"), together=together)


async def fates(store: SqlStore, batch: Batch) -> dict[str, tuple[ReferenceState, str]]:
    wanted = ReferenceFilter(tenant_id=TENANT, batch_id=batch.batch_id)
    found, _ = await store.references.list(wanted, page_size=10, after=None)
    return {each.recipient.user_id: (each.state, each.reason) for each in found}


async def test_who_shares_an_item_is_taken_out_of_it(store: SqlStore):
    other = await shared(store, "ann", "bob", batch_id="earlier")
    batch = await shared(store, "ann", "bob", "cyd", "dan")
    await put(
        store,
        make_preference("ann"),
        make_preference("bob", enabled=False),
        make_preference("cyd", active=False),
    )

    out = await store.opt_outs.take_out(batch, ["ann", "bob", "cyd", "dan"])

    assert out == {"bob": DISABLED, "cyd": INACTIVE}
    pending, failed = ReferenceState.PENDING, ReferenceState.FAILED
    assert await fates(store, batch) == {
        "ann": (pending, ""),
        "bob": (failed, DISABLED),
        "cyd": (failed, INACTIVE),
        "dan": (pending, ""),
    }
    assert await fates(store, other) == {"ann": (pending, ""), "bob": (pending, "")}


async def test_who_was_taken_out_stays_out(store: SqlStore):
    batch = await shared(store, "ann", "bob")
    await put(store, make_preference("bob", enabled=False))
    await store.opt_outs.take_out(batch, ["ann", "bob"])

    await put(store, make_preference("bob", revision=2))

    assert await store.opt_outs.take_out(batch, ["ann", "bob"]) == {"bob": DISABLED}


async def test_nobody_is_nobody(store: SqlStore):
    batch = await shared(store, "ann")

    assert await store.opt_outs.take_out(batch, []) == {}
