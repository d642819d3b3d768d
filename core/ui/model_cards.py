"""Cards of the Models page."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from core.catalogue import CatalogueModel
from core.catalogue.prompts import prompt_format
from core.engine import Engine
from core.errors import PaddockError
from core.store import StoredModel
from core.ui.safe_text import safe_markdown
from core.units import bytes_text, parameters_text


def draw_loaded(engine: Engine) -> None:
    """The models in memory, each with a button that frees it."""
    loaded = engine.pool.loaded()
    if not loaded:
        return
    with st.container(border=True):
        st.markdown("**In memory now**")
        for info in loaded:
            with st.container(horizontal=True, vertical_alignment="center"):
                use = f"{info.in_use} answering" if info.in_use else f"idle {info.idle_s:.0f} s"
                st.markdown(
                    f"{safe_markdown(info.spec.label)} · "
                    f"{bytes_text(info.facts.memory.private_bytes)} private · {use}",
                    width="stretch",
                )
                if st.button(
                    "Unload",
                    icon=":material/eject:",
                    type="tertiary",
                    key=f"unload_{info.spec.label}",
                ):
                    _try(lambda info=info: engine.pool.unload(info.spec))


def draw_model(engine: Engine, row: CatalogueModel, on_disk: Sequence[StoredModel]) -> None:
    """One model of the catalogue."""
    precisions = ", ".join(stored.precision.label for stored in on_disk)
    state = f" — on disk: {precisions}" if precisions else ""
    with st.expander(
        f"**{row.title}** · {parameters_text(row.parameters)} · {row.licence}{state}",
        icon=":material/lock:" if row.gated else ":material/deployed_code:",
        key=f"model_{row.key}",
    ):
        st.markdown(row.summary)
        facts, limits = st.columns(2)
        with facts:
            shape = row.shape
            st.markdown(
                f"""
- Source: {f"`{row.hub_id}`" if row.hub_id else "embedded in Paddock"}
- Licence: {row.licence}{f" — {row.licence_note}" if row.licence_note else ""}
- Architecture: `{row.architecture}`, {shape.layers} layers of width {shape.hidden}
- Positions: {shape.positions:,} tokens, prompt and answer together
- Prompt format: {prompt_format(row.prompt_format).title}
"""
            )
        with limits:
            st.markdown("**Known limits**")
            limits_text = "\n".join(f"- {limit}" for limit in row.known_limits)
            st.markdown(limits_text or "None is recorded.")
        if row.scores:
            st.markdown(f"**Published scores** ({row.scores_source})")
            st.dataframe([dict(row.scores)], hide_index=True, key=f"scores_{row.key}")
        else:
            st.caption("No published score is recorded.")
        draw_other(engine, on_disk)


def draw_other(engine: Engine, on_disk: Sequence[StoredModel]) -> None:
    """What of a model is on disk, a line each precision."""
    for stored in on_disk:
        manifest = stored.manifest
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(
                f"**{stored.precision.label}** {safe_markdown(manifest.title)} · "
                f"{bytes_text(manifest.folder_bytes)} on disk · converted "
                f"{manifest.created:%Y-%m-%d} in {manifest.duration_s:.0f} s, peak memory "
                f"{bytes_text(manifest.peak_memory_bytes)}",
                width="stretch",
            )
            with st.popover("Delete", icon=":material/delete:", type="tertiary"):
                st.markdown(f"This frees {bytes_text(manifest.folder_bytes)}.")
                if st.button(
                    "Delete it",
                    type="primary",
                    key=f"delete_{stored.key}_{stored.precision}",
                ):
                    _try(lambda stored=stored: engine.delete(stored))


def _try(action) -> None:  # type: ignore[no-untyped-def]
    try:
        action()
    except PaddockError as error:
        st.error(str(error), icon=":material/error:")
    else:
        st.rerun()
