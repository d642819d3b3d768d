"""Requirements of a model in each precision, and the buttons to download and convert it."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from core.catalogue import (
    DEFAULT_PRECISION,
    Int4Settings,
    Int8Settings,
    Precision,
    default_int4,
)
from core.errors import PaddockError
from core.inference.engine import Engine
from core.store.estimate import Estimate
from core.store.gguf.reader import GgufSummary
from core.store.hub import HubAccess
from core.store.stored import QUANTISED_TWICE, weights_label
from core.store.tasks import TaskKind, TaskRequest
from core.ui.models.add import look_up
from core.ui.models.hub_access import hub_url
from core.ui.models.list import ListedModel, of_hub
from core.ui.widgets.person import in_kiosk, manage_button
from core.ui.widgets.safe_text import safe_inline
from core.ui.widgets.state import set_widgets
from core.units import bytes_text, duration_text

Plans = Mapping[Precision, Estimate | PaddockError]

PER_CHANNEL = -1
_GROUP_SIZES = (PER_CHANNEL, 16, 32, 64, 128, 256)

_GOOD_FOR = {
    Precision.STORED: "the weights of the file, the most accurate precision available from it",
    Precision.INT4: "the smallest and usually the fastest, with some loss of quality",
    Precision.INT8: "nearly the quality of the original",
    Precision.FP16: "the quality of the original; can be converted to INT8 and INT4 later",
    Precision.FP32: "the exact reference for comparisons",
}


def draw_plan(engine: Engine, model: ListedModel, access: HubAccess) -> None:
    """Draw the table of requirements by precision, and the actions."""
    st.markdown("**Requirements on this machine**")
    int4 = _chosen_int4(model)
    gguf = model.gguf(engine)
    offered = [
        precision
        for precision in Precision
        if precision is not Precision.STORED or gguf is not None or model.get(precision)
    ]
    plans = {precision: model.estimate(engine, precision, int4) for precision in offered}
    known = [plan for plan in plans.values() if isinstance(plan, Estimate)]
    if not known:
        st.warning(safe_inline(str(next(iter(plans.values())))), icon=":material/error:")
        if (
            of_hub(model)
            and model.hub is None
            and manage_button(
                "Look up on the Hugging Face Hub",
                icon=":material/search:",
                key=f"look_up_{model.key}",
            )
        ):
            look_up(engine, model.name, access)
        return
    st.table(
        [_line(model, precision, plans[precision], gguf) for precision in offered],
        border="horizontal",
        hide_index=True,
        hide_header=False,
    )
    st.caption(
        f"Free now: **{bytes_text(known[0].free_disk)}** on disk and "
        f"**{bytes_text(known[0].free_memory)}** of memory. Times are rough estimates for the "
        "conversion on this machine, without the download."
    )
    if gguf is not None:
        st.caption(
            f"The weights of the file are {gguf.recipe}. **As stored** keeps them; other "
            f"precisions are converted from the dequantised weights. {QUANTISED_TWICE}"
        )
    if not in_kiosk():
        _draw_actions(engine, model, plans, access)


def _line(
    model: ListedModel,
    precision: Precision,
    plan: Estimate | PaddockError,
    gguf: GgufSummary | None,
) -> dict[str, str]:
    stored = model.get(precision)
    label = precision.label
    if stored is not None:
        label = stored.label
    elif gguf is not None:
        weights = gguf.weights.label if gguf.weights else gguf.recipe
        label = weights_label(precision, weights, gguf.recipe)
    line = {
        "Precision": f"**{safe_inline(label)}**",
        "Status": ":gray[:material/do_not_disturb_on: not available from these weights]",
        "Download": "—",
        "On disk": "—",
        "Peak memory": "—",
        "Time": "—",
    }
    if stored is not None:
        line["Status"] = ":green[:material/check_circle:\u00a0on\u00a0disk]"
        line["On disk"] = bytes_text(stored.manifest.folder_bytes)
    elif isinstance(plan, Estimate):
        scratch = (
            f" (+ {bytes_text(plan.scratch_bytes)} during conversion)" if plan.scratch_bytes else ""
        )
        line["Status"] = _fit(plan)
        line["Download"] = bytes_text(plan.download_bytes) if plan.download_bytes else "—"
        line["On disk"] = bytes_text(plan.disk_bytes) + scratch
        line["Peak memory"] = bytes_text(plan.memory_bytes)
        line["Time"] = f"about\u00a0{duration_text(plan.seconds)}"
    return line


def _fit(plan: Estimate) -> str:
    if plan.problem is None:
        return ":green[:material/check_circle:\u00a0fits]"
    what = "memory" if plan.short_of_memory else "disk space"
    return f":red[:material/block:\u00a0not\u00a0enough {what}]"


def _draw_actions(engine: Engine, model: ListedModel, plans: Plans, access: HubAccess) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        precision = _pick_precision(model, plans)
        plan = plans[precision]
        with st.popover("Settings", icon=":material/tune:", key=f"settings_{model.key}"):
            int8 = _draw_settings(model, precision)
        stored = model.get(precision)
        converting = _is_converting(engine, model, precision)
        problem = _problem(model, plan, access)
        download = plan.download_bytes if isinstance(plan, Estimate) else 0
        convert = manage_button(
            f"Download and convert {precision.aim}" if download else f"Convert {precision.aim}",
            icon=":material/bolt:",
            type="primary",
            key=f"convert_{model.key}",
            disabled=stored is not None or converting or problem is not None,
        )
        get = download > 0 and manage_button(
            "Download only",
            icon=":material/download:",
            key=f"get_{model.key}",
            disabled=access.offline,
            help="Download the original weights now and convert them later.",
        )
    if stored is not None:
        again = " To convert it with other settings, delete it first."
        st.caption(f"{precision.label} is on disk.{'' if precision is Precision.STORED else again}")
    elif converting:
        st.caption(f"{precision.label} is being converted.")
    elif problem:
        st.warning(safe_inline(problem), icon=":material/block:")
    else:
        good_for = _GOOD_FOR[precision]
        if precision is not Precision.STORED and Precision.STORED in plans:
            good_for = "converted from the dequantised weights of the file; not more accurate"
        st.caption(f"{precision.label}: {good_for}.")
    if download and _is_gated(model):
        _explain_gate(model, access)
    if convert:
        chosen_int4 = _chosen_int4(model) if precision is Precision.INT4 else None
        submit(engine, model.name, TaskKind.CONVERT, access, precision, chosen_int4, int8)
    if get:
        submit(engine, model.name, TaskKind.GET, access)


def submit(
    engine: Engine,
    name: str,
    kind: TaskKind,
    access: HubAccess,
    precision: Precision | None = None,
    int4: Int4Settings | None = None,
    int8: Int8Settings | None = None,
) -> None:
    """Queue a task and rerun the page; an error is drawn at the position of the call."""
    request = TaskRequest(
        model=name, kind=kind, precision=precision, int4=int4, int8=int8, access=access
    )
    try:
        engine.tasks.submit(request)
    except PaddockError as error:
        st.error(safe_inline(str(error)), icon=":material/error:")
    else:
        st.rerun()


def _pick_precision(model: ListedModel, plans: Plans) -> Precision:
    offered = [precision for precision, plan in plans.items() if isinstance(plan, Estimate)]
    missing = [precision for precision in offered if model.get(precision) is None]
    default = Precision.STORED if Precision.STORED in plans else DEFAULT_PRECISION
    preferred = default if default in (missing or offered) else None
    chosen = st.segmented_control(
        "Precision",
        offered,
        default=preferred or (missing or offered)[-1],
        format_func=lambda value: value.label,
        required=True,
        key=f"precision_{model.key}",
        persist_state="session",
    )
    return chosen or offered[0]


def _is_converting(engine: Engine, model: ListedModel, precision: Precision) -> bool:
    return any(
        view.key == model.key and view.request.precision is precision and not view.state.final
        for view in engine.tasks.list()
    )


def _problem(model: ListedModel, plan: Estimate | PaddockError, access: HubAccess) -> str | None:
    """Return the reason why this cannot be started, or None."""
    if not isinstance(plan, Estimate):
        return str(plan)
    if plan.problem is not None:
        return plan.problem
    if plan.download_bytes and access.offline:
        return (
            f"{model.title} must be downloaded, but Offline is on. Turn it off under Hugging Face "
            "access."
        )
    return None


# Advanced settings


def _draw_settings(model: ListedModel, precision: Precision) -> Int8Settings | None:
    """Draw the settings of a precision; those of INT4 are read by :func:`_chosen_int4`."""
    if precision is Precision.INT4:
        _draw_int4(model)
    elif precision is Precision.INT8:
        st.markdown("All weights are compressed to 8 bits, with one scale per output channel.")
        symmetric = st.toggle(
            "Symmetric",
            key=f"int8_symmetric_{model.key}",
            persist_state="session",
            help="No zero points: slightly faster on some devices, slightly less accurate.",
        )
        return Int8Settings(symmetric=bool(symmetric))
    elif precision is Precision.STORED:
        st.markdown("As stored has no settings: weights are kept as in the file.")
    else:
        bits = "16" if precision is Precision.FP16 else "32"
        st.markdown(
            f"{precision.label} has no settings: weights are stored as {bits}-bit floats. The "
            "execution precision is selected when the model is loaded."
        )
    return None


def _draw_int4(model: ListedModel) -> None:
    default = _default_int4(model)
    keep = {"persist_state": "session"}
    st.markdown(
        "Most weights are compressed to 4 bits, in groups that share a scale; the rest to 8 bits."
    )
    sizes = sorted({*_GROUP_SIZES, default.group_size})
    st.selectbox(
        "Group size",
        sizes,
        index=sizes.index(default.group_size),
        format_func=lambda size: "one scale per channel" if size == PER_CHANNEL else str(size),
        key=f"int4_group_{model.key}",
        help="Weights that share one scale. Smaller groups are more accurate and slightly larger.",
        **keep,
    )
    st.slider(
        "Share of layers in INT4",
        0.0,
        1.0,
        value=default.ratio,
        step=0.05,
        key=f"int4_ratio_{model.key}",
        help="The other layers are compressed to INT8: those with the largest rounding error in "
        "INT4.",
        **keep,
    )
    st.toggle(
        "Symmetric",
        value=default.symmetric,
        key=f"int4_symmetric_{model.key}",
        help="No zero points: faster on some devices, required on an NPU, less accurate.",
        **keep,
    )
    st.toggle(
        "Scale estimation",
        value=default.scale_estimation,
        key=f"int4_scale_{model.key}",
        help="Fits the scales to texts generated by the model itself, so nothing is downloaded. "
        "Usually slightly more accurate; the conversion takes several times longer.",
        **keep,
    )
    st.button(
        "Default settings",
        icon=":material/undo:",
        type="tertiary",
        key=f"int4_usual_{model.key}",
        disabled=_chosen_int4(model) == default,
        on_click=_reset_int4,
        args=(model,),
    )


def _default_int4(model: ListedModel) -> Int4Settings:
    return model.row.int4 if model.row else default_int4()


def _chosen_int4(model: ListedModel) -> Int4Settings:
    """Return the INT4 settings from the widgets; the defaults if they were not drawn."""
    default, state = _default_int4(model), st.session_state
    return Int4Settings(
        symmetric=bool(state.get(f"int4_symmetric_{model.key}", default.symmetric)),
        group_size=int(state.get(f"int4_group_{model.key}", default.group_size)),
        ratio=float(state.get(f"int4_ratio_{model.key}", default.ratio)),
        scale_estimation=bool(state.get(f"int4_scale_{model.key}", default.scale_estimation)),
    )


def _reset_int4(model: ListedModel) -> None:
    default = _default_int4(model)
    set_widgets(
        {
            f"int4_symmetric_{model.key}": default.symmetric,
            f"int4_group_{model.key}": default.group_size,
            f"int4_ratio_{model.key}": default.ratio,
            f"int4_scale_{model.key}": default.scale_estimation,
        }
    )


# Gated models


def _is_gated(model: ListedModel) -> bool:
    return model.row.gated if model.row else bool(model.hub and model.hub.gated)


def _explain_gate(model: ListedModel, access: HubAccess) -> None:
    hub_id = model.row.hub_id if model.row else model.name
    with st.container(border=True):
        st.markdown(
            ":material/lock: **This model is gated: you must accept its licence first.**\n"
            "1. Sign in to the Hugging Face Hub, open the model's page and accept the licence.\n"
            "2. Create an access token of type *Read* in the settings of the same account.\n"
            "3. Enter it under **Hugging Face access** above for this session, or set `HF_TOKEN` "
            "before the start."
        )
        with st.container(horizontal=True, vertical_alignment="center"):
            if of_hub(model):
                st.link_button(
                    "Open model page", f"{hub_url(access)}/{hub_id}", icon=":material/open_in_new:"
                )
            st.caption(
                ":green[:material/key: A token is set.]" if access.token else "No token is set yet."
            )
