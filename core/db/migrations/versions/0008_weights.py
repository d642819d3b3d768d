"""Record the weights of runs, votes and measurements if the precision is not specific enough."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from core.db.migrations.changes import add_before_rounds, add_to_chart_index

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add ``runs.weights``, to the index for charts too, and ``measurements.weights``."""
    op.add_column("runs", sa.Column("weights", sa.Text()))
    for side in ("left", "right"):
        op.add_column("votes", sa.Column(f"{side}_weights", sa.Text()))
    add_to_chart_index("weights", after="precision")
    add_before_rounds(sa.Column("weights", sa.Text()), after="weight_bytes")
