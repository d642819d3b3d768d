"""Record speculation: the setting of runs and measurements, and the guessed tokens of runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from core.db.migrations.changes import add_before_rounds, add_to_chart_index

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add the columns; earlier rows were generated without speculation."""
    op.add_column("runs", _speculation())
    op.add_column("runs", sa.Column("draft_tokens", sa.Integer()))
    op.add_column("runs", sa.Column("accepted_tokens", sa.Integer()))
    add_to_chart_index("draft_tokens")
    add_before_rounds(_speculation(), after="hints")


def _speculation() -> sa.Column[str]:
    return sa.Column("speculation", sa.Text(), nullable=False, server_default="off")
