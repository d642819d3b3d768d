"""Add the INT4 settings of measurements."""

from __future__ import annotations

import sqlalchemy as sa

from core.db.migrations.changes import add_before_rounds

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add ``measurements.int4``."""
    add_before_rounds(sa.Column("int4", sa.Text()), after="weight_bytes")
