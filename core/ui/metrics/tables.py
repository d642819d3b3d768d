"""Tables of all measurements and answers with their conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import streamlit as st

from core.db.measurement_values import Measurement
from core.metrics.labels import runtime_label
from core.metrics.rows import (
    SOURCE_LABELS,
    PointSource,
    precision_label,
    subject_of,
    subject_of_run,
    time_of,
)
from core.metrics.tables import value_of
from core.ui.metrics.data import MAX_TABLE_ANSWERS, Chosen
from core.units import int4_text

if TYPE_CHECKING:
    from core.db.run_values import RunRow

_MB = 1e-6


class _Column(NamedTuple):
    """A column of numbers."""

    path: str
    """Of its value in a measurement."""
    digits: int | None
    """Digits after the point; None: as Streamlit writes it."""
    scale: float = 1


_FIGURES: dict[str, _Column] = {
    "Tokens/s": _Column("figures.decode_tokens_per_s", 1),
    "Low": _Column("figures.decode_low", 1),
    "High": _Column("figures.decode_high", 1),
    "TTFT ms": _Column("figures.ttft_ms.median", 1),
    "TPOT p50 ms": _Column("figures.tpot_ms.median", 2),
    "TPOT p90 ms": _Column("figures.tpot_ms.p90", 2),
    "TPOT p99 ms": _Column("figures.tpot_ms.p99", 2),
    "Prefill tokens/s": _Column("figures.prefill_tokens_per_s", 0),
    "Private MB": _Column("figures.memory_private_bytes", 0, _MB),
    "File-backed MB": _Column("figures.memory_file_backed_bytes", 0, _MB),
    "Private peak MB": _Column("figures.memory_private_peak_bytes", 0, _MB),
    "File-backed peak MB": _Column("figures.memory_file_backed_peak_bytes", 0, _MB),
    "Load s": _Column("figures.load_s", 2),
    "Compile s": _Column("figures.compile_s", 2),
    "CPU cores": _Column("figures.cpu_cores", 2),
    "Other CPU cores": _Column("figures.other_cpu_cores", 2),
    "MBU %": _Column("figures.mbu", 1, 100),
    "Answers": _Column("figures.answers", None),
    "Disk MB": _Column("disk_bytes", 1, _MB),
    "Bandwidth GB/s": _Column("host.bandwidth_bytes_per_s", 1, 1e-9),
}
_QUALITY: dict[str, _Column] = {
    "Perplexity ×": _Column("quality.perplexity_ratio", 3),
    "Same top token %": _Column("quality.top1_agreement", 1, 100),
    "First divergent token": _Column("quality.first_divergent_token", 1),
    "Divergent share %": _Column("quality.divergent_share", 1, 100),
    "Task accuracy %": _Column("quality.task_accuracy", 0, 100),
}


def number(digits: int, help_text: str | None = None) -> Any:
    """Return the format of a column of numbers, with this many digits after the point."""
    return st.column_config.NumberColumn(format=f"%.{digits}f", help=help_text)


_FORMATS = {
    **{
        name: number(column.digits)
        for name, column in (_FIGURES | _QUALITY).items()
        if column.digits is not None
    },
    "Time (UTC)": st.column_config.DatetimeColumn(
        width=160, format="YYYY-MM-DD HH:mm:ss", timezone="UTC"
    ),
    "Error": st.column_config.TextColumn(width="medium"),
    "Cached tokens": st.column_config.NumberColumn(
        help="Prompt tokens from the prefix cache. The TTFT of such an answer is shorter, so it is "
        "left out above."
    ),
    "Contended": st.column_config.CheckboxColumn(
        "Measured while busy",
        help="Other work ran on this machine at the same time, such as another answer, a download "
        "or a conversion, or core-to-core latency was high. The values are not comparable.",
    ),
    "Device asked": st.column_config.TextColumn("Device requested"),
    "Asked on": st.column_config.TextColumn("Origin"),
}
"""Format of columns; others have Streamlit's default format. The keys are also columns of the CSV
file of answers; therefore some columns have another label here."""


def draw_tables(chosen: Chosen) -> None:
    """Draw the measurements and the most recent answers, each in a tab."""
    titles = [f"Benchmark ({len(chosen.measurements):,})", f"Answers ({chosen.answers_in_all:,})"]
    measured = chosen.measurements or not chosen.answers
    benchmark, answers = st.tabs(titles, default=titles[0 if measured else 1])
    with benchmark:
        if chosen.measurements:
            _draw([_measurement_row(each) for each in chosen.measurements], "measurements")
        else:
            st.caption("No measurement matches the filter.")
    with answers:
        if chosen.answers:
            _draw([answer_row(each) for each in chosen.answers], "answers")
        else:
            st.caption("No answer matches the filter.")
        if chosen.answers_in_all > len(chosen.answers):
            st.caption(
                f"The table has the {MAX_TABLE_ANSWERS:,} most recent answers. The charts and the "
                "CSV export have all."
            )


def _draw(rows: list[dict[str, Any]], key: str) -> None:
    filled = [name for name in rows[0] if any(row[name] not in (None, "") for row in rows)]
    st.dataframe(
        rows,
        column_order=filled,
        column_config={name: how for name, how in _FORMATS.items() if name in filled},
        hide_index=True,
        height=min(440, 38 + 35 * len(rows)),
        key=key,
    )


def _measurement_row(measurement: Measurement) -> dict[str, Any]:
    what, subject = measurement.configuration, subject_of(measurement)
    versions, quality = measurement.versions, measurement.quality
    return {
        "Time (UTC)": time_of(measurement),
        "Model": subject.name,
        "Precision": subject.weights,
        "Device": subject.device,
        "Runtime": runtime_label(what.runtime),
        "State": measurement.state.value,
        "Error": measurement.error or "",
        "Prompt tokens": what.prompt_tokens,
        **_scaled(measurement, _FIGURES),
        "Left out (cores apart)": value_of(measurement, "figures.answers_apart") or None,
        "Reference": quality and precision_label(quality.reference),
        **_scaled(measurement, _QUALITY),
        "Contended": subject.contended,
        "New tokens": what.new_tokens,
        "Repeats": what.repeats,
        "Device asked": what.device,
        "INT4 weights": int4_text(**asdict(measurement.int4)) if measurement.int4 else None,
        "Execution": measurement.execution_precision,
        "KV cache": measurement.kv_precision,
        "Threads": measurement.threads,
        "Hints": ", ".join(f"{name}={value}" for name, value in what.hints.items()),
        "Host": subject.host,
        "CPU": subject.host_cpu,
        "OS": measurement.host.os,
        "OpenVINO": versions.get("openvino"),
        "PyTorch": versions.get("torch"),
        "Weights from": what.source,
        "Source": SOURCE_LABELS[subject.source],
    }


def _scaled(measurement: Measurement, columns: Mapping[str, _Column]) -> dict[str, float | None]:
    cells = {}
    for name, column in columns.items():
        value = value_of(measurement, column.path)
        cells[name] = None if value is None else column.scale * value
    return cells


def answer_row(row: RunRow) -> dict[str, Any]:
    """Return the row of an answer, without instruction and answer text."""
    subject = subject_of_run(row)
    private, file_backed = row.memory_private_bytes, row.memory_file_backed_bytes
    return {
        "Time (UTC)": row.started_at,
        "Model": subject.name,
        "Precision": subject.weights,
        "Device": subject.device,
        "Runtime": runtime_label(row.runtime),
        "Tokens/s": row.decode_tokens_per_s,
        "TTFT ms": row.ttft_ms,
        "Prefill tokens/s": row.prefill_tokens_per_s,
        "Prompt tokens": row.prompt_tokens,
        "Cached tokens": row.cached_tokens,
        "New tokens": row.new_tokens,
        "Ended": row.stop_reason,
        "Contended": subject.contended,
        "Private MB": None if private is None else private * _MB,
        "File-backed MB": None if file_backed is None else file_backed * _MB,
        "Load s": row.load_s,
        "Device asked": row.device,
        "Execution": row.execution_precision,
        "KV cache": row.kv_precision,
        "Threads": row.threads,
        "Asked on": str(row.origin),
        "Host": row.host_name,
        "CPU": row.host_cpu,
        "Weights from": row.source,
        "Source": SOURCE_LABELS[PointSource.ANSWERS],
    }
