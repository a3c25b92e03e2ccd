"""Every benchmark by its name."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from bench.committing import synchronous_full
from bench.creating import inline_items
from bench.measuring import Scale, Verdict
from bench.memory import stored_items
from bench.preferences import grouped
from bench.processing import noop_items, waiting_items
from bench.reading import read_batch
from bench.scheduling import many_jobs
from bench.validating import many_users
from bench.watching import many_watchers, one_watcher
from bench.workplace import Workplace

Benchmark = Callable[[Workplace, Scale], Coroutine[Any, Any, list[Verdict]]]

BENCHMARKS: Mapping[str, Benchmark] = {
    "p1-sqlite": partial(noop_items, kind="sqlite"),
    "p1-postgresql": partial(noop_items, kind="postgresql"),
    "p2-sqlite": partial(waiting_items, kind="sqlite"),
    "p2-postgresql": partial(waiting_items, kind="postgresql"),
    "p3-sqlite": synchronous_full,
    "p4-running-sqlite": partial(read_batch, kind="sqlite", batch="running", target=0.85),
    "p4-stored-sqlite": partial(read_batch, kind="sqlite", batch="stored", target=0.7),
    "p4-stored-postgresql": partial(read_batch, kind="postgresql", batch="stored", target=0.6),
    "p5-sqlite": partial(many_watchers, kind="sqlite"),
    "p5-postgresql": partial(many_watchers, kind="postgresql"),
    "p5-one-watcher-sqlite": partial(one_watcher, kind="sqlite"),
    "p5-one-watcher-postgresql": partial(one_watcher, kind="postgresql"),
    "p6-sqlite": partial(inline_items, kind="sqlite"),
    "p6-postgresql": partial(inline_items, kind="postgresql"),
    "p7-sqlite": partial(many_users, kind="sqlite", target=0.66),
    "p7-postgresql": partial(many_users, kind="postgresql", target=0.37),
    "p8-sqlite": partial(stored_items, kind="sqlite"),
    "p8-postgresql": partial(stored_items, kind="postgresql"),
    "jobs-sqlite": partial(many_jobs, kind="sqlite"),
    "jobs-postgresql": partial(many_jobs, kind="postgresql"),
    "p9-sqlite": partial(grouped, kind="sqlite"),
    "p9-postgresql": partial(grouped, kind="postgresql"),
}


def chosen(names: Sequence[str]) -> list[str]:
    """Returns the benchmarks that ``names`` mean, in the order of the catalogue.

    A name may stop at any hyphen: ``p4`` and ``p4-stored`` mean all that begin so. No name means
    every benchmark.

    Raises:
        LookupError: a name means nothing; the message says which there are.
    """
    unknown = [name for name in names if not any(_means(name, known) for known in BENCHMARKS)]
    if unknown:
        raise LookupError(f"No benchmark is called {unknown[0]}; there is {', '.join(BENCHMARKS)}.")
    return [
        known for known in BENCHMARKS if not names or any(_means(name, known) for name in names)
    ]


def _means(name: str, known: str) -> bool:
    return known == name.lower() or known.startswith(f"{name.lower()}-")
