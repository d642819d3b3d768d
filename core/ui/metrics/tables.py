"""Tables of all measurements and answers with their conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import streamlit as st

from core.db.measurement_values import Measurement
from core.metrics.rows import PointSource, precision_label, subject_of, subject_of_run, time_of
from core.ui.metrics.bars import runtime_label
from core.ui.metrics.data import MAX_TABLE_ANSWERS, Chosen
from core.units import int4_text

if TYPE_CHECKING:
    from core.db.run_columns import RunRow

_MB = 1e6


def _number(digits: int) -> Any:
    return st.column_config.NumberColumn(format=f"%.{digits}f")


COLUMNS = {
    "Time (UTC)": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss", timezone="UTC"),
    "Error": st.column_config.TextColumn(width="medium"),
    "Tokens/s": _number(1),
    "Low": _number(1),
    "High": _number(1),
    "TTFT ms": _number(1),
    "TPOT p50 ms": _number(2),
    "TPOT p90 ms": _number(2),
    "TPOT p99 ms": _number(2),
    "Prefill tokens/s": _number(0),
    "Private MB": _number(0),
    "File-backed MB": _number(0),
    "Private peak MB": _number(0),
    "File-backed peak MB": _number(0),
    "Disk MB": _number(1),
    "Load s": _number(2),
    "Compile s": _number(2),
    "CPU cores": _number(2),
    "Other CPU cores": _number(2),
    "MBU %": _number(1),
    "Bandwidth GB/s": _number(1),
    "Perplexity ×": _number(3),
    "Same top token %": _number(1),
    "First divergent token": _number(1),
    "Divergent share %": _number(1),
    "Task accuracy %": _number(0),
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
            _draw(measurement_rows(chosen.measurements), "measurements")
        else:
            st.caption("No measurement matches the filter.")
    with answers:
        if chosen.answers:
            _draw(answer_rows(chosen.answers), "answers")
        else:
            st.caption("No answer matches the filter.")
        if chosen.answers_in_all > len(chosen.answers):
            st.caption(
                f"The table has the {MAX_TABLE_ANSWERS:,} most recent answers. The charts and the "
                "CSV export have all."
            )


def measurement_rows(measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Return one row per measurement; failed ones have their error."""
    return [_measurement_row(each) for each in measurements]


def answer_rows(answers: Sequence[RunRow]) -> list[dict[str, Any]]:
    """Return one row per answer, without instruction and answer text."""
    return [_answer_row(each) for each in answers]


def _draw(rows: list[dict[str, Any]], key: str) -> None:
    filled = [name for name in rows[0] if any(row[name] not in (None, "") for row in rows)]
    shown = {name: how for name, how in COLUMNS.items() if name in filled}
    st.dataframe(
        rows,
        column_order=filled,
        column_config=shown,
        hide_index=True,
        height=min(440, 38 + 35 * len(rows)),
        key=key,
    )


def _measurement_row(measurement: Measurement) -> dict[str, Any]:
    what, subject = measurement.configuration, subject_of(measurement)
    versions = measurement.versions
    return {
        "Time (UTC)": time_of(measurement),
        "Model": subject.name,
        "Precision": subject.weights,
        "Device": subject.device,
        "Runtime": runtime_label(what.runtime),
        "State": measurement.state.value,
        "Error": measurement.error or "",
        "Prompt tokens": what.prompt_tokens,
        **_figures(measurement),
        **_quality(measurement),
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
        "Source": subject.source.label,
    }


def _figures(measurement: Measurement) -> dict[str, Any]:
    figures, bandwidth = measurement.figures, measurement.host.bandwidth_bytes_per_s
    names = (
        "Tokens/s",
        "Low",
        "High",
        "TTFT ms",
        "TPOT p50 ms",
        "TPOT p90 ms",
        "TPOT p99 ms",
        "Prefill tokens/s",
        "Private MB",
        "File-backed MB",
        "Private peak MB",
        "File-backed peak MB",
        "Load s",
        "Compile s",
        "CPU cores",
        "Other CPU cores",
        "MBU %",
        "Answers",
        "Left out (cores apart)",
    )
    values: tuple[Any, ...] = (None,) * len(names)
    if figures is not None:
        tpot = figures.tpot_ms
        values = (
            figures.decode_tokens_per_s,
            figures.decode_low,
            figures.decode_high,
            figures.ttft_ms.median,
            tpot.median if tpot else None,
            tpot.p90 if tpot else None,
            tpot.p99 if tpot else None,
            figures.prefill_tokens_per_s,
            figures.memory_private_bytes / _MB,
            figures.memory_file_backed_bytes / _MB,
            figures.memory_private_peak_bytes / _MB,
            figures.memory_file_backed_peak_bytes / _MB,
            figures.load_s,
            figures.compile_s,
            figures.cpu_cores,
            figures.other_cpu_cores,
            None if figures.mbu is None else 100 * figures.mbu,
            figures.answers,
            figures.answers_apart or None,
        )
    return dict(zip(names, values, strict=True)) | {
        "Disk MB": None if measurement.disk_bytes is None else measurement.disk_bytes / 1e6,
        "Bandwidth GB/s": None if bandwidth is None else bandwidth / 1e9,
    }


def _quality(measurement: Measurement) -> dict[str, Any]:
    quality = measurement.quality
    accuracy = quality.task_accuracy if quality else None
    return {
        "Reference": precision_label(quality.reference) if quality else None,
        "Perplexity ×": quality.perplexity_ratio if quality else None,
        "Same top token %": 100 * quality.top1_agreement if quality else None,
        "First divergent token": quality.first_divergent_token if quality else None,
        "Divergent share %": 100 * quality.divergent_share if quality else None,
        "Task accuracy %": None if accuracy is None else 100 * accuracy,
    }


def _answer_row(row: RunRow) -> dict[str, Any]:
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
        "New tokens": row.new_tokens,
        "Ended": row.stop_reason,
        "Contended": subject.contended,
        "Private MB": None if private is None else private / _MB,
        "File-backed MB": None if file_backed is None else file_backed / _MB,
        "Load s": row.load_s,
        "Device asked": row.device,
        "Execution": row.execution_precision,
        "KV cache": row.kv_precision,
        "Threads": row.threads,
        "Asked on": str(row.origin),
        "Host": row.host_name,
        "CPU": row.host_cpu,
        "Weights from": row.source,
        "Source": PointSource.ANSWERS.label,
    }
