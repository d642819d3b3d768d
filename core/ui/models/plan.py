"""What a model will take here in each precision, and the buttons that get and convert it."""

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
from core.engine import Engine
from core.errors import PaddockError
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
    Precision.STORED: "the file's own weights, the most accurate that can be had from it",
    Precision.INT4: "the smallest and usually the fastest, at some loss of quality",
    Precision.INT8: "nearly the original's quality",
    Precision.FP16: "the original's quality; INT8 and INT4 can be made from it later",
    Precision.FP32: "the exact reference, for comparisons",
}


def draw_plan(engine: Engine, model: ListedModel, access: HubAccess) -> None:
    """The table of what each precision will take, and what can be done about it."""
    st.markdown("**What it will take here**")
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
                "Look it up at the hub", icon=":material/search:", key=f"look_up_{model.key}"
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
        f"**{bytes_text(known[0].free_memory)}** of memory. Times are those of the conversion "
        "alone, roughly, on this machine."
    )
    if gguf is not None:
        st.caption(
            f"The file's weights are {gguf.recipe}. **As stored** keeps them; the other precisions "
            f"are made from the dequantised weights. {QUANTISED_TWICE}"
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
        "Here": ":gray[:material/do_not_disturb_on: not from these weights]",
        "Download": "—",
        "On disk": "—",
        "Peak memory": "—",
        "Time": "—",
    }
    if stored is not None:
        line["Here"] = ":green[:material/check_circle:\u00a0on\u00a0disk]"
        line["On disk"] = bytes_text(stored.manifest.folder_bytes)
    elif isinstance(plan, Estimate):
        scratch = f" (+ {bytes_text(plan.scratch_bytes)} meanwhile)" if plan.scratch_bytes else ""
        line["Here"] = _fit(plan)
        line["Download"] = bytes_text(plan.download_bytes) if plan.download_bytes else "—"
        line["On disk"] = bytes_text(plan.disk_bytes) + scratch
        line["Peak memory"] = bytes_text(plan.memory_bytes)
        line["Time"] = f"about\u00a0{duration_text(plan.seconds)}"
    return line


def _fit(plan: Estimate) -> str:
    if plan.problem is None:
        return ":green[:material/check_circle:\u00a0fits]"
    what = "memory" if plan.short_of_memory else "disk"
    return f":red[:material/block:\u00a0too\u00a0little {what}]"


def _draw_actions(engine: Engine, model: ListedModel, plans: Plans, access: HubAccess) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        precision = _pick_precision(model, plans)
        plan = plans[precision]
        with st.popover("Settings", icon=":material/tune:", key=f"settings_{model.key}"):
            int8 = _draw_settings(model, precision)
        stored = model.get(precision)
        under_way = _under_way(engine, model, precision)
        refusal = _refusal(model, plan, access)
        download = plan.download_bytes if isinstance(plan, Estimate) else 0
        convert = manage_button(
            f"Get and convert {precision.aim}" if download else f"Convert {precision.aim}",
            icon=":material/bolt:",
            type="primary",
            key=f"convert_{model.key}",
            disabled=stored is not None or under_way or refusal is not None,
        )
        get = download > 0 and manage_button(
            "Only get it",
            icon=":material/download:",
            key=f"get_{model.key}",
            disabled=access.offline,
            help="Fetch the original now and convert it later.",
        )
    if stored is not None:
        again = " To make it with other settings, delete it first."
        st.caption(f"{precision.label} is on disk.{'' if precision is Precision.STORED else again}")
    elif under_way:
        st.caption(f"{precision.label} is being made.")
    elif refusal:
        st.warning(safe_inline(refusal), icon=":material/block:")
    else:
        good_for = _GOOD_FOR[precision]
        if precision is not Precision.STORED and Precision.STORED in plans:
            good_for = "made from the file's dequantised weights, and no more accurate than they"
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
    """Queue a task and draw the page anew; a refusal is shown where this is called."""
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
    usual = Precision.STORED if Precision.STORED in plans else DEFAULT_PRECISION
    preferred = usual if usual in (missing or offered) else None
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


def _under_way(engine: Engine, model: ListedModel, precision: Precision) -> bool:
    return any(
        view.key == model.key and view.request.precision is precision and not view.state.final
        for view in engine.tasks.list()
    )


def _refusal(model: ListedModel, plan: Estimate | PaddockError, access: HubAccess) -> str | None:
    """Why this cannot be started, as a sentence."""
    if not isinstance(plan, Estimate):
        return str(plan)
    if plan.problem is not None:
        return plan.problem
    if plan.download_bytes and access.offline:
        return f"{model.title} is to be fetched and Offline is on; switch it off under Hub."
    return None


# Settings for those who know.


def _draw_settings(model: ListedModel, precision: Precision) -> Int8Settings | None:
    """The expert panel of a precision; INT4's choices are read by :func:`_chosen_int4`."""
    if precision is Precision.INT4:
        _draw_int4(model)
    elif precision is Precision.INT8:
        st.markdown("Every weight becomes 8 bits, with one scale per output channel.")
        symmetric = st.toggle(
            "Symmetric",
            key=f"int8_symmetric_{model.key}",
            persist_state="session",
            help="Without a zero point: a little faster on some devices, a little less accurate.",
        )
        return Int8Settings(symmetric=bool(symmetric))
    elif precision is Precision.STORED:
        st.markdown("As stored has nothing to set: each weight is kept as the file has it.")
    else:
        bits = "16" if precision is Precision.FP16 else "32"
        st.markdown(
            f"{precision.label} has nothing to set: each weight is kept as a {bits}-bit float. "
            "What the device computes in is chosen when the model is loaded."
        )
    return None


def _draw_int4(model: ListedModel) -> None:
    usual = _usual_int4(model)
    keep = {"persist_state": "session"}
    st.markdown("Most weights become 4 bits, in groups that share a scale; the rest become 8 bits.")
    sizes = sorted({*_GROUP_SIZES, usual.group_size})
    st.selectbox(
        "Group size",
        sizes,
        index=sizes.index(usual.group_size),
        format_func=lambda size: "one scale per channel" if size == PER_CHANNEL else str(size),
        key=f"int4_group_{model.key}",
        help="Weights that share one scale. Smaller groups are more accurate and a little larger.",
        **keep,
    )
    st.slider(
        "Share of layers in INT4",
        0.0,
        1.0,
        value=usual.ratio,
        step=0.05,
        key=f"int4_ratio_{model.key}",
        help="The other layers stay in INT8: those that suffer most from four bits, by the size of "
        "their rounding error.",
        **keep,
    )
    st.toggle(
        "Symmetric",
        value=usual.symmetric,
        key=f"int4_symmetric_{model.key}",
        help="Without a zero point: faster on some devices and needed on an NPU, less accurate.",
        **keep,
    )
    st.toggle(
        "Scale estimation",
        value=usual.scale_estimation,
        key=f"int4_scale_{model.key}",
        help="Fits the scales to texts that the model writes itself, so nothing is downloaded: "
        "usually a little more accurate, and several times slower.",
        **keep,
    )
    st.button(
        "The usual settings",
        icon=":material/undo:",
        type="tertiary",
        key=f"int4_usual_{model.key}",
        disabled=_chosen_int4(model) == usual,
        on_click=_to_usual,
        args=(model,),
    )


def _usual_int4(model: ListedModel) -> Int4Settings:
    return model.row.int4 if model.row else default_int4()


def _chosen_int4(model: ListedModel) -> Int4Settings:
    """What the expert panel is set to; the usual settings where it was not opened."""
    usual, state = _usual_int4(model), st.session_state
    return Int4Settings(
        symmetric=bool(state.get(f"int4_symmetric_{model.key}", usual.symmetric)),
        group_size=int(state.get(f"int4_group_{model.key}", usual.group_size)),
        ratio=float(state.get(f"int4_ratio_{model.key}", usual.ratio)),
        scale_estimation=bool(state.get(f"int4_scale_{model.key}", usual.scale_estimation)),
    )


def _to_usual(model: ListedModel) -> None:
    usual = _usual_int4(model)
    set_widgets(
        {
            f"int4_symmetric_{model.key}": usual.symmetric,
            f"int4_group_{model.key}": usual.group_size,
            f"int4_ratio_{model.key}": usual.ratio,
            f"int4_scale_{model.key}": usual.scale_estimation,
        }
    )


# Gated models.


def _is_gated(model: ListedModel) -> bool:
    return model.row.gated if model.row else bool(model.hub and model.hub.gated)


def _explain_gate(model: ListedModel, access: HubAccess) -> None:
    hub_id = model.row.hub_id if model.row else model.name
    with st.container(border=True):
        st.markdown(
            ":material/lock: **The hub hands this model out to those who accepted its licence.**\n"
            "1. Sign in at the hub, open the model's page and accept the licence there.\n"
            "2. Make an access token of type *Read* in the settings of the same account.\n"
            "3. Give it here: under **Hub** above for this session, or as `HF_TOKEN` before the "
            "start."
        )
        with st.container(horizontal=True, vertical_alignment="center"):
            if of_hub(model):
                st.link_button(
                    "Open its page", f"{hub_url(access)}/{hub_id}", icon=":material/open_in_new:"
                )
            st.caption(
                ":green[:material/key: A token is set.]" if access.token else "No token is set yet."
            )
