"""Downloads and conversions: running, waiting and finished tasks.

They belong to the engine, so that every tab shows them, also after the page was left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import streamlit as st

from core.inference.engine import Engine
from core.store import Stage
from core.store.tasks import TaskState, TaskView
from core.ui.models.hub_access import hub_access
from core.ui.widgets.actions import action, draw_error, place
from core.ui.widgets.navigation import draw_try_it
from core.ui.widgets.safe_text import safe_inline, unseen
from core.units import bytes_text, duration_text

_BUSY_S, _IDLE_S = 1.0, 5.0
"""Refresh intervals of the panel: while a task runs, and otherwise, because another tab or command
may start one."""

_MAX_FINISHED = 3
"""Maximum number of finished tasks shown, the most recent ones."""

_STAGES = {
    Stage.FETCHING: "Download",
    Stage.EXPORTING: "Export",
    Stage.COMPRESSING: "Compress",
    Stage.CHECKING: "Check",
    Stage.SAVING: "Save",
}
_ICONS = {
    TaskState.WAITING: ":material/schedule:",
    TaskState.RUNNING: ":material/autorenew:",
    TaskState.DONE: ":green[:material/check_circle:]",
    TaskState.FAILED: ":red[:material/error:]",
    TaskState.STOPPED: ":gray[:material/stop_circle:]",
}


def draw_tasks(engine: Engine) -> None:
    """Draw all tasks, newest first; updates itself."""
    before = _states(engine)  # first: a task that starts meanwhile counts as a change
    every = _BUSY_S if engine.tasks.active() else _IDLE_S
    st.fragment(_draw_all, run_every=every)(engine, before)


def draw_tasks_of(engine: Engine, key: str) -> None:
    """Draw the running and waiting tasks of one model in short form."""
    ids = [view.id for view in engine.tasks.list() if view.key == key and not view.state.final]
    for task in ids:
        st.fragment(_draw_short, run_every=_BUSY_S)(engine, task)


def _states(engine: Engine) -> dict[int, TaskState]:
    return {view.id: view.state for view in engine.tasks.list()}


def _draw_all(engine: Engine, before: Mapping[int, TaskState]) -> None:
    if _states(engine) != before:
        st.rerun()  # models on disk have changed, too
    views = engine.tasks.list()
    if not views:
        return
    finished = [view for view in views if view.state.final]
    with st.container(key="tasks"):
        for view in views:
            if view not in finished[_MAX_FINISHED:]:
                with st.container(border=not view.state.final, key=f"task_{view.id}"):
                    if view.state.final:
                        _draw_finished(engine, view)
                    else:
                        _draw_running(engine, view, where="panel")
        if len(finished) > 1:
            label = f"Clear finished ({len(finished)})"
            action(label, "clear_all", "dismiss_all", _dismiss_all, engine, finished, manage=True)


def _draw_short(engine: Engine, task: int) -> None:
    view = engine.tasks.get(task)
    if view is None or view.state.final:
        return  # the panel above reruns the page
    with st.container(border=True):
        _draw_running(engine, view, where="card")


def _draw_running(engine: Engine, view: TaskView, *, where: str) -> None:
    left, middle, right = (f"{where}_{view.id}_{side}" for side in ("left", "middle", "right"))
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(_heading(view), width="stretch")
        place(left)
        place(middle)
        with place(right):
            action(
                "Stop",
                "stop",
                f"stop_{where}_{view.id}",
                engine.tasks.stop,
                view.id,
                of=view.title,
                manage=True,
                kind="secondary",
            )
    if view.state is TaskState.WAITING:
        before = (view.place or 1) - 1
        line = "Next in the queue." if before < 1 else f"{before} ahead of it in the queue."
        st.caption(f":material/schedule: {line}")
        return
    message = safe_inline(view.progress.message) if view.progress else "Starting."
    if (share := _share(view)) is not None:
        st.progress(share, text=message)
    else:
        st.caption(f":material/hourglass_top: {message}")
    st.caption(" · ".join([*_stages(view), *_figures(view)]))
    if view.log and where == "panel":
        with st.expander("Log", icon=":material/terminal:", type="compact", key=f"log_{view.id}"):
            _draw_log(view)


def _draw_finished(engine: Engine, view: TaskView) -> None:
    left, middle, right = (f"panel_{view.id}_{side}" for side in ("left", "middle", "right"))
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"{_heading(view)} · :small[{_outcome(view)}]", width="stretch")
        with place(left):
            if view.state is not TaskState.DONE:
                resumes = view.state is TaskState.STOPPED and _downloading(view)
                action(
                    "Resume" if resumes else "Try again",
                    "refresh",
                    f"again_{view.id}",
                    _again,
                    engine,
                    view,
                    of=view.title,
                    manage=True,
                )
            elif view.request.converts:
                draw_try_it(
                    view.title, model=view.request.model, precision=view.request.precision.value
                )
        with (
            place(middle),
            st.popover(
                f"Log{unseen(view.title)}",
                icon=":material/terminal:",
                type="tertiary",
                key=f"log_{view.id}",
            ),
        ):
            _draw_log(view)
        with place(right):
            action(
                "Dismiss",
                "close",
                f"dismiss_{view.id}",
                engine.tasks.dismiss,
                view.id,
                of=view.title,
                manage=True,
            )
    if view.state is TaskState.FAILED:
        draw_error(view.error or "The task failed.")


def _heading(view: TaskView) -> str:
    return f"{_ICONS[view.state]} **{safe_inline(view.title)}**"


def _draw_log(view: TaskView) -> None:
    st.code("\n".join(view.log), language=None, wrap_lines=True, height=220)


def _share(view: TaskView) -> float | None:
    """Return the progress of the current step, 0 to 1; of the bytes during a download."""
    now = view.progress
    if now is None:
        return None
    share = now.fraction
    if now.transfer is not None and now.transfer.total:
        share = now.transfer.done / now.transfer.total
    return None if share is None else min(1.0, max(0.0, share))


def _stages(view: TaskView) -> list[str]:
    """Return the stages of a conversion, with the finished and the current ones marked."""
    now = view.progress
    if not view.request.converts or now is None or now.stage not in _STAGES:
        return []
    order = list(_STAGES)
    here = order.index(now.stage)
    shown = [stage for stage in order if stage is not Stage.FETCHING or stage is now.stage]
    words = [
        f"**{_STAGES[stage]}**"
        if stage is now.stage
        else f":green[✓] {_STAGES[stage]}"
        if order.index(stage) < here
        else f":gray[{_STAGES[stage]}]"
        for stage in shown
    ]
    return [" → ".join(words)]


def _figures(view: TaskView) -> list[str]:
    parts = []
    if view.progress is not None and (transfer := view.progress.transfer) is not None:
        parts.append(f"**{bytes_text(transfer.done)}** of {bytes_text(transfer.total)}")
        if transfer.rate:
            parts.append(f"{bytes_text(transfer.rate)}/s")
        if transfer.seconds_left is not None:
            parts.append(f"{duration_text(transfer.seconds_left)} left")
    parts.append(f"{duration_text(view.elapsed_s)} elapsed")
    if view.memory_bytes is not None:
        parts.append(f"memory **{bytes_text(view.memory_bytes)}**")
    if view.peak_memory_bytes is not None:
        parts.append(f"peak {bytes_text(view.peak_memory_bytes)}")
    return parts


def _outcome(view: TaskView) -> str:
    """Return the result of a finished task in one line."""
    if view.state is TaskState.FAILED:
        return f"failed after {duration_text(view.elapsed_s)}"
    if view.state is TaskState.STOPPED:
        kept = "downloaded files are kept" if _downloading(view) else "the conversion was discarded"
        return f"stopped; {kept}"
    parts = [f"done in {duration_text(view.elapsed_s)}"]
    if view.stored is not None:
        manifest = view.stored.manifest
        if before := manifest.source_bytes:
            after = manifest.weight_bytes
            parts.append(
                f"weights {bytes_text(before)} → {bytes_text(after)} ({before / after:.2f} ×)"
            )
        else:
            parts.append(f"{bytes_text(manifest.folder_bytes)} on disk")
        parts.append(f"peak memory {bytes_text(manifest.peak_memory_bytes)}")
    return " · ".join(parts)


def _downloading(view: TaskView) -> bool:
    """Return whether the task is or was in its download stage."""
    return view.progress is not None and view.progress.stage is Stage.FETCHING


# Callbacks


def _dismiss_all(engine: Engine, finished: list[TaskView]) -> None:
    for view in finished:
        engine.tasks.dismiss(view.id)


def _again(engine: Engine, view: TaskView) -> None:
    """Submit the task again, with the current Hugging Face access of this session."""
    engine.tasks.submit(replace(view.request, access=hub_access()))
    engine.tasks.dismiss(view.id)
