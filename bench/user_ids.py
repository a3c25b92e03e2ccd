"""The users whom benchmarks ask for."""

from __future__ import annotations

import random

PAGE = 10_000


def unsorted_ids(count: int) -> list[str]:
    """Returns so many ids, in an order that no index has and that is always the same."""
    ids = [f"user-{number:07}" for number in range(count)]
    random.Random(7).shuffle(ids)
    return ids
