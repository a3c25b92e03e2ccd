"""``python -m bench.footprint``: what the imports of the server take in memory.

Twice: each library in a process that has nothing else, and all of them one after the other in the
order in which the server meets them. What two libraries share counts for the first one only.
"""

from __future__ import annotations

import subprocess
import sys
from statistics import median

_TIMES = 3
_INTERPRETER = "sys"

LIBRARIES = (
    "asyncio",
    "ssl",
    "grpc.aio",
    "google.protobuf.message",
    "batchwork.v1.batch_service_pb2_grpc",
    "grpc_health.v1.health",
    "grpc_reflection.v1alpha.reflection",
    "sqlalchemy.ext.asyncio",
    "aiosqlite",
    "asyncpg",
    "alembic.command",
    "marshmallow",
    "jinja2.sandbox",
    "yaml",
    "structlog",
    "orjson",
    "typer",
    "rich.console",
    "batchwork_server.cli",
)

# The first argument counts; what is imported before it belongs to the others.
_MEASURE = """
import importlib, sys
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20
for name in sys.argv[1:-1]:
    importlib.import_module(name)
before = resident()
importlib.import_module(sys.argv[-1])
print(resident() - before, resident(), len(sys.modules))
"""


def main() -> None:
    print(f"{'MiB':38} alone  on top  together  modules")
    for place, library in enumerate((_INTERPRETER, *LIBRARIES)):
        alone = _measured(library)
        on_top = _measured(*LIBRARIES[: max(0, place - 1)], library)
        print(f"{library:38} {alone[0]:5.1f} {on_top[0]:7.1f} {on_top[1]:9.1f} {on_top[2]:8.0f}")


def _measured(*libraries: str) -> tuple[float, float, float]:
    """Returns what the last import adds, what all take then, and the number of modules."""
    runs = [_run(libraries) for _ in range(_TIMES)]
    added, together, modules = (median(figures) for figures in zip(*runs, strict=True))
    return added, together, modules


def _run(libraries: tuple[str, ...]) -> tuple[float, ...]:
    command = [sys.executable, "-c", _MEASURE, *libraries]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return tuple(map(float, answer.split()))


if __name__ == "__main__":
    main()
