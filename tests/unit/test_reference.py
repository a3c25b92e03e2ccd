"""References: what became of them, how they are counted, and where they stand."""

from __future__ import annotations

import pytest
from batchwork_server.domain.batch import Batch, BatchState, Counts, UserValidation
from batchwork_server.domain.distribution import DeliveryCounts, Distribution
from batchwork_server.domain.item import ItemState
from batchwork_server.domain.reference import (
    OwnItem,
    PlaceInBatch,
    Recipient,
    Reference,
    ReferenceState,
    deliveries_of,
)

from tests.factories import make_batch, make_request
from tests.fakes import START


def batch_in(state: BatchState, *, users: int = 0, **changes) -> Batch:
    request = make_request(
        distribution=Distribution(**changes), user_validation=UserValidation(total=users)
    )
    return make_batch(state=state, counts=Counts(total=1), request=request)


@pytest.mark.parametrize(
    ("item", "state", "reason"),
    [
        (OwnItem(item_id="a", state=ItemState.PENDING), "PENDING", ""),
        (OwnItem(item_id="a", state=ItemState.PENDING, reason="BUSY"), "PENDING", ""),
        (OwnItem(item_id="a", state=ItemState.SUCCEEDED, end_time=START), "DELIVERED", ""),
        (OwnItem(item_id="a", state=ItemState.FAILED, reason="BROKEN"), "FAILED", "BROKEN"),
        (OwnItem(item_id="", state=ItemState.SKIPPED, reason="ALREADY_DONE"), "FAILED", None),
        (OwnItem(item_id="a", state=ItemState.CANCELLED), "FAILED", "CANCELLED"),
        (OwnItem(item_id="a", state=ItemState.EXPIRED), "FAILED", "EXPIRED"),
    ],
)
@pytest.mark.parametrize("of_batch", [BatchState.RUNNING, BatchState.CANCELLED])
def test_an_own_reference_follows_the_item_and_not_the_batch(item, state, reason, of_batch):
    recipient = Recipient(user_id="ada")

    found = Reference(recipient=recipient, batch=batch_in(of_batch, own=True), item=item)

    assert found.state == ReferenceState(state)
    assert found.reason == (item.reason if reason is None else reason)
    assert found.deliver_time == item.end_time


@pytest.mark.parametrize(
    ("batch", "served", "delivered", "failed"),
    [
        pytest.param(
            batch_in(BatchState.SUCCEEDED, named=3, invalid=1), 1, 2, 1, id="named, one invalid"
        ),
        pytest.param(batch_in(BatchState.FAILED, named=3, invalid=1), 0, 0, 3, id="no results"),
        pytest.param(
            batch_in(BatchState.PARTIALLY_SUCCEEDED, own=True, users=5), 2, 2, 3, id="own"
        ),
        pytest.param(batch_in(BatchState.CANCELLED, own=True, users=5), 2, 2, 3, id="own, early"),
        pytest.param(
            batch_in(BatchState.SUCCEEDED, named=1, own=True, users=5), 5, 6, 0, id="both"
        ),
    ],
)
def test_deliveries_are_counted_by_reference(batch, served, delivered, failed):
    assert deliveries_of(batch, served=served) == DeliveryCounts(delivered=delivered, failed=failed)


@pytest.mark.parametrize(
    "place",
    [PlaceInBatch(user_id="ada"), PlaceInBatch(user_id="a:b"), PlaceInBatch(place=0)],
    ids=str,
)
def test_a_place_is_read_as_it_was_written(place):
    assert PlaceInBatch.read(str(place)) == place


@pytest.mark.parametrize(
    "text", ["", "ada", "own:", "own:-1", "own:x", "own:\u0661", f"own:{10**18}", "other:1"]
)
def test_what_is_no_place_is_not_read(text):
    assert PlaceInBatch.read(text) is None
