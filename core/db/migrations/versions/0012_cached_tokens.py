"""Add ``cached_tokens`` to the index for charts."""

from __future__ import annotations

from core.db.migrations.changes import add_to_chart_index

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the column."""
    add_to_chart_index("cached_tokens")
