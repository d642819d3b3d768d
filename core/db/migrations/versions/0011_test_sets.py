"""Create the tables of test sets, their runs and results."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Create ``test_sets``, ``evaluations`` and ``evaluation_results``."""
    moment, text = sa.DateTime(), sa.Text()
    op.create_table(
        "test_sets",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("owner", text, nullable=False),
        sa.Column("browser", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("content", text, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("changed_at", moment, nullable=False),
    )
    op.create_index("ix_test_sets_owner", "test_sets", ["owner", "browser", "changed_at"])
    op.create_table(
        "evaluations",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("owner", text, nullable=False),
        sa.Column("browser", text, nullable=False),
        sa.Column("test_set", sa.String(32)),
        sa.Column("name", text, nullable=False),
        sa.Column("state", text, nullable=False),
        sa.Column("instance_host", text, nullable=False),
        sa.Column("instance_pid", sa.Integer(), nullable=False),
        sa.Column("instance_started", sa.Float(53), nullable=False),
        sa.Column("pinned", sa.Boolean(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("ended_at", moment),
        sa.Column("saved_at", moment, nullable=False),
        sa.Column("plan", text, nullable=False),
    )
    op.create_index("ix_evaluations_owner", "evaluations", ["owner", "browser", "created_at"])
    op.create_index("ix_evaluations_state", "evaluations", ["state"])
    op.create_table(
        "evaluation_results",
        sa.Column(
            "run",
            sa.String(32),
            sa.ForeignKey("evaluations.id", name="fk_evaluation_results_run", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("candidate", sa.Integer(), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("result", text, nullable=False),
    )
