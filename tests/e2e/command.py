"""``batchwork-server`` with the processors of the tests, for its commands that need no API.

Started as ``python -m tests.e2e.command once``.
"""

from __future__ import annotations

from batchwork_server.cli import main
from batchwork_server.processors.registry import ProcessorRegistry

from tests.e2e.processors import load

if __name__ == "__main__":
    ProcessorRegistry.installed = staticmethod(load)  # type: ignore[method-assign]
    main()
