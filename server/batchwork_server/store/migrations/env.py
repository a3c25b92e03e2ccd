"""Runs the migrations on the connection that ``store/database.py`` hands over.

Everything happens in the transaction of that connection, so an upgrade is done as a whole or not
at all.
"""

from __future__ import annotations

from alembic import context

from batchwork_server.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=context.config.attributes["version_table"],
    render_as_batch=True,
)
context.run_migrations()
