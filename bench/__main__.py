"""``python -m bench [--full] [names…]``: measures, and ends with a line per target."""

from __future__ import annotations

import argparse
import asyncio
import sys

from bench.catalogue import BENCHMARKS, chosen
from bench.machine import header
from bench.measuring import FULL, SMALL, Scale, Verdict
from bench.workplace import workplace


async def measure(names: list[str], scale: Scale) -> list[Verdict]:
    verdicts: list[Verdict] = []
    with workplace() as place:
        for name in names:
            verdicts += await BENCHMARKS[name](place, scale)
    return verdicts


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--full", action="store_true", help="the sizes of the targets")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}")
    arguments = parser.parse_args()
    try:
        names = chosen(arguments.names)
    except LookupError as error:
        sys.exit(str(error))
    print(header(), end="\n\n", flush=True)
    verdicts = asyncio.run(measure(names, FULL if arguments.full else SMALL))
    print()
    for verdict in verdicts:
        print(verdict.line)


if __name__ == "__main__":
    main()
