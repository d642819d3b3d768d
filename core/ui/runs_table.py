"""Runs as the rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from core.records import RunRecord

COLUMNS = {
    "Started (UTC)": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss", timezone="UTC"),
    "Tokens/s": st.column_config.NumberColumn(format="%.1f"),
    "TTFT ms": st.column_config.NumberColumn(format="%.1f"),
    "Load s": st.column_config.NumberColumn(format="%.2f"),
}
"""How the columns that are not shown as they are, are shown."""


def runs_table(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """One row a run, with the conditions its figures were measured under."""
    return [_row(run) for run in runs]


def _row(run: RunRecord) -> dict[str, Any]:
    start, result = run.start, run.result
    row: dict[str, Any] = {
        "Started (UTC)": start.started_at,
        "Model": start.title,
        "Precision": start.precision.upper(),
        "Device asked": start.device,
    }
    if result is not None:
        row |= {
            "Device used": ", ".join(result.devices_used),
            "Tokens/s": result.decode_tokens_per_s,
            "TTFT ms": result.ttft_ms,
            "Prompt tokens": result.prompt_tokens,
            "New tokens": result.new_tokens,
            "Ended": result.stop_reason,
            "Contended": result.contended,
            "Execution": result.execution_precision,
            "KV cache": result.kv_precision,
            "Threads": result.threads,
            "Load s": result.load_s,
        }
    versions = start.versions
    row |= {
        "Runtime": start.runtime,
        "Seed": None if start.greedy else str(start.seed),
        "OpenVINO": versions.get("openvino"),
        "Host": start.host_name,
    }
    return row
