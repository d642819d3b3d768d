"""Create the tables of benchmarks, and indices on runs for charts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_CHART = (
    *("state", "started_at", "session", "owner", "id", "origin"),
    *("model", "title", "source", "random_weights", "precision", "device", "devices_used"),
    *("runtime", "host_name", "host_cpu", "contended", "prompt_tokens", "new_tokens"),
    *("ttft_ms", "decode_tokens_per_s", "prefill_tokens_per_s"),
    *("memory_private_bytes", "memory_file_backed_bytes", "load_s"),
    *("execution_precision", "kv_precision", "threads", "stop_reason"),
)


def upgrade() -> None:
    """Create ``sweeps`` and ``measurements``, and two indices on ``runs``."""
    _create_sweeps()
    _create_measurements()
    op.create_index("ix_runs_ended_at", "runs", ["ended_at"])
    if op.get_bind().dialect.name == "sqlite":
        op.create_index("ix_runs_chart", "runs", list(_CHART))


def _create_sweeps() -> None:
    text, moment = sa.Text(), sa.DateTime()
    op.create_table(
        "sweeps",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("state", text, nullable=False),
        sa.Column("plan", text, nullable=False),
        sa.Column("instance_host", text, nullable=False),
        sa.Column("instance_pid", sa.Integer(), nullable=False),
        sa.Column("instance_started", sa.Float(53), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("ended_at", moment),
        sa.Column("saved_at", moment, nullable=False),
    )
    op.create_index("ix_sweeps_created_at", "sweeps", ["created_at"])
    op.create_index("ix_sweeps_state", "sweeps", ["state"])


def _create_measurements() -> None:
    text, number, size, moment = sa.Text(), sa.Integer(), sa.BigInteger(), sa.DateTime()
    op.create_table(
        "measurements",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("sweep", sa.String(32), nullable=False),
        sa.Column("position", number, nullable=False),
        sa.Column("state", text, nullable=False),
        sa.Column("model", text, nullable=False),
        sa.Column("title", text, nullable=False),
        sa.Column("source", text, nullable=False),
        sa.Column("random_weights", sa.Boolean(), nullable=False),
        sa.Column("precision", text, nullable=False),
        sa.Column("device", text, nullable=False),
        sa.Column("runtime", text, nullable=False),
        sa.Column("hints", text, nullable=False),
        sa.Column("prompt_tokens", number, nullable=False),
        sa.Column("new_tokens", number, nullable=False),
        sa.Column("repeats", number, nullable=False),
        sa.Column("host_name", text, nullable=False),
        sa.Column("host_cpu", text, nullable=False),
        sa.Column("host_os", text, nullable=False),
        sa.Column("host_cores", number, nullable=False),
        sa.Column("host_memory_bytes", size, nullable=False),
        sa.Column("host_bandwidth_bytes_per_s", sa.Float(53)),
        sa.Column("versions", text, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("started_at", moment),
        sa.Column("ended_at", moment),
        sa.Column("imported_at", moment),
        sa.Column("saved_at", moment, nullable=False),
        sa.Column("error", text),
        sa.Column("execution_precision", text),
        sa.Column("kv_precision", text),
        sa.Column("devices_used", text, nullable=False),
        sa.Column("threads", number),
        sa.Column("disk_bytes", size),
        sa.Column("weight_bytes", size),
        sa.Column("decode_tokens_per_s", sa.Float(53)),
        sa.Column("contended", sa.Boolean()),
        sa.Column("figures", text),
        sa.Column("quality", text),
        sa.Column("rounds", text, nullable=False),
    )
    op.create_index("ix_measurements_sweep", "measurements", ["sweep", "position"])
    op.create_index("ix_measurements_created_at", "measurements", ["created_at"])
    op.create_index("ix_measurements_saved_at", "measurements", ["saved_at"])
    op.create_index("ix_measurements_state", "measurements", ["state"])
