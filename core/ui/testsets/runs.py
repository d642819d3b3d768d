"""Runs of the selected test set: progress, choice, baseline, export."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from core.db import EvaluationState, EvaluationSummary
from core.evaluation.cases import TestSet
from core.evaluation.plan import Candidate, Plan
from core.evaluation.report import Report, to_csv, to_json
from core.evaluation.run import TestRun, plan_of, results_of
from core.inference.engine import Engine
from core.ui.models.access import check_use
from core.ui.testsets.matrix import draw_matrix, draw_summary
from core.ui.widgets.actions import action, confirmed_action, draw_download
from core.ui.widgets.link import link_choice
from core.ui.widgets.person import person
from core.ui.widgets.resources import shared_engine, shared_evaluations
from core.ui.widgets.safe_text import safe_inline
from core.units import counted, duration_text

RUN = "run"
"""Key of the choice, and name of its URL parameter."""
_REPORTS = "test_run_reports"
_KEPT_REPORTS = 3
"""Among them the selected one and the baseline."""
_REFRESH_S = 2.0
_LARGE = 1000
"""Answers of a run whose matrix takes long to draw."""


def start_run(set_id: str, test_set: TestSet, candidates: Sequence[Candidate]) -> None:
    """Start a run and select it.

    Raises:
        PaddockError: it cannot be started.
    """
    someone, engine = person(), shared_engine()
    for candidate in candidates:
        check_use(engine.store, candidate.spec, someone)
    plan = Plan.of(test_set, candidates)
    run = shared_evaluations().start(plan, someone.holder, someone.user, set_id)
    st.session_state[RUN] = run.id


def running_run(rows: Sequence[EvaluationSummary]) -> TestRun | None:
    """Return the one of these runs that is running in this process."""
    live = (shared_evaluations().find(row.id) for row in rows)
    return next((each for each in live if each is not None and each.running), None)


def draw_runs(engine: Engine, listed: Sequence[EvaluationSummary]) -> None:
    """Draw the choice of a run, the newest first, and its results."""
    rows = {row.id: row for row in listed}
    if not rows:
        return
    linked = link_choice(RUN, None, str)
    if st.session_state[RUN] not in rows:
        st.session_state[RUN] = next(iter(rows))
    # With a part of the id: two runs of the same second must not have the same label.
    labels = {row.id: f"{row.created_at:%Y-%m-%d %H:%M:%S} UTC · {row.id[:4]}" for row in listed}
    st.subheader("Results", anchor=False)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="run_row"):
        chosen = st.selectbox(
            "Run",
            labels,
            format_func=lambda each: labels.get(each, ""),
            label_visibility="collapsed",
            width=300,
            **linked,
        )
        row = rows.get(chosen or "", listed[0])
        live = shared_evaluations().find(row.id)
        running = live is not None and live.running
        # Not in the label, which must not change: the browser identifies an option by it.
        state = live.state if live is not None else row.state
        if state is not EvaluationState.DONE:
            st.badge(state.value, color="blue" if running else "orange")
        if row.pinned:
            st.badge("baseline", icon=":material/keep:", color="green")
        report = _stored(engine, row) if live is None else Report.of_run(live.plan, live.results())
        baseline = next((each for each in listed if each.pinned), None)
        reference = None if baseline is None or baseline.id == row.id else _stored(engine, baseline)
        if live is not None and running:
            action("Stop", "stop", "stop_run", live.stop, kind="secondary")
        else:
            _draw_actions(engine, row, report, reference)
    interval = _REFRESH_S if report.total <= _LARGE else 5 * _REFRESH_S
    st.fragment(_draw, run_every=interval if running else None)(
        row.id, live, report, reference, running=running
    )


def _draw(
    run_id: str, live: TestRun | None, report: Report, reference: Report | None, *, running: bool
) -> None:
    """Draw the results; again and again while the run is running."""
    if live is not None:
        if running and not live.running:
            st.rerun()
        report = Report.of_run(live.plan, live.results())
        progress = live.progress()
        if live.running:
            left = ""
            if progress.seconds_left is not None:
                left = f" · about {duration_text(progress.seconds_left)} left"
            st.progress(
                progress.done / progress.total,
                text=f"{progress.done} of {counted(progress.total, 'answer')}{left} · "
                f"{safe_inline(progress.message)}",
            )
            st.caption("You can leave this page; the run goes on.")
        if progress.problem:
            problem = f"Not stored yet: {safe_inline(progress.problem)}"
            st.warning(problem, icon=":material/database_off:")
    draw_summary(report, reference)
    draw_matrix(report, reference, run_id)


def _draw_actions(
    engine: Engine, row: EvaluationSummary, report: Report, reference: Report | None
) -> None:
    store, holder = engine.evaluations, person().holder
    missing = sum(each.unanswered for each in report.summaries())
    if missing or any(result.error for result in report.results):
        label = "Resume" if missing else "Repeat failed answers"
        action(label, "resume", "resume_run", _resume, engine, row.id, kind="secondary")
    action(
        "Unpin baseline" if row.pinned else "Pin as baseline",
        "keep_off" if row.pinned else "keep",
        "pin_run",
        lambda: store.pin(row.id, holder, pinned=not row.pinned),
        help="Other runs of this set show which cases regressed since the baseline, and which were "
        "mended.",
    )
    with st.popover("Export", icon=":material/download:", type="tertiary", key="export_run"):
        st.caption("JSON can be the baseline of `python -m core evaluate --baseline`.")
        draw_download("paddock-test-run.json", lambda: to_json(report, reference), "run_json")
        draw_download("paddock-test-run.csv", lambda: to_csv(report), "run_csv")
    confirmed_action(
        "Delete",
        "delete",
        f"delete_run_{row.id}",
        "Delete this run with its answers?",
        *(store.delete_run, row.id, holder),
        answer="Delete the run",
    )


def _resume(engine: Engine, run_id: str) -> None:
    """Callback."""
    someone = person()
    row = engine.evaluations.run(run_id, someone.holder)
    for candidate in plan_of(row).candidates if row is not None else ():
        check_use(engine.store, candidate.spec, someone)
    shared_evaluations().resume(run_id, someone.holder, someone.user)


def _stored(engine: Engine, row: EvaluationSummary) -> Report:
    """Return a stored run; an ended one is read once, as thousands of results take long."""
    kept: dict[object, Report] = st.session_state.setdefault(_REPORTS, {})
    key = row.id, row.ended_at
    if row.ended_at is not None and key in kept:
        return kept[key]
    whole = engine.evaluations.run(row.id, person().holder)
    if whole is None:  # deleted in another tab
        st.rerun()
    report = Report.of_run(plan_of(whole), results_of(engine.evaluations, row.id))
    if row.ended_at is not None:
        kept[key] = report
        for old in list(kept)[:-_KEPT_REPORTS]:
            del kept[old]
    return report
