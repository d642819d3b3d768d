"""Create the table of runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_INDEXED_WITH_TIME = ("model", "precision", "device", "session", "owner")


def upgrade() -> None:
    """Create ``runs`` and its indices."""
    text, number, real = sa.Text(), sa.Integer(), sa.Float(53)
    op.create_table(
        "runs",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("state", text, nullable=False),
        sa.Column("instance_host", text, nullable=False),
        sa.Column("instance_pid", number, nullable=False),
        sa.Column("instance_started", real, nullable=False),
        sa.Column("owner", text),
        sa.Column("session", text),
        sa.Column("origin", text, nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.Column("ended_at", sa.DateTime()),
        sa.Column("instruction", text, nullable=False),
        sa.Column("context", text, nullable=False),
        sa.Column("prompt_format", text, nullable=False),
        sa.Column("temperature", real, nullable=False),
        sa.Column("top_p", real, nullable=False),
        sa.Column("top_k", number, nullable=False),
        sa.Column("repetition_penalty", real, nullable=False),
        sa.Column("max_new_tokens", number, nullable=False),
        sa.Column("greedy", sa.Boolean(), nullable=False),
        sa.Column("seed", sa.BigInteger()),
        sa.Column("model", text, nullable=False),
        sa.Column("title", text, nullable=False),
        sa.Column("source", text, nullable=False),
        sa.Column("random_weights", sa.Boolean(), nullable=False),
        sa.Column("precision", text, nullable=False),
        sa.Column("execution_precision", text),
        sa.Column("kv_precision", text),
        sa.Column("device", text, nullable=False),
        sa.Column("devices_used", text),
        sa.Column("runtime", text, nullable=False),
        sa.Column("threads", number),
        sa.Column("hints", text, nullable=False),
        sa.Column("versions", text, nullable=False),
        sa.Column("host_name", text, nullable=False),
        sa.Column("host_cpu", text, nullable=False),
        sa.Column("host_os", text, nullable=False),
        sa.Column("contended", sa.Boolean()),
        sa.Column("text", text),
        sa.Column("prompt_tokens", number),
        sa.Column("new_tokens", number),
        sa.Column("queue_ms", real),
        sa.Column("ttft_ms", real),
        sa.Column("tpot_ms", real),
        sa.Column("decode_tokens_per_s", real),
        sa.Column("end_to_end_tokens_per_s", real),
        sa.Column("prefill_tokens_per_s", real),
        sa.Column("total_ms", real),
        sa.Column("load_s", real),
        sa.Column("memory_private_bytes", sa.BigInteger()),
        sa.Column("memory_file_backed_bytes", sa.BigInteger()),
        sa.Column("memory_scope", text),
        sa.Column("stop_reason", text),
        sa.Column("error", text),
        sa.Column("token_times_ms", text),
    )
    op.create_index("ix_runs_started_at", "runs", ["started_at"])
    for column in _INDEXED_WITH_TIME:
        op.create_index(f"ix_runs_{column}", "runs", [column, "started_at"])
    op.create_index("ix_runs_state", "runs", ["state"])
