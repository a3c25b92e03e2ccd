"""The command line ``batchwork``; an extra, so that the client alone stays small."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def main() -> None:
    """Runs the command line and exits; ``batchwork --help`` lists the exit codes."""
    missing = [name for name in ("typer", "rich") if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"The command line needs {' and '.join(missing)}: pip install 'batchwork[cli]'\n"
        )
        sys.exit(2)
    from batchwork_client.cli.app import app

    app(prog_name="batchwork")
