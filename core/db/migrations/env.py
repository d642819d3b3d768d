"""Alembic's entry point: migrates over the connection and in the transaction it is handed.

Run by :func:`core.db.database.upgrade`; there is no ``alembic.ini``.
"""

from __future__ import annotations

from alembic import context

from core.db.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter most of a table in place
)
with context.begin_transaction():
    context.run_migrations()
