"""The store on each database."""

from __future__ import annotations

import pytest
from batchwork_server.store.database import Database
from batchwork_server.store.sql_store import SqlStore


@pytest.fixture
def store(database: Database) -> SqlStore:
    """Runs the test once on each database."""
    return SqlStore(database)
