"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import sqlite3
import tempfile
import time
from importlib.metadata import version
from statistics import median

_LIBRARIES = ("grpcio", "sqlalchemy", "aiosqlite", "asyncpg")


def header() -> str:
    """Returns two lines about the machine and the libraries."""
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    return (
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, fsync {_fsync_seconds():.2g} s, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}\n{libraries}"
    )


def _fsync_seconds() -> float:
    """Returns the median of an fsync where the databases will be.

    On a file system in memory it is next to nothing, and says that nothing below is durable.
    """
    durations = []
    with tempfile.TemporaryFile() as file:
        for _ in range(20):
            file.write(b"x" * 4096)
            file.flush()
            begin = time.perf_counter()
            os.fsync(file.fileno())
            durations.append(time.perf_counter() - begin)
    return median(durations)
