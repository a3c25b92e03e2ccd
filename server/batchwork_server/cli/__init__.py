"""``batchwork-server``: its commands, and the modes that ``BATCH_MODE`` names."""

from __future__ import annotations

from batchwork_server.cli.app import main

__all__ = ["main"]
