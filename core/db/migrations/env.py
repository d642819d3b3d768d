"""Alembic's entry point, which migrates within the given connection and transaction.

Called by :func:`core.db.database.upgrade`; there is no ``alembic.ini``.
"""

from __future__ import annotations

from alembic import context

from core.db.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot make most changes to a table in place
)
with context.begin_transaction():
    context.run_migrations()
