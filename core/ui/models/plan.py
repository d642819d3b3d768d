"""Requirements of a model in each precision, and the buttons to download and convert it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import Future

import streamlit as st

from core.catalogue import DEFAULT_PRECISION, MAIN_PRECISIONS, Int8Settings, Precision
from core.errors import DiskFullError, PaddockError
from core.inference.engine import Engine
from core.store.estimate import Estimate
from core.store.gguf.summary import GgufSummary
from core.store.hub import HubAccess, HubModel, find_ready
from core.store.stored import QUANTISED_TWICE, weights_label
from core.store.tasks import TaskRequest
from core.ui.models.add import look_up
from core.ui.models.hub_access import hub_access, hub_url
from core.ui.models.int4_recipe import custom_settings, draw_recipe, pick_recipe
from core.ui.models.list import ListedModel, of_hub
from core.ui.widgets.actions import action, errors_told
from core.ui.widgets.person import in_kiosk, may_manage
from core.ui.widgets.resources import KEPT_S, decode_rates, in_background, rerun_when
from core.ui.widgets.safe_text import safe_inline
from core.units import bytes_text, counted, duration_text, rate_text

log = logging.getLogger(__name__)

Plans = Mapping[Precision, Estimate | PaddockError]

_GOOD_FOR = {
    Precision.STORED: "the weights of the file, the most accurate precision available from it",
    Precision.INT4: "the smallest and usually the fastest, with some loss of quality",
    Precision.INT8: "nearly the quality of the original",
    Precision.FP16: "the quality of the original; can be converted to INT8 and INT4 later",
    Precision.FP32: "the exact reference for comparisons",
}


def draw_plan(engine: Engine, model: ListedModel) -> None:
    """Draw the table of requirements by precision, and the actions."""
    access = hub_access()
    ready = {} if in_kiosk() else _ready_models(model, access)
    _draw_ready(engine, ready, access)
    gguf = model.gguf(engine)
    ir = model.hub.ir if model.hub is not None else None
    unnamed = ir is not None and ir.precision is None  # FP8 and others can only be kept as stored
    kept = unnamed or engine.store.default_precision(model.name) is Precision.STORED
    offered = [
        precision
        for precision in Precision
        if model.get(precision)
        or (precision in MAIN_PRECISIONS and (precision is not Precision.STORED or kept))
    ]
    plans = {precision: model.estimate(engine, precision) for precision in offered}
    known = [plan for plan in plans.values() if isinstance(plan, Estimate)]
    if not known:
        st.warning(safe_inline(str(next(iter(plans.values())))), icon=":material/error:")
        if of_hub(model) and model.hub is None:
            label, key = "Look up on the Hugging Face Hub", f"look_up_{model.key}"
            if action(label, "search", key, manage=True, kind="secondary"):
                look_up(engine, model.name)
        return
    st.markdown("**Requirements on this machine**")
    rates = decode_rates()
    st.table(
        [
            _line(
                model,
                precision,
                plans[precision],
                gguf,
                rates and model.decode_rate(engine, rates, precision),
            )
            for precision in offered
        ],
        border="horizontal",
        hide_index=True,
        hide_header=False,
    )
    download = max(plan.download_bytes for plan in known)
    told = f"The download is **{bytes_text(download)}**. " if download else ""
    told += (
        f"Free now: **{bytes_text(known[0].free_disk)}** on disk and "
        f"**{bytes_text(known[0].free_memory)}** of memory. Times are rough estimates for the "
        "conversion on this machine, without the download."
    )
    if rates is not None:
        told += (
            " Speeds are estimates for answers on this machine's CPU, from its memory bandwidth of "
            f"{bytes_text(rates.bandwidth)}/s"
        )
        if rates.measured:
            told += f" and {counted(len(rates.measured), 'measurement')} here"
        told += "."
    st.caption(told)
    if gguf is not None:
        st.caption(
            f"The weights of the file are {gguf.recipe}. **As stored** keeps them; other "
            f"precisions are converted from the dequantised weights. {QUANTISED_TWICE}"
        )
    if not in_kiosk():
        _draw_actions(engine, model, plans, access, primary=not ready)


def _line(
    model: ListedModel,
    precision: Precision,
    plan: Estimate | PaddockError,
    gguf: GgufSummary | None,
    rate: float | None,
) -> dict[str, str]:
    stored, label = model.get(precision), precision.label
    status, disk, memory, time = ":gray[not available from these weights]", "—", "—", "—"
    if gguf is not None:
        label = weights_label(
            precision, gguf.weights.label if gguf.weights else gguf.recipe, gguf.recipe
        )
    if stored is not None:
        label, status = stored.label, _unbroken(":green[✓ on disk]")
        disk = bytes_text(stored.manifest.folder_bytes)
    elif isinstance(plan, Estimate):
        what = "disk space" if isinstance(plan.error, DiskFullError) else "memory"
        fits = plan.problem is None
        status = _unbroken(":green[✓ fits]") if fits else f":red[not enough {what}]"
        disk, memory = bytes_text(plan.disk_bytes), bytes_text(plan.memory_bytes)
        if plan.scratch_bytes:
            disk += f" (+ {bytes_text(plan.scratch_bytes)} meanwhile)"
        time = _unbroken(f"about {duration_text(plan.seconds)}")
    return {
        "Precision": f"**{safe_inline(label)}**",
        "Status": status,
        "On disk": disk,
        "Peak memory": memory,
        "Time": time,
        "Speed": "—" if rate is None else _unbroken(f"about {rate_text(rate)}"),
    }


def _unbroken(text: str) -> str:
    return text.replace(" ", "\u00a0")


def _draw_actions(
    engine: Engine, model: ListedModel, plans: Plans, access: HubAccess, *, primary: bool
) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        precision = _pick_precision(model, plans)
        plan = plans[precision]
        recommended = plan.int4 if isinstance(plan, Estimate) else None
        custom = None
        if recommended is not None:
            precision = pick_recipe(model, recommended)
            if precision is Precision.INT4_CUSTOM:
                custom = custom_settings(model, recommended)
            plan = model.estimate(engine, precision, custom)
        with st.popover("Settings", icon=":material/tune:", key=f"settings_{model.key}"):
            if recommended is not None and isinstance(plan, Estimate):
                start = recommended if precision is Precision.INT4_CUSTOM else plan.int4
                draw_recipe(model, precision, start or recommended)
            int8 = _draw_settings(model, precision)
        stored = model.get(precision)
        converting = any(
            task.key == model.key and task.request.precision is precision and not task.state.final
            for task in engine.tasks.list()
        )
        problem = _problem(model, plan, access)
        download = plan.download_bytes if isinstance(plan, Estimate) else 0
        if action(
            f"Download and convert {precision.aim}" if download else f"Convert {precision.aim}",
            "bolt",
            f"convert_{model.key}",
            manage=True,
            kind="primary" if primary else "secondary",
            disabled=stored is not None or converting or problem is not None,
        ):  # not a callback, which would have the settings of the previous run
            with errors_told():
                request = TaskRequest(model.name, precision, custom or int8, access)
                engine.tasks.submit(request)
            st.rerun()
        if download:
            action(
                "Download only",
                "download",
                f"get_{model.key}",
                *(engine.tasks.submit, TaskRequest(model.name, access=access)),
                manage=True,
                kind="secondary",
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
        good_for = _GOOD_FOR[precision.base]
        if precision is not Precision.STORED and Precision.STORED in plans:
            good_for = "converted from the dequantised weights of the file; not more accurate"
        st.caption(f"{precision.label}: {good_for}.")
        if isinstance(plan, Estimate) and plan.note:
            st.caption(plan.note)
    if download and model.gated:
        _explain_gate(model, access)


def _pick_precision(model: ListedModel, plans: Plans) -> Precision:
    offered = [
        precision
        for precision, plan in plans.items()
        if isinstance(plan, Estimate) and precision in MAIN_PRECISIONS
    ]
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


def _draw_settings(model: ListedModel, precision: Precision) -> Int8Settings | None:
    """Draw the settings of a precision other than INT4."""
    if precision is Precision.INT8:
        st.markdown("All weights are compressed to 8 bits, with one scale per output channel.")
        symmetric = st.toggle(
            "Symmetric",
            key=f"int8_symmetric_{model.key}",
            persist_state="session",
            help="No zero points: slightly faster on some devices, slightly less accurate.",
        )
        return Int8Settings(symmetric=bool(symmetric))
    if precision is Precision.STORED:
        st.markdown("As stored has no settings: weights are kept as in the file.")
    elif not precision.int4:
        bits = "16" if precision is Precision.FP16 else "32"
        st.markdown(
            f"{precision.label} has no settings: weights are stored as {bits}-bit floats. The "
            "execution precision is selected when the model is loaded."
        )
    return None


def _explain_gate(model: ListedModel, access: HubAccess) -> None:
    hub_id = str(model.row.hub_id) if model.row else model.name.partition(":")[0]
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


# Weights that are ready at the Hugging Face Hub


def _ready_models(model: ListedModel, access: HubAccess) -> dict[Precision, HubModel]:
    """Return the ready repositories of a model; the page is rerun when the Hub has answered.

    Nothing is asked offline, for models whose weights are here already, and for visitors who may
    not download.
    """
    if access.offline or not of_hub(model) or model.stored or not may_manage():
        return {}
    hub_id = model.row.hub_id if model.row else model.name
    future = _asked(str(hub_id), access.endpoint, access)
    rerun_when(future.done)
    return future.result() if future.done() else {}


@st.cache_resource(show_spinner=False, ttl=KEPT_S)
def _asked(
    hub_id: str, endpoint: str | None, _access: HubAccess
) -> Future[dict[Precision, HubModel]]:
    return in_background(_find, hub_id, _access)


def _find(hub_id: str, access: HubAccess) -> dict[Precision, HubModel]:
    try:
        return find_ready(hub_id, access)
    except PaddockError as error:  # no network: the conversion will tell
        log.info("Ready weights of %s are not known: %s", hub_id, error)
        return {}


def _draw_ready(engine: Engine, ready: dict[Precision, HubModel], access: HubAccess) -> None:
    if not ready:
        return
    names = " and ".join(safe_inline(hub.hub_id) for hub in ready.values())
    st.markdown(f":material/bolt: **Ready at the Hub, without a conversion:** {names}")
    with st.container(horizontal=True):
        for at, (precision, hub) in enumerate(ready.items()):
            hub_id = hub.hub_id
            request = TaskRequest(hub_id, precision, access=access)
            action(
                f"Download {precision.label} ({bytes_text(hub.total_bytes)})",
                "download",
                f"ready_{hub_id}",
                *(engine.tasks.submit, request),
                manage=True,
                kind="secondary" if at else "primary",
                disabled=engine.store.get(engine.store.resolve(hub_id), precision) is not None,
            )
