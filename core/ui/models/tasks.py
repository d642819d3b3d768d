"""Downloads and conversions: those under way, those that wait, and what became of the others.

They belong to the engine, so every tab shows them, and one that is left finds them again.
"""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from core.engine import Engine
from core.errors import PaddockError
from core.store import Stage
from core.store.progress import Progress
from core.store.tasks import TaskKind, TaskState, TaskView
from core.ui.models.hub_access import hub_access
from core.ui.models.results import draw_try_it
from core.ui.widgets.person import manage_button
from core.ui.widgets.safe_text import safe_inline
from core.ui.widgets.slots import place
from core.units import bytes_text, duration_text

_SEEN, _REFUSED = "tasks_seen", "task_refused"
_BUSY_S, _IDLE_S = 1.0, 5.0
"""How often the panel looks: while something is under way, and otherwise, since another tab or
command may start something."""

_ENDED_SHOWN = 3
"""Ended tasks that are shown, the latest."""

_STAGES = {
    Stage.FETCHING: "Fetch",
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
    """All tasks, the newest first; keeps itself up to date."""
    st.session_state[_SEEN] = _states(engine)
    every = _BUSY_S if engine.tasks.active() else _IDLE_S
    st.fragment(_draw_all, run_every=every)(engine)


def draw_tasks_of(engine: Engine, key: str) -> None:
    """The tasks of one model that are under way or wait, in short."""
    mine = [view.id for view in engine.tasks.list() if view.key == key and not view.state.final]
    for task in mine:
        st.fragment(_draw_short, run_every=_BUSY_S)(engine, task)


def _states(engine: Engine) -> dict[int, TaskState]:
    return {view.id: view.state for view in engine.tasks.list()}


def _draw_all(engine: Engine) -> None:
    if _states(engine) != st.session_state.get(_SEEN):
        st.rerun()  # what is on disk has changed, too
    if refused := st.session_state.pop(_REFUSED, None):
        st.error(safe_inline(refused), icon=":material/error:")
    views = engine.tasks.list()
    if not views:
        return
    ended = [view for view in views if view.state.final]
    with st.container(key="tasks"):
        for view in views:
            if view not in ended[_ENDED_SHOWN:]:
                with st.container(border=True, key=f"task_{view.id}"):
                    _draw_task(engine, view)
        if len(ended) > 1:
            manage_button(
                f"Dismiss all {len(ended)} that have ended",
                icon=":material/clear_all:",
                type="tertiary",
                key="dismiss_all",
                on_click=_dismiss_all,
                args=(engine, ended),
            )


def _draw_short(engine: Engine, task: int) -> None:
    view = engine.tasks.get(task)
    if view is None or view.state.final:
        return  # the panel above draws the page anew
    with st.container(border=True):
        _draw_head(engine, view, where="card")
        _draw_progress(view)


def _draw_task(engine: Engine, view: TaskView) -> None:
    _draw_head(engine, view, where="panel")
    if view.state is TaskState.FAILED:
        st.error(safe_inline(view.error or "It failed."), icon=":material/error:")
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
    """What can be done now that it has ended."""
    if view.state is TaskState.DONE and view.request.precision is not None:
        draw_try_it(view.request.model, view.request.precision)
    if view.state in (TaskState.FAILED, TaskState.STOPPED):
        manage_button(
            "Go on" if view.state is TaskState.STOPPED and _fetched(view) else "Try again",
            icon=":material/refresh:",
            type="tertiary",
            key=f"again_{view.id}",
            on_click=_again,
            args=(engine, view),
        )


def _draw_progress(view: TaskView) -> None:
    if view.state is TaskState.WAITING:
        before = (view.place or 1) - 1
        line = "Next in line." if before < 1 else f"{before} before it in line."
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
    """Share of the present work that is done, 0 to 1: of the bytes while files are fetched."""
    if now is None:
        return None
    share = now.fraction
    if now.transfer is not None and now.transfer.total:
        share = now.transfer.done / now.transfer.total
    return None if share is None else min(1.0, max(0.0, share))


def _stages(view: TaskView, now: Progress | None) -> list[str]:
    """The way of a conversion, with what is done and what is under way."""
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
    """What became of an ended task, in one line."""
    if view.state is TaskState.FAILED:
        return f"failed after {duration_text(view.elapsed_s)}"
    if view.state is TaskState.STOPPED:
        kept = (
            "what was fetched is kept" if _fetched(view) else "nothing of the conversion was kept"
        )
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


def _fetched(view: TaskView) -> bool:
    """Whether files from the hub had begun to come."""
    return view.progress is not None and view.progress.stage is Stage.FETCHING


def _dismiss_all(engine: Engine, ended: list[TaskView]) -> None:
    for view in ended:
        engine.tasks.dismiss(view.id)


def _again(engine: Engine, view: TaskView) -> None:
    """Submit the same once more, with what this session may use at the hub now."""
    try:
        engine.tasks.submit(replace(view.request, access=hub_access()))
    except PaddockError as error:
        st.session_state[_REFUSED] = str(error)
    else:
        engine.tasks.dismiss(view.id)
