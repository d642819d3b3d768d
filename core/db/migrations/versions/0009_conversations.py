"""Create the tables of conversations, and record the cached tokens of a prompt."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Create ``conversations`` and ``exchanges``; add ``runs.cached_tokens``."""
    moment, text = sa.DateTime(), sa.Text()
    op.create_table(
        "conversations",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("owner", text, nullable=False),
        sa.Column("browser", text, nullable=False),
        sa.Column("title", text, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("changed_at", moment, nullable=False),
    )
    op.create_index("ix_conversations_owner", "conversations", ["owner", "browser", "changed_at"])
    op.create_table(
        "exchanges",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column(
            "conversation",
            sa.String(32),
            sa.ForeignKey("conversations.id", name="fk_exchanges_conversation", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("asked_at", moment, nullable=False),
        sa.Column("run", sa.String(32)),
        sa.Column("instruction", text, nullable=False),
        sa.Column("context", text, nullable=False),
        sa.Column("text", text),
        sa.Column("request", text, nullable=False),
        sa.Column("answer", text),
    )
    op.create_index("ix_exchanges_conversation", "exchanges", ["conversation", "asked_at"])
    op.add_column("runs", sa.Column("cached_tokens", sa.Integer()))
