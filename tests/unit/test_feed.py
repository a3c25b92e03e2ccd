"""Who gets the next worker: the order of dispatch, as far as the bounds of the batches allow."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from datetime import timedelta

import pytest
from batchwork_server.domain.batch import Batch
from batchwork_server.domain.item import PendingItem
from batchwork_server.engine.executor import RunningBatch
from batchwork_server.engine.feed import ChunkRun, Feed
from batchwork_server.store.store import ClaimedChunk

from tests.factories import make_batch, make_options, make_request
from tests.fakes import START

SECOND = timedelta(seconds=1)


def bounded_batch(key: int, most: int = 0) -> Batch:
    options = make_options(max_concurrent_items=most)
    return make_batch(key=key, batch_id=f"bat_{key}", request=make_request(options=options))


def put(
    feed: Feed,
    running: RunningBatch,
    names: str,
    *,
    after: timedelta = timedelta(0),
    isolated: bool = False,
) -> ChunkRun:
    """Puts a chunk into the feed with an item for each letter."""
    items = [PendingItem(index, name, None, "{}", 0) for index, name in enumerate(names)]
    chunk = ClaimedChunk(
        chunk_key=random.randrange(1_000_000),
        epoch=1,
        batch_key=running.batch.key,
        dispatch_time=START + after,
        items=items,
    )
    run = ChunkRun(chunk=chunk, running=running, queue=deque(items), isolated=isolated)
    feed.put(run)
    return run


def take_all(feed: Feed) -> list[tuple[ChunkRun, PendingItem]]:
    """Takes what workers without a bound would have in hand at once."""
    return list(iter(feed.take, None))


def names_of(taken: list[tuple[ChunkRun, PendingItem]]) -> str:
    return "".join(item.item_id for _, item in taken)


def test_what_is_dispatched_earlier_overtakes_what_was_claimed_earlier():
    feed = Feed()
    put(feed, RunningBatch(batch=bounded_batch(1)), "abc", after=SECOND)
    first = feed.take()
    put(feed, RunningBatch(batch=bounded_batch(2)), "xy")

    rest = take_all(feed)

    assert first is not None
    assert first[1].item_id == "a"
    assert names_of(rest) == "xybc"


def test_chunks_that_are_dispatched_together_go_in_the_order_of_their_claim():
    feed = Feed()
    running = RunningBatch(batch=bounded_batch(1))
    for names in ("ab", "cd", "ef"):
        put(feed, running, names)

    assert names_of(take_all(feed)) == "abcdef"


def test_a_batch_gives_no_more_than_its_bound_and_then_one_for_each_that_ends():
    feed = Feed()
    bounded = RunningBatch(batch=bounded_batch(1, most=2))
    put(feed, bounded, "abc")
    put(feed, bounded, "de", after=SECOND)
    put(feed, RunningBatch(batch=bounded_batch(2)), "xy", after=2 * SECOND)

    begun = take_all(feed)
    for run, _ in begun[:2]:
        feed.give_back(run)
    next_ones = take_all(feed)
    feed.give_back(next_ones[0][0])
    last = take_all(feed)

    assert names_of(begun) == "abxy"
    assert names_of(next_ones) == "cd"
    assert names_of(last) == "e"


def test_a_chunk_that_crashed_gives_one_item_at_a_time_and_others_do_not_wait_for_it():
    feed = Feed()
    running = RunningBatch(batch=bounded_batch(1))
    put(feed, running, "ab", isolated=True)
    put(feed, running, "cd", isolated=True)
    put(feed, running, "x", after=SECOND)
    waiting = running.startable

    begun = take_all(feed)
    feed.give_back(begun[1][0])

    assert waiting == 3
    assert names_of(begun) == "acx"
    assert names_of(take_all(feed)) == "d"


def test_a_probe_that_is_done_lets_the_other_chunks_of_its_batch_go():
    feed = Feed()
    running = RunningBatch(batch=bounded_batch(1), probing=True)
    put(feed, running, "ab")
    put(feed, running, "cd", after=SECOND)

    [(run, probe)] = take_all(feed)
    feed.give_back(run)
    running.probing = False

    assert probe.item_id == "a"
    assert names_of(take_all(feed)) == "bcd"


def test_what_a_worker_was_interrupted_at_is_the_next_again():
    feed = Feed()
    running = RunningBatch(batch=bounded_batch(1, most=1))
    put(feed, running, "ab")
    [taken] = take_all(feed)

    feed.interrupt(*taken)

    assert feed.queued == running.queued == 2
    assert names_of(take_all(feed)) == "a"


async def test_the_last_item_of_a_chunk_comes_back_when_it_is_interrupted():
    # The story: its chunk had left the feed by then. The item was stuck and counted as queued for
    # ever, so that the server claimed less.
    feed = Feed()
    running = RunningBatch(batch=bounded_batch(1))
    run = put(feed, running, "a")
    [(_, item)] = take_all(feed)
    idle = asyncio.create_task(feed.wait())
    await asyncio.sleep(0)

    feed.interrupt(run, item)
    await idle

    assert take_all(feed) == [(run, item)]
    assert (feed.queued, run.in_flight, running.in_flight) == (0, 1, 1)


def test_batches_of_one_provider_wait_for_the_item_that_probes_it():
    feed = Feed()
    siblings: list[RunningBatch] = []
    for key in range(3):
        siblings.append(RunningBatch(batch=bounded_batch(key), probing=True, siblings=siblings))
        put(feed, siblings[key], "ab", after=key * SECOND)

    [(run, probe)] = take_all(feed)
    waiting = [running.startable for running in siblings]
    feed.give_back(run)
    for running in siblings:
        running.probing = False

    assert (probe.item_id, waiting) == ("a", [0, 0, 0])
    assert names_of(take_all(feed)) == "babab"


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_no_item_is_lost_and_the_numbers_are_right(seed: int):
    chance = random.Random(seed)
    feed = Feed()
    batches = [RunningBatch(batch=bounded_batch(key, most=key)) for key in range(4)]
    runs: list[ChunkRun] = []
    in_hand: list[tuple[ChunkRun, PendingItem]] = []
    put_in, done, dropped = 0, 0, 0
    for _ in range(500):
        match chance.choice(("put", "take", "take", "take", "end", "end", "interrupt", "drop")):
            case "put":
                names = "i" * chance.randint(1, 5)
                after = chance.randint(0, 9) * SECOND
                isolated = chance.random() < 0.2
                runs.append(
                    put(feed, chance.choice(batches), names, after=after, isolated=isolated)
                )
                put_in += len(names)
            case "take":
                startable = sum(running.startable for running in batches)
                taken = feed.take()
                assert (taken is not None) == (startable > 0)
                in_hand += [taken] if taken is not None else []
            case "end" if in_hand:
                feed.give_back(in_hand.pop(chance.randrange(len(in_hand)))[0])
                done += 1
            case "interrupt" if in_hand:
                feed.interrupt(*in_hand.pop(chance.randrange(len(in_hand))))
            case "drop" if runs and chance.random() < 0.2:
                dropped += feed.drop(chance.choice(runs))
        assert feed.queued + len(in_hand) + done + dropped == put_in
        for running in batches:
            own = [run for run in runs if run.running is running]
            assert running.queued == sum(run.startable for run in own)
            assert running.in_flight <= (running.bound or running.in_flight)
