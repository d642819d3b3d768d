"""Progress and results of benchmark runs, and resuming them."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

import streamlit as st

from core.benchmark.plan import Plan
from core.benchmark.sweep import Sweep, SweepProgress
from core.db.measurement_values import Measurement, MeasurementState, SweepRecord, SweepState
from core.errors import PaddockError
from core.inference.engine import Engine
from core.metrics.labels import runtime_label
from core.metrics.rows import subject_of
from core.ui.metrics.benchmark import start_benchmark
from core.ui.metrics.filter import show_all
from core.ui.widgets.actions import action, draw_error, place
from core.ui.widgets.resources import shared_benchmark
from core.ui.widgets.safe_text import safe_inline
from core.ui.widgets.state import set_widgets
from core.units import counted, duration_text, milliseconds_text, rate_text

_BUSY_S, _IDLE_S = 1.0, 5.0
"""Refresh intervals of the panel: while a benchmark runs, and otherwise, because another tab may
start one."""

_UNFINISHED = (SweepState.CANCELLED, SweepState.INTERRUPTED)
_ICONS = {
    MeasurementState.WAITING: ":gray[:material/schedule:]",
    MeasurementState.RUNNING: ":blue[:material/autorenew:]",
    MeasurementState.DONE: ":green[:material/check_circle:]",
    MeasurementState.FAILED: ":red[:material/error:]",
    MeasurementState.CANCELLED: ":gray[:material/stop_circle:]",
    MeasurementState.INTERRUPTED: ":orange[:material/power_off:]",
}


def draw_progress() -> None:
    """Draw the current benchmark run, or the result of the last one; updates itself."""
    stage, sweep = _stage(), shared_benchmark().current
    busy = sweep is not None and sweep.running
    st.fragment(_draw, run_every=_BUSY_S if busy else _IDLE_S)(stage)


def draw_unfinished(engine: Engine) -> None:
    """Draw earlier benchmark runs that were not finished, with a button to resume them."""
    sweep = shared_benchmark().current
    if sweep is not None and sweep.running:
        return
    seen = _dismissed() | ({sweep.id} if sweep is not None else set())
    for record in engine.measurements.sweeps():
        if record.state in _UNFINISHED and record.id not in seen:
            _draw_unfinished(record)


def draw_measure_again(engine: Engine) -> None:
    """Draw a button that repeats the latest benchmark, if there was one."""
    records = engine.measurements.sweeps()
    with suppress(PaddockError):  # the plan of an earlier version
        if records:
            plan = Plan.from_json(records[0].plan)
            key = "measure_again"
            action(
                "Measure again", "replay", key, start_benchmark, plan, manage=True, kind="secondary"
            )


def _stage() -> tuple[object, ...]:
    """Return a value that changes with each start, end and new result, to redraw the page."""
    sweep = shared_benchmark().current
    if sweep is None:
        return ()
    rows = sweep.progress().rows
    return (sweep.id, sweep.running, sum(row.figures is not None for row in rows))


def _draw(before: tuple[object, ...]) -> None:
    sweep = shared_benchmark().current
    if _stage() != before:
        if sweep is not None and not sweep.running and before[:2] == (sweep.id, True):
            _show_results(sweep)
        st.rerun()
    if sweep is None or (not sweep.running and sweep.id in _dismissed()):
        return
    progress = sweep.progress()
    with st.container(border=True, key="benchmark"):
        if sweep.running:
            _draw_running(sweep, progress)
        else:
            _draw_ended(sweep, progress)
        if progress.error:
            st.warning(safe_inline(progress.error), icon=":material/warning:")
        with st.expander(
            counted(len(progress.rows), "measurement"), type="compact", key=f"rows_{sweep.id}"
        ):
            st.markdown("\n".join(f"- {_row_line(row)}" for row in progress.rows))


def _show_results(sweep: Sweep) -> None:
    """Show the models of a benchmark that has just ended, and nothing else."""
    models = {subject_of(row).name for row in sweep.progress().rows if row.figures is not None}
    if models:
        show_all()
        set_widgets({"models": sorted(models)})


def _draw_running(sweep: Sweep, progress: SweepProgress) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(
            ":blue[:material/speed:] **Benchmark** · Don't use the machine while it runs",
            width="stretch",
        )
        place("benchmark_left")
        with place("benchmark_right"):
            key = "cancel_benchmark"
            action("Cancel", "stop", key, sweep.cancel, manage=True, kind="secondary")
    message = safe_inline(progress.message)
    if progress.fraction is None:
        st.caption(f":material/hourglass_top: {message}")
    else:
        st.progress(min(1.0, max(0.0, progress.fraction)), text=message)
    counts = Counter(row.state for row in progress.rows)
    measured = f"**{counts[MeasurementState.DONE]}** of {len(progress.rows)} measured"
    if failed := counts[MeasurementState.FAILED]:
        measured += f", :red[{failed} failed]"
    parts = [f"step {progress.done + 1} of {progress.total}", measured]
    if progress.seconds_left is not None:
        parts.append(f"about {duration_text(progress.seconds_left)} left")
    st.caption(" · ".join(parts))


def _draw_ended(sweep: Sweep, progress: SweepProgress) -> None:
    icon = {
        SweepState.DONE: ":green[:material/check_circle:]",
        SweepState.CANCELLED: ":gray[:material/stop_circle:]",
    }.get(sweep.state, ":orange[:material/power_off:]")
    missing = any(row.state.missing for row in progress.rows)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"{icon} **Benchmark** · {safe_inline(progress.message)}", width="stretch")
        with place("benchmark_left"):
            _draw_dismiss(sweep.id)
        with place("benchmark_right"):
            if missing:
                _draw_resume(sweep.id)
    failed = [row for row in progress.rows if row.state is MeasurementState.FAILED]
    for reason, count in Counter(row.error or "The measurement failed." for row in failed).items():
        draw_error(reason + (f" ({count} measurements)" if count > 1 else ""))


def _draw_unfinished(record: SweepRecord) -> None:
    what = "was cancelled" if record.state is SweepState.CANCELLED else "was interrupted"
    with (
        st.container(border=True, key=f"unfinished_{record.id}"),
        st.container(horizontal=True, vertical_alignment="center"),
    ):
        st.markdown(
            f":orange[:material/pause_circle:] A benchmark of {_plan_words(record)} {what} "
            f"({record.created_at:%Y-%m-%d %H:%M} UTC). Its results are kept.",
            width="stretch",
        )
        _draw_dismiss(record.id)
        _draw_resume(record.id)


def _draw_dismiss(sweep_id: str) -> None:
    action("Dismiss", "close", f"dismiss_{sweep_id}", _dismissed().add, sweep_id)


def _draw_resume(sweep_id: str) -> None:
    action(
        "Resume",
        "resume",
        f"resume_{sweep_id}",
        *(shared_benchmark().resume, sweep_id),
        manage=True,
        kind="secondary",
        help="Measure the missing rows: waiting, failed, cancelled and interrupted ones.",
    )


def _dismissed() -> set[str]:
    """Return the benchmark runs dismissed in this session; their rows are kept."""
    return st.session_state.setdefault("sweeps_dismissed", set())


def _plan_words(record: SweepRecord) -> str:
    try:
        plan = Plan.from_json(record.plan)
    except PaddockError:
        return "an earlier version of Paddock"
    names = [*plan.models, *plan.random_models]
    return safe_inline(", ".join(names[:3]) + (" …" if len(names) > 3 else ""))


def _row_line(row: Measurement) -> str:
    what = row.configuration
    name = f"{what.title} · {subject_of(row).weights} · {what.device} · "
    name += f"{runtime_label(what.runtime)} · {what.prompt_tokens}-token prompt"
    line = f"{_ICONS[row.state]} {safe_inline(name)}"
    if row.error:
        return f"{line}: {safe_inline(row.error)}"
    if row.figures is None:
        return line
    figures = row.figures
    return (
        f"{line}: **{rate_text(figures.decode_tokens_per_s)}**, "
        f"first token after {milliseconds_text(figures.ttft_ms.median)}"
    )
