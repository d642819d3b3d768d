"""The tables as this version of Paddock reads and writes them.

``migrations/versions`` builds them; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, MetaData, String, Table

from core.records.columns import (
    CleanText,
    EnumText,
    Figure,
    JsonText,
    MillisecondsText,
    NamesText,
    UtcTime,
)
from core.records.values import Origin, RunState

metadata = MetaData()

runs = Table(
    "runs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("state", EnumText(RunState), nullable=False),
    Column("instance_host", CleanText, nullable=False),
    Column("instance_pid", Integer, nullable=False),
    Column("instance_started", Figure, nullable=False),
    Column("owner", CleanText),
    Column("session", CleanText),
    Column("origin", EnumText(Origin), nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("instruction", CleanText, nullable=False),
    Column("context", CleanText, nullable=False),
    Column("prompt_format", CleanText, nullable=False),
    Column("temperature", Figure, nullable=False),
    Column("top_p", Figure, nullable=False),
    Column("top_k", Integer, nullable=False),
    Column("repetition_penalty", Figure, nullable=False),
    Column("max_new_tokens", Integer, nullable=False),
    Column("greedy", Boolean, nullable=False),
    Column("seed", BigInteger),
    Column("model", CleanText, nullable=False),
    Column("title", CleanText, nullable=False),
    Column("source", CleanText, nullable=False),
    Column("random_weights", Boolean, nullable=False),
    Column("precision", CleanText, nullable=False),
    Column("execution_precision", CleanText),
    Column("kv_precision", CleanText),
    Column("device", CleanText, nullable=False),
    Column("devices_used", NamesText),
    Column("runtime", CleanText, nullable=False),
    Column("threads", Integer),
    Column("hints", JsonText, nullable=False),
    Column("versions", JsonText, nullable=False),
    Column("host_name", CleanText, nullable=False),
    Column("host_cpu", CleanText, nullable=False),
    Column("host_os", CleanText, nullable=False),
    Column("contended", Boolean),
    Column("text", CleanText),
    Column("prompt_tokens", Integer),
    Column("new_tokens", Integer),
    Column("queue_ms", Figure),
    Column("ttft_ms", Figure),
    Column("tpot_ms", Figure),
    Column("decode_tokens_per_s", Figure),
    Column("end_to_end_tokens_per_s", Figure),
    Column("prefill_tokens_per_s", Figure),
    Column("total_ms", Figure),
    Column("load_s", Figure),
    Column("memory_private_bytes", BigInteger),
    Column("memory_file_backed_bytes", BigInteger),
    Column("memory_scope", CleanText),
    Column("stop_reason", CleanText),
    Column("error", CleanText),
    Column("token_times_ms", MillisecondsText),
    Index("ix_runs_started_at", "started_at"),
    Index("ix_runs_model", "model", "started_at"),
    Index("ix_runs_precision", "precision", "started_at"),
    Index("ix_runs_device", "device", "started_at"),
    Index("ix_runs_session", "session", "started_at"),
    Index("ix_runs_owner", "owner", "started_at"),
    Index("ix_runs_state", "state"),
)
