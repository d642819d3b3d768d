"""Add the INT4 settings of measurements."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add ``measurements.int4`` before ``rounds``: columns after it are slow to read."""
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    with op.batch_alter_table("measurements", recreate="always" if on_sqlite else "never") as table:
        table.add_column(sa.Column("int4", sa.Text()), insert_after="weight_bytes")


def downgrade() -> None:
    """Drop the column."""
    with op.batch_alter_table("measurements") as table:
        table.drop_column("int4")
