"""``python -m bench.profile NAME``: what the event loop of the server does during a benchmark.

The profiler makes calls of Python several times as expensive as they are; it tells where to look,
not how long it takes.
"""

from __future__ import annotations

import argparse
import asyncio
import pstats
import tempfile
from pathlib import Path

from bench.catalogue import BENCHMARKS
from bench.measuring import SMALL
from bench.workplace import workplace

_LINES = 30


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("name", choices=list(BENCHMARKS))
    name = parser.parse_args().name
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "profile"
        with workplace(profile=file) as place:
            asyncio.run(BENCHMARKS[name](place, SMALL))
        stats = pstats.Stats(str(file))
        stats.strip_dirs().sort_stats("tottime").print_stats(_LINES)
        stats.sort_stats("cumtime").print_stats(_LINES)


if __name__ == "__main__":
    main()
