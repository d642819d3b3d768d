"""Downloads and conversions: running, waiting and finished tasks.

They belong to the engine, so that every tab shows them, also after the page was left.
"""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from core.errors import PaddockError
from core.inference.engine import Engine
from core.store import Stage
from core.store.progress import Progress
from core.store.tasks import TaskKind, TaskState, TaskView
from core.ui.models.hub_access import hub_access
from core.ui.models.results import draw_try_it
from core.ui.widgets.person import manage_button
from core.ui.widgets.safe_text import safe_inline
from core.ui.widgets.slots import place
from core.units import bytes_text, duration_text

_SEEN, _ERROR = "tasks_seen", "task_refused"
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
    st.session_state[_SEEN] = _states(engine)
    every = _BUSY_S if engine.tasks.active() else _IDLE_S
    st.fragment(_draw_all, run_every=every)(engine)


def draw_tasks_of(engine: Engine, key: str) -> None:
    """Draw the running and waiting tasks of one model in short form."""
    ids = [view.id for view in engine.tasks.list() if view.key == key and not view.state.final]
    for task in ids:
        st.fragment(_draw_short, run_every=_BUSY_S)(engine, task)


def _states(engine: Engine) -> dict[int, TaskState]:
    return {view.id: view.state for view in engine.tasks.list()}


def _draw_all(engine: Engine) -> None:
    if _states(engine) != st.session_state.get(_SEEN):
        st.rerun()  # models on disk have changed, too
    if error := st.session_state.pop(_ERROR, None):
        st.error(safe_inline(error), icon=":material/error:")
    views = engine.tasks.list()
    if not views:
        return
    finished = [view for view in views if view.state.final]
    with st.container(key="tasks"):
        for view in views:
            if view not in finished[_MAX_FINISHED:]:
                with st.container(border=True, key=f"task_{view.id}"):
                    _draw_task(engine, view)
        if len(finished) > 1:
            manage_button(
                f"Clear finished ({len(finished)})",
                icon=":material/clear_all:",
                type="tertiary",
                key="dismiss_all",
                on_click=_dismiss_all,
                args=(engine, finished),
            )


def _draw_short(engine: Engine, task: int) -> None:
    view = engine.tasks.get(task)
    if view is None or view.state.final:
        return  # the panel above reruns the page
    with st.container(border=True):
        _draw_head(engine, view, where="card")
        _draw_progress(view)


def _draw_task(engine: Engine, view: TaskView) -> None:
    _draw_head(engine, view, where="panel")
    if view.state is TaskState.FAILED:
        st.error(safe_inline(view.error or "The task failed."), icon=":material/error:")
    if not view.state.final:
        _draw_progress(view)
        if view.log:
            with st.expander(
                "Log", icon=":material/terminal:", type="compact", key=f"log_{view.id}"
            ):
                _draw_log(view)


def _draw_log(view: TaskView) -> None:
    st.code("\n".join(view.log), language=None, wrap_lines=True, height=220)


def _draw_head(engine: Engine, view: TaskView, *, where: str) -> None:
    line = f"{_ICONS[view.state]} **{safe_inline(view.title)}**"
    left, middle, right = (f"{where}_{view.id}_{side}" for side in ("left", "middle", "right"))
    with st.container(horizontal=True, vertical_alignment="center"):
        if not view.state.final:
            st.markdown(line, width="stretch")
            place(left)
            place(middle)
            with place(right):
                manage_button(
                    "Stop",
                    icon=":material/stop:",
                    key=f"stop_{where}_{view.id}",
                    on_click=engine.tasks.stop,
                    args=(view.id,),
                )
            return
        st.markdown(f"{line} · :small[{_outcome(view)}]", width="stretch")
        with place(left):
            _draw_next_step(engine, view)
        with (
            place(middle),
            st.popover("Log", icon=":material/terminal:", type="tertiary", key=f"log_{view.id}"),
        ):
            _draw_log(view)
        with place(right):
            manage_button(
                "Dismiss",
                icon=":material/close:",
                type="tertiary",
                key=f"dismiss_{view.id}",
                on_click=engine.tasks.dismiss,
                args=(view.id,),
            )


def _draw_next_step(engine: Engine, view: TaskView) -> None:
    """Draw the next action for a finished task."""
    if view.state is TaskState.DONE and view.request.precision is not None:
        draw_try_it(view.request.model, view.request.precision)
    if view.state in (TaskState.FAILED, TaskState.STOPPED):
        manage_button(
            "Resume" if view.state is TaskState.STOPPED and _downloading(view) else "Try again",
            icon=":material/refresh:",
            type="tertiary",
            key=f"again_{view.id}",
            on_click=_again,
            args=(engine, view),
        )


def _draw_progress(view: TaskView) -> None:
    if view.state is TaskState.WAITING:
        before = (view.place or 1) - 1
        line = "Next in the queue." if before < 1 else f"{before} ahead of it in the queue."
        st.caption(f":material/schedule: {line}")
        return
    now = view.progress
    message = safe_inline(now.message) if now else "Starting."
    if (share := _share(now)) is not None:
        st.progress(share, text=message)
    else:
        st.caption(f":material/hourglass_top: {message}")
    st.caption(" · ".join([*_stages(view, now), *_figures(view, now)]))


def _share(now: Progress | None) -> float | None:
    """Return the progress of the current step, 0 to 1; of the bytes during a download."""
    if now is None:
        return None
    share = now.fraction
    if now.transfer is not None and now.transfer.total:
        share = now.transfer.done / now.transfer.total
    return None if share is None else min(1.0, max(0.0, share))


def _stages(view: TaskView, now: Progress | None) -> list[str]:
    """Return the stages of a conversion, with the finished and the current ones marked."""
    if view.request.kind is TaskKind.GET or now is None or now.stage not in _STAGES:
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


def _figures(view: TaskView, now: Progress | None) -> list[str]:
    parts = []
    if now is not None and (transfer := now.transfer) is not None:
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


def _dismiss_all(engine: Engine, finished: list[TaskView]) -> None:
    for view in finished:
        engine.tasks.dismiss(view.id)


def _again(engine: Engine, view: TaskView) -> None:
    """Submit the task again, with the current Hugging Face access of this session."""
    try:
        engine.tasks.submit(replace(view.request, access=hub_access()))
    except PaddockError as error:
        st.session_state[_ERROR] = str(error)
    else:
        engine.tasks.dismiss(view.id)
