"""Charts of the Metrics page and their arrangement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from core.db.measurement_values import Measurement
from core.errors import RecordsError
from core.inference.engine import Engine
from core.metrics.answer_days import PERCENTILES_FROM
from core.metrics.figures import are_apart
from core.metrics.rows import point_of, subject_of_run
from core.runtimes.spec import RuntimeName
from core.ui.metrics.bars import (
    MAX_ROWS,
    RowKey,
    Rows,
    panel_name,
    point_label,
    unique_labels,
)
from core.ui.metrics.charts import (
    bandwidth_chart,
    decode_chart,
    memory_chart,
    shown_ceilings,
    ttft_chart,
)
from core.ui.metrics.curves import (
    LatencyRun,
    history_chart,
    latency_chart,
    tradeoff_chart,
    tradeoff_points,
)
from core.ui.metrics.data import Chosen
from core.ui.widgets.link import link_choice, one_of
from core.ui.widgets.safe_text import safe_inline
from core.units import milliseconds_text

MAX_LATENCY_OPTIONS = 100
"""Maximum number of measurements, and of answers, in the selection of token latencies."""


def draw_charts(engine: Engine, chosen: Chosen) -> None:
    """Draw all charts, two side by side if there is room."""
    rows = Rows(chosen.points)
    left, right = st.columns(2, gap="medium")
    with left:
        _draw(decode_chart(rows), "decode_rate", "Decode rate of each configuration")
    with right:
        here = [point for point in chosen.points if point.subject.runtime != RuntimeName.REMOTE]
        if here:
            _draw(memory_chart(Rows(here)), "memory", "Memory of each configuration")
        else:
            st.caption("Models of remote servers use no memory on this machine.")
    _draw_notes(rows)
    left, right = st.columns(2, gap="medium")
    with left:
        _draw(ttft_chart(rows), "ttft", "Time to first token of each configuration")
    with right:
        if any(point.mbu is not None for point in rows.points):
            _draw(bandwidth_chart(rows), "bandwidth", "Memory bandwidth used by each configuration")
        else:
            st.caption("Run a benchmark to see how much of the memory bandwidth is used.")
    _draw_one_model(chosen)
    _draw_latency(engine, chosen)


def _draw_one_model(chosen: Chosen) -> None:
    """Draw the charts that compare precisions and devices of one model."""
    rated = [point for point in chosen.points if point.decode is not None]
    names = list(dict.fromkeys(RowKey.of(point.subject).panel for point in rated))
    if not names:
        st.caption("Speed against memory and history need values with a decode rate.")
        return
    labels = {panel_name(panel, names): panel for panel in names}
    newest = RowKey.of(max(rated, key=lambda point: (point.measured, point.when)).subject).panel
    panel = newest
    if len(names) > 1:
        keys = list(labels)
        default = next(key for key, found in labels.items() if found == newest)
        link_choice("model_shown", default, one_of(keys))
        if st.session_state["model_shown"] not in labels:
            st.session_state["model_shown"] = default
        picked = st.selectbox(
            "Model of the next two charts",
            keys,
            key="model_shown",
            persist_state="session",
        )
        panel = labels[picked or default]
    left, right = st.columns(2, gap="medium")
    with left:
        mine = [p for p in tradeoff_points(rated) if RowKey.of(p.subject).panel == panel]
        if mine:
            _draw(tradeoff_chart(mine), "tradeoff", "Decode rate against memory")
        else:
            st.caption("The memory usage of this model is not known.")
    with right:
        past = chosen.history(lambda subject: RowKey.of(subject).panel == panel)
        _draw(history_chart(past), "history", "Decode rate over time")


def _draw(figure: go.Figure, key: str, alt: str) -> None:
    st.plotly_chart(figure, key=key, config={"displayModeBar": False}, alt=alt)


def _draw_notes(rows: Rows) -> None:
    """Draw explanations below the charts of decode rate and memory."""
    notes = [
        "Thin lines show the range from the slowest to the fastest answer; for "
        f"{PERCENTILES_FROM} or more answers in the app, the 10th to 90th percentile."
    ]
    if rows.left_out:
        notes.append(
            f"Only the {MAX_ROWS} most recently measured configurations are shown; "
            f"{rows.left_out} more are in the table below. Use the filter to show them here."
        )
    if any(not point.measured for point in rows.points):
        notes.append(
            "The memory of answers (lighter bars) is the growth of the app's process during "
            "loading and warm-up. For the first model after the start it includes the runtime."
        )
    near = shown_ceilings(rows)
    if any(point.ceiling is not None and point.id not in near for point in rows.points):
        notes.append(
            "Bandwidth ceilings far to the right are only shown in the hover text and in the "
            "bandwidth chart."
        )
    st.caption(" ".join(notes))


def _draw_latency(engine: Engine, chosen: Chosen) -> None:
    options = _latency_options(chosen)
    if not options:
        return
    keys = list(options)
    labels = unique_labels({key: name for key, (name, _) in options.items()}, lambda key: key[:8])
    link_choice("latency", keys[0], one_of(keys))
    if st.session_state["latency"] not in options:
        st.session_state["latency"] = keys[0]
    key = st.selectbox(
        "Token latency of",
        keys,
        format_func=labels.__getitem__,
        key="latency",
        persist_state="session",
        help="A measurement with all its timed answers, or one answer given in the app.",
    )
    try:
        found = options[key or keys[0]][1](engine)
    except RecordsError as error:
        st.error(safe_inline(str(error)), icon=":material/error:")
        return
    if not found.runs:
        st.caption("No token times are stored for this answer.")
        return
    figure = latency_chart(found.runs, found.unit)
    _draw(figure, "token_latency", f"Latency of each {found.unit}")
    st.caption(found.caption)


@dataclass(frozen=True)
class _Latency:
    """Data of the token latency chart and its caption."""

    runs: Sequence[LatencyRun] = ()
    caption: str = ""
    unit: str = "token"


_Read = Callable[[Engine], _Latency]


def _latency_options(chosen: Chosen) -> dict[str, tuple[str, _Read]]:
    """Map the id of each option to its name and a function that reads its token times."""
    options: dict[str, tuple[str, _Read]] = {}
    newest = chosen.measurements[:MAX_LATENCY_OPTIONS]
    several = len({measurement.host.name for measurement in newest}) > 1
    for measurement in newest:
        point = point_of(measurement)
        if point is not None:
            name = f"{point_label(point, name_host=several)} · {point.when:%d %b %H:%M}"
            options[measurement.id] = (name, _reader_of_measurement(measurement.id))
    for row in chosen.answers[:MAX_LATENCY_OPTIONS]:
        if row.new_tokens and row.new_tokens > 1:
            name = (
                f"Answer of {row.started_at:%d %b %H:%M:%S} · {subject_of_run(row).name} · "
                f"{subject_of_run(row).weights} · {row.new_tokens} tokens"
            )
            options[row.id] = (name, _reader_of_answer(row.id, row.ttft_ms, row.new_tokens))
    return options


def _reader_of_measurement(measurement_id: str) -> _Read:
    def read(engine: Engine) -> _Latency:
        measurement = engine.measurements.get(measurement_id)
        if measurement is None:
            return _Latency()
        return _Latency(_latency_runs(measurement), _latency_caption(measurement))

    return read


def _reader_of_answer(run_id: str, ttft_ms: float | None, new_tokens: int) -> _Read:
    def read(engine: Engine) -> _Latency:
        times = engine.runs.token_times(run_id)
        if not times or len(times) < 2:
            return _Latency()
        first = "" if ttft_ms is None else f"First token after {milliseconds_text(ttft_ms)}. "
        caption = f"{first}Run a benchmark for medians and percentiles."
        runs = [LatencyRun("answer", times)]
        if new_tokens == len(times):
            return _Latency(runs, caption)
        share = new_tokens / len(times)
        pieces = f"The server sent pieces of {share:.1f} tokens on average; times are per piece. "
        return _Latency(runs, pieces + caption, "piece")

    return read


def _latency_runs(measurement: Measurement) -> list[LatencyRun]:
    found, figures = [], measurement.figures
    nearest = None if figures is None else figures.nearest_ns
    for number, each in enumerate(measurement.rounds, 1):
        for answer, sample in enumerate(each.samples, 1):
            if len(sample.token_times_ms) > 1:
                name = f"round {number}, answer {answer}"
                if are_apart(sample.core_distance_ns, nearest):
                    name += ", cores apart"
                found.append(LatencyRun(name, sample.token_times_ms))
    return found


def _latency_caption(measurement: Measurement) -> str:
    figures: Any = measurement.figures
    if figures is None:
        return ""
    first = f"First token after {milliseconds_text(figures.ttft_ms.median)} (median)."
    if figures.tpot_ms is None:
        return first
    tpot = figures.tpot_ms
    return (
        f"Between tokens: p50 **{tpot.median:.2f} ms** · p90 **{tpot.p90:.2f} ms** · "
        f"p99 **{tpot.p99:.2f} ms**. {first}"
    )
