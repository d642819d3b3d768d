"""Record the weights of runs, votes and measurements if the precision is not specific enough."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_CHART_BEFORE = (
    "state",
    "started_at",
    "session",
    "owner",
    "id",
    "origin",
    "model",
    "title",
    "source",
    "random_weights",
    "precision",
)
_CHART_AFTER = (
    "device",
    "devices_used",
    "runtime",
    "host_name",
    "host_cpu",
    "contended",
    "prompt_tokens",
    "new_tokens",
    "ttft_ms",
    "decode_tokens_per_s",
    "prefill_tokens_per_s",
    "memory_private_bytes",
    "memory_file_backed_bytes",
    "load_s",
    "execution_precision",
    "kv_precision",
    "threads",
    "stop_reason",
)


def upgrade() -> None:
    """Add ``runs.weights``, to the index for charts too, and ``measurements.weights``."""
    op.add_column("runs", sa.Column("weights", sa.Text()))
    for side in ("left", "right"):
        op.add_column("votes", sa.Column(f"{side}_weights", sa.Text()))
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    if on_sqlite:
        op.drop_index("ix_runs_chart", "runs")
        op.create_index("ix_runs_chart", "runs", [*_CHART_BEFORE, "weights", *_CHART_AFTER])
    # Before ``rounds``: what stands after them is slow to read.
    with op.batch_alter_table("measurements", recreate="always" if on_sqlite else "never") as table:
        table.add_column(sa.Column("weights", sa.Text()), insert_after="weight_bytes")


def downgrade() -> None:
    """Drop the columns."""
    with op.batch_alter_table("measurements") as table:
        table.drop_column("weights")
    if op.get_bind().dialect.name == "sqlite":
        op.drop_index("ix_runs_chart", "runs")
        op.create_index("ix_runs_chart", "runs", [*_CHART_BEFORE, *_CHART_AFTER])
    op.drop_column("runs", "weights")
    for side in ("left", "right"):
        op.drop_column("votes", f"{side}_weights")
