"""How child processes are started: as new interpreters that import next to nothing.

Imported by every child.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType
from typing import ClassVar


class SpawnedChild(SpawnProcess):
    """A process that does not import what the server was started with.

    A spawned process would import the main module of its parent again, and with the
    server's command line all of the server.
    """

    def start(self) -> None:
        with _without_main():
            super().start()


class Spawn(SpawnContext):
    """New interpreters; a fork would copy locks that gRPC's threads hold, and sockets."""

    Process: ClassVar[type[SpawnProcess]] = SpawnedChild


_main_is_hidden = threading.Lock()


@contextmanager
def _without_main() -> Iterator[None]:
    with _main_is_hidden:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main
