"""Precisions on disk: a line for each, with links and buttons to run, verify and delete it."""

from __future__ import annotations

import streamlit as st

from core.catalogue import Precision
from core.errors import PaddockError
from core.inference.engine import Engine
from core.store import StoredModel
from core.store.stored import exactness_text
from core.store.tasks import TaskRequest
from core.ui.models.charts import formats_chart
from core.ui.models.hub_access import hub_access
from core.ui.models.list import ListedModel
from core.ui.widgets.actions import action, confirmed_action, draw_error, tell
from core.ui.widgets.navigation import draw_try_it, page
from core.ui.widgets.safe_text import safe_inline, unseen
from core.units import bytes_text, duration_text, parameters_text


def draw_stored(engine: Engine, model: ListedModel, stored: StoredModel) -> None:
    """Draw a precision on disk in one line, with its actions, and what must be known of it."""
    manifest, name = stored.manifest, f"{stored.key}_{stored.precision}"
    title, size = f"{stored.title} {stored.label}", bytes_text(manifest.folder_bytes)

    def delete() -> None:
        freed = engine.delete(stored)
        tell(f"{stored.title} in {stored.label} deleted, {bytes_text(freed)} freed.")

    with st.container(key=f"stored_{name}", gap=None):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(
                f":green[:material/check_circle:] **{safe_inline(stored.label)}** · "
                f"{size} on disk · {manifest.created:%Y-%m-%d}",
                width="stretch",
            )
            draw_try_it(
                f"{model.title} {stored.label}", model=model.name, precision=stored.precision.value
            )
            with st.popover(
                f"More{unseen(f'about {title}')}",
                icon=":material/more_horiz:",
                type="tertiary",
                key=f"more_{name}",
            ):
                _draw_more(engine, model, stored)
            confirmed_action(
                "Delete",
                "delete",
                f"delete_{name}",
                f"Delete {safe_inline(stored.title)} in {safe_inline(stored.label)}? This frees "
                f"**{size}**.",
                delete,
                of=title,
                manage=True,
            )
        if engine.store.is_outdated(stored):
            _draw_outdated(engine, stored)
        if manifest.genai is not None and manifest.genai.remark is not None:
            st.info(safe_inline(manifest.genai.remark), icon=":material/info:")


def _draw_more(engine: Engine, model: ListedModel, stored: StoredModel) -> None:
    """Draw how a precision was made, what its weights are, and further actions."""
    manifest, name = stored.manifest, f"{stored.key}_{stored.precision}"
    st.caption(_conversion_text(stored))
    if manifest.gguf is not None and manifest.gguf.deviation is not None:
        st.caption(exactness_text(manifest.gguf.deviation))
    with st.container(horizontal=True, gap="medium"):
        before = manifest.source_bytes
        draw_figure("Weights before", bytes_text(before) if before else "—")
        draw_figure("Weights after", bytes_text(manifest.weight_bytes))
        draw_figure("Compression", f"{before / manifest.weight_bytes:.2f} ×" if before else "—")
        draw_figure("Duration", duration_text(manifest.duration_s))
        draw_figure("Peak memory", bytes_text(manifest.peak_memory_bytes))
    st.caption(f"Formats of the {parameters_text(manifest.parameters)} parameters")
    st.plotly_chart(
        formats_chart(stored.formats), key=f"bits_{name}", config={"displayModeBar": False}
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        _draw_compare(model, stored.precision)
        verify = action(
            "Verify",
            "verified",
            f"verify_{name}",
            of=f"{stored.title} {stored.label}",
            manage=True,
            help="Read all files and compare their checksums with those at conversion.",
        )
    if not verify:
        return
    size = bytes_text(manifest.folder_bytes)
    try:
        with st.spinner(f"Reading {size}", show_time=True):
            engine.store.verify(stored, full=True)
    except PaddockError as error:
        draw_error(error)
    else:
        sentence = f"All {len(manifest.files)} files match their checksums ({size})."
        st.success(sentence, icon=":material/verified:")


def _draw_outdated(engine: Engine, stored: StoredModel) -> None:
    """Say that the source has changed, with a button to convert it again."""
    with st.container(horizontal=True, vertical_alignment="center"):
        where = safe_inline(stored.manifest.source.location)
        st.warning(
            f"The files in {where} have changed since the conversion. Make this model anew; its "
            "next use does it, too.",
            icon=":material/update:",
        )
        compression = None if stored.kept_unchanged else stored.compression
        request = TaskRequest(stored.name, stored.precision, compression, hub_access())
        action(
            "Make anew",
            "refresh",
            f"anew_{stored.key}_{stored.precision}",
            *(engine.tasks.submit, request),
            manage=True,
            kind="secondary",
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
            "greedy": "true",
        },
        help=f"{other.label} and {precision.label} side by side"
        + ("." if others else f"; {other.label} is converted when it is first used."),
    )


def draw_figure(name: str, value: str) -> None:
    """Draw a figure below its name; use a horizontal container for several figures."""
    with st.container(width="content", gap=None):
        st.caption(name)
        st.markdown(f"**{value}**")


def _conversion_text(stored: StoredModel) -> str:
    manifest = stored.manifest
    parts = []
    if stored.int4 is not None:
        parts.append(stored.int4.text)
    if manifest.int8 is not None:
        parts.append(manifest.int8.text)
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
