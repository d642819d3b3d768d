"""Charts of the Metrics page and their arrangement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from core.db.measurement_values import Measurement
from core.inference.engine import Engine
from core.metrics.answer_days import PERCENTILES_FROM
from core.metrics.figures import are_apart
from core.metrics.frames import most_recent, point_frame
from core.metrics.labels import point_label
from core.metrics.rows import point_of, subject_of_run
from core.ui.metrics.charts import (
    bandwidth_chart,
    history_chart,
    latency_chart,
    memory_chart,
    rate_chart,
    tradeoff_chart,
    ttft_chart,
)
from core.ui.metrics.data import Chosen
from core.ui.widgets.link import link_choice, one_of
from core.units import milliseconds_text

if TYPE_CHECKING:
    from core.db.run_values import RunRow

MAX_ROWS = 24
"""Maximum number of rows of a chart; the most recently measured are shown, with a note."""
MAX_LATENCY_OPTIONS = 100
"""Maximum number of measurements, and of answers, in the selection of token latencies."""


def draw_charts(engine: Engine, chosen: Chosen) -> None:
    """Draw all charts, two side by side if there is room."""
    frame, left_out = most_recent(point_frame(chosen.points), MAX_ROWS)
    left, right = st.columns(2, gap="medium")
    with left:
        _draw(rate_chart(frame), "decode_rate", "Decode rate of each configuration")
    with right:
        if frame["memory"].notna().any():
            _draw(memory_chart(frame), "memory", "Memory of each configuration")
        else:
            st.caption("Models of remote servers use no memory on this machine.")
    _draw_notes(frame, left_out)
    left, right = st.columns(2, gap="medium")
    with left:
        _draw(ttft_chart(frame), "ttft", "Time to first token of each configuration")
    with right:
        if frame["mbu"].notna().any():
            alt = "Memory bandwidth used by each configuration"
            _draw(bandwidth_chart(frame), "bandwidth", alt)
        else:
            st.caption("Run a benchmark to see how much of the memory bandwidth is used.")
    _draw_one_model(chosen)
    _draw_latency(engine, chosen)


def _draw_one_model(chosen: Chosen) -> None:
    """Draw the charts that compare precisions and devices of one model."""
    frame = point_frame([point for point in chosen.points if point.decode is not None])
    if frame.empty:
        st.caption("Speed against memory and history need values with a decode rate.")
        return
    names = list(dict.fromkeys(frame["model"]))
    model = frame.sort_values(["measured", "when"])["model"].iloc[-1]
    if len(names) > 1:
        linked = link_choice("model_shown", model, one_of(names))
        if st.session_state["model_shown"] not in names:
            st.session_state["model_shown"] = model
        model = st.selectbox("Model of the next two charts", names, **linked) or model
    mine = frame[frame["model"] == model]
    left, right = st.columns(2, gap="medium")
    with left:
        if mine["memory"].notna().any():
            _draw(tradeoff_chart(mine), "tradeoff", "Decode rate against memory")
        else:
            st.caption("The memory usage of this model is not known.")
    with right:
        subjects = {point.subject for point in mine["point"]}
        past = point_frame(chosen.history(subjects))
        _draw(history_chart(past), "history", "Decode rate over time")


def _draw(figure: go.Figure, key: str, alt: str) -> None:
    st.plotly_chart(figure, key=key, config={"displayModeBar": False}, alt=alt)


def _draw_notes(frame: pd.DataFrame, left_out: int) -> None:
    """Draw explanations below the charts of decode rate and memory."""
    notes = [
        "Thin lines show the range from the slowest to the fastest answer; for "
        f"{PERCENTILES_FROM} or more answers in the app, the 10th to 90th percentile."
    ]
    if left_out:
        notes.append(
            f"Only the {MAX_ROWS} most recently measured configurations are shown; "
            f"{left_out} more are in the table above. Use the filter to show them here."
        )
    if not frame["measured"].all():
        notes.append(
            "The memory of answers is the growth of the app's process during loading and warm-up. "
            "For the first model after the start it includes the runtime."
        )
    st.caption(" ".join(notes))


def _draw_latency(engine: Engine, chosen: Chosen) -> None:
    measured = {each.id: each for each in chosen.measurements[:MAX_LATENCY_OPTIONS]}
    answers = {
        row.id: row
        for row in chosen.answers[:MAX_LATENCY_OPTIONS]
        if row.new_tokens and row.new_tokens > 1
    }
    several = len({each.host.name for each in measured.values()}) > 1
    labels = {
        each.id: f"{point_label(point, name_host=several)} · {point.when:%d %b %H:%M:%S}"
        for each in measured.values()
        if (point := point_of(each)) is not None
    }
    for row in answers.values():
        subject = subject_of_run(row)
        labels[row.id] = (
            f"Answer of {row.started_at:%d %b %H:%M:%S} · {subject.name} · {subject.weights} · "
            f"{row.new_tokens} tokens"
        )
    if not labels:
        return
    count = Counter(labels.values())
    labels = {
        key: f"{label} ({key[:8]})" if count[label] > 1 else label for key, label in labels.items()
    }
    keys = list(labels)
    linked = link_choice("latency", keys[0], one_of(keys))
    if st.session_state["latency"] not in labels:
        st.session_state["latency"] = keys[0]
    key = st.selectbox(
        "Token latency of",
        keys,
        format_func=labels.__getitem__,
        help="A measurement with all its timed answers, or one answer given in the app.",
        **linked,
    )
    key = key or keys[0]
    if key in answers:
        runs, unit, caption = _of_answer(engine, answers[key])
    else:
        runs, unit, caption = _of_measurement(engine.measurements.get(key))
    if not runs:
        st.caption("No token times are stored for this answer.")
        return
    _draw(latency_chart(runs, unit), "token_latency", f"Latency of each {unit}")
    st.caption(caption)


Latency = tuple[list[tuple[str, Sequence[float]]], str, str]
"""Names and token times of answers, the unit of the times, and the caption of their chart."""


def _of_answer(engine: Engine, row: RunRow) -> Latency:
    times = engine.runs.token_times(row.id)
    if not times or len(times) < 2:
        return [], "token", ""
    first = "" if row.ttft_ms is None else f"First token after {milliseconds_text(row.ttft_ms)}. "
    caption, unit = f"{first}Run a benchmark for medians and percentiles.", "token"
    if row.new_tokens != len(times):
        share, unit = (row.new_tokens or 0) / len(times), "piece"
        caption = (
            f"The server sent pieces of {share:.1f} tokens on average; times are per piece. "
            f"{caption}"
        )
    return [("answer", times)], unit, caption


def _of_measurement(measurement: Measurement | None) -> Latency:
    if measurement is None or (figures := measurement.figures) is None:
        return [], "token", ""
    runs: list[tuple[str, Sequence[float]]] = []
    for number, each in enumerate(measurement.rounds, 1):
        for answer, sample in enumerate(each.samples, 1):
            if len(sample.token_times_ms) > 1:
                name = f"round {number}, answer {answer}"
                if are_apart(sample.core_distance_ns, figures.nearest_ns):
                    name += ", cores apart"
                runs.append((name, sample.token_times_ms))
    caption = f"First token after {milliseconds_text(figures.ttft_ms.median)} (median)."
    if (tpot := figures.tpot_ms) is not None:
        caption = (
            f"Between tokens: p50 **{tpot.median:.2f} ms** · p90 **{tpot.p90:.2f} ms** · "
            f"p99 **{tpot.p99:.2f} ms**. {caption}"
        )
    return runs, "token", caption
