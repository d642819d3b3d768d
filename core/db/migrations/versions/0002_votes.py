"""Create the table of votes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create ``votes`` and its indices."""
    text = sa.Text()
    op.create_table(
        "votes",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("comparison", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("owner", text),
        sa.Column("session", text),
        sa.Column("left_model", text, nullable=False),
        sa.Column("left_title", text, nullable=False),
        sa.Column("left_precision", text, nullable=False),
        sa.Column("left_device", text, nullable=False),
        sa.Column("left_runtime", text, nullable=False),
        sa.Column("left_run", sa.String(32)),
        sa.Column("right_model", text, nullable=False),
        sa.Column("right_title", text, nullable=False),
        sa.Column("right_precision", text, nullable=False),
        sa.Column("right_device", text, nullable=False),
        sa.Column("right_runtime", text, nullable=False),
        sa.Column("right_run", sa.String(32)),
        sa.Column("verdict", text, nullable=False),
        sa.Column("comment", text),
        sa.Column("blind", sa.Boolean(), nullable=False),
        sa.Column("mode", text, nullable=False),
    )
    op.create_index("ix_votes_comparison", "votes", ["comparison"], unique=True)
    op.create_index("ix_votes_created_at", "votes", ["created_at"])
    op.create_index("ix_votes_session", "votes", ["session", "created_at"])
    op.create_index("ix_votes_owner", "votes", ["owner", "created_at"])
