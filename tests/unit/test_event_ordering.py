"""Events that overlapping transactions wrote are put into order, and tokens stay behind them."""

from __future__ import annotations

from typing import Any

from batchwork_server.application.event_feed import Ordering
from batchwork_server.domain.feed_place import FeedPlace
from batchwork_server.store.store import UnreadEvent

BEFORE = FeedPlace(9, 0)


def make_event(number: int, position: int, **changes) -> UnreadEvent:
    defaults: dict[str, Any] = {
        "place": FeedPlace(number, position),
        "batch_key": 1,
        "sequence": 1,
        "is_settled": True,
        "is_early": False,
        "is_cut_off": False,
        "content": (),
    }
    return UnreadEvent(**defaults | changes)


def told(ordering: Ordering, *events: UnreadEvent) -> list[tuple[int, int, FeedPlace]]:
    return [(event.batch_key, event.sequence, after) for event, _, after in ordering.put(events)]


def test_events_in_order_go_straight_through():
    one, two = make_event(10, 1), make_event(10, 2, sequence=2)

    assert told(Ordering(BEFORE), one, two) == [(1, 1, one.place), (1, 2, two.place)]


def test_an_early_event_waits_for_the_one_before_it():
    early = make_event(10, 2, sequence=2, is_early=True)
    first = make_event(11, 1, sequence=1)

    assert told(Ordering(BEFORE), early, first) == [(1, 1, BEFORE), (1, 2, first.place)]


def test_others_go_on_meanwhile_and_resume_before_the_one_that_waits():
    ordering = Ordering(BEFORE)
    early = make_event(10, 3, sequence=2, is_early=True)
    other = make_event(11, 1, batch_key=2)
    first = make_event(12, 2, sequence=1)

    assert told(ordering, early, other) == [(2, 1, BEFORE)]
    assert ordering.safe == BEFORE
    # It came with another page.
    assert told(ordering, first) == [(1, 1, BEFORE), (1, 2, first.place)]
    assert ordering.safe == first.place


def test_one_that_came_lets_a_whole_row_go():
    third = make_event(10, 3, sequence=3, is_early=True)
    second = make_event(11, 2, sequence=2, is_early=True)
    first = make_event(12, 1, sequence=1)

    assert [told_one[1] for told_one in told(Ordering(BEFORE), third, second, first)] == [1, 2, 3]


def test_one_whose_predecessor_waits_waits_too():
    # The transaction with the higher number wrote first: 4, and then the other one 5 and 6.
    ordering = Ordering(BEFORE)
    fifth = make_event(100, 1, sequence=5, is_early=True)
    sixth = make_event(100, 2, sequence=6)
    fourth = make_event(105, 3, sequence=4)

    assert told(ordering, fifth, sixth) == []
    assert [told_one[1] for told_one in told(ordering, fourth)] == [4, 5, 6]
