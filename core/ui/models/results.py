"""Models on disk: conversion results, and links and buttons to run, verify and delete them."""

from __future__ import annotations

import streamlit as st

from core.catalogue import Precision
from core.errors import PaddockError
from core.inference.engine import Engine
from core.store import StoredModel
from core.store.stored import exactness_text
from core.ui.models.charts import bits_chart
from core.ui.models.list import ListedModel
from core.ui.widgets.navigation import page
from core.ui.widgets.person import in_kiosk, manage_button
from core.ui.widgets.safe_text import safe_inline
from core.units import bytes_text, duration_text, parameters_text

_NOTICE = "models_notice"


def draw_notice() -> None:
    """Draw the result of the last action once."""
    if notice := st.session_state.pop(_NOTICE, None):
        st.toast(notice, icon=":material/check_circle:")


def notify(sentence: str) -> None:
    """Show a message in the next script run."""
    st.session_state[_NOTICE] = sentence


def draw_stored(engine: Engine, model: ListedModel, stored: StoredModel) -> None:
    """Draw the result card of one precision."""
    manifest = stored.manifest
    with st.container(border=True, key=f"stored_{stored.key}_{stored.precision}"):
        st.markdown(f"**{safe_inline(stored.label)}** {safe_inline(stored.title)}")
        st.caption(_conversion_text(stored))
        if manifest.genai is not None and manifest.genai.remark is not None:
            st.info(safe_inline(manifest.genai.remark), icon=":material/info:")
        gguf = manifest.gguf
        if gguf is not None and gguf.deviation is not None:
            st.caption(exactness_text(gguf.deviation))
        with st.container(horizontal=True, gap="medium"):
            before = manifest.source_bytes
            draw_figure("Weights before", bytes_text(before) if before else "—")
            draw_figure("Weights after", bytes_text(manifest.weight_bytes))
            draw_figure("Compression", f"{before / manifest.weight_bytes:.2f} ×" if before else "—")
            draw_figure("Duration", duration_text(manifest.duration_s))
            draw_figure("Peak memory", bytes_text(manifest.peak_memory_bytes))
        st.caption(f"Bits per weight, {parameters_text(manifest.parameters)} parameters")
        st.plotly_chart(
            bits_chart(manifest.weight_types),
            key=f"bits_{stored.key}_{stored.precision}",
            config={"displayModeBar": False},
        )
        _draw_actions(engine, model, stored)


def draw_try_it(model: str, precision: Precision) -> None:
    """Draw a link to the Instruct page with this model selected."""
    st.page_link(
        page("instruct"),
        label="Try it",
        icon=":material/play_arrow:",
        query_params={"model": model, "precision": precision.value},
        help=f"Run this model {precision.phrase} on the Instruct page.",
    )


def _draw_compare(model: ListedModel, precision: Precision) -> None:
    others = [each.precision for each in model.stored if each.precision is not precision]
    default = Precision.INT4 if precision is Precision.INT8 else Precision.INT8
    other = max(others, key=list(Precision)[::-1].index) if others else default
    st.page_link(
        page("compare"),
        label="Compare precisions",
        icon=":material/compare_arrows:",
        query_params={
            "left_model": model.name,
            "left_precision": other.value,
            "right_model": model.name,
            "right_precision": precision.value,
        },
        help=f"{other.label} and {precision.label} side by side"
        + ("." if others else f"; {other.label} is converted when it is first used."),
    )


def _draw_actions(engine: Engine, model: ListedModel, stored: StoredModel) -> None:
    name = f"{stored.key}_{stored.precision}"
    with st.container(horizontal=True, vertical_alignment="center"):
        draw_try_it(model.name, stored.precision)
        _draw_compare(model, stored.precision)
        verify = manage_button(
            "Verify",
            icon=":material/verified:",
            type="tertiary",
            key=f"verify_{name}",
            help="Read all files and compare their checksums with those at conversion.",
        )
        delete = not in_kiosk() and _draw_delete(stored, name)
    if verify:
        _verify(engine, stored)
    if delete:
        _delete(engine, stored)


def _draw_delete(stored: StoredModel, name: str) -> bool:
    """Draw the confirmation; return whether the model is to be deleted."""
    with st.popover("Delete", icon=":material/delete:", type="tertiary", key=f"ask_delete_{name}"):
        size = bytes_text(stored.manifest.folder_bytes)
        title = safe_inline(stored.title)
        st.markdown(f"Delete {title} in {safe_inline(stored.label)}? This frees **{size}**.")
        return manage_button(
            "Delete it", icon=":material/delete:", type="primary", key=f"delete_{name}"
        )


def _verify(engine: Engine, stored: StoredModel) -> None:
    size = bytes_text(stored.manifest.folder_bytes)
    try:
        with st.spinner(f"Reading {size}", show_time=True):
            engine.store.verify(stored, full=True)
    except PaddockError as error:
        st.error(safe_inline(str(error)), icon=":material/error:")
    else:
        count = len(stored.manifest.files)
        st.success(f"All {count} files match their checksums ({size}).", icon=":material/verified:")


def _delete(engine: Engine, stored: StoredModel) -> None:
    try:
        freed = engine.delete(stored)
    except PaddockError as error:
        st.error(safe_inline(str(error)), icon=":material/error:")
        return
    title = safe_inline(stored.title)
    notify(f"{title} in {safe_inline(stored.label)} deleted, {bytes_text(freed)} freed.")
    st.rerun()


def draw_figure(name: str, value: str) -> None:
    """Draw a figure below its name; use a horizontal container for several figures."""
    with st.container(width="content", gap=None):
        st.caption(name)
        st.markdown(f"**{value}**")


def _conversion_text(stored: StoredModel) -> str:
    manifest = stored.manifest
    parts = []
    if (int4 := manifest.int4) is not None:
        group = "one scale per channel" if int4.group_size < 0 else f"group size {int4.group_size}"
        parts += [
            "symmetric" if int4.symmetric else "asymmetric",
            group,
            f"{100 * int4.ratio:.0f} % of the layers requested in INT4",
        ]
        if int4.scale_estimation:
            parts.append("with scale estimation")
    if manifest.int8 is not None:
        parts.append("symmetric" if manifest.int8.symmetric else "asymmetric")
    if manifest.source_of_weights == "ir":
        parts.append("from an OpenVINO model")
    elif manifest.source_of_weights == "checkpoint":
        parts.append("from the PyTorch checkpoint")
    elif manifest.gguf is not None:
        kept = stored.precision is Precision.STORED
        parts.append("as stored in the GGUF file" if kept else "from the GGUF file")
    parts.append(f"{bytes_text(manifest.folder_bytes)} on disk")
    parts.append(f"{manifest.created:%Y-%m-%d %H:%M} UTC")
    line = " · ".join(parts)
    return line[0].upper() + line[1:]
