"""List of the loaded models with their configuration, memory and an Unload button."""

from __future__ import annotations

import streamlit as st

from core.inference.engine import Engine
from core.runtimes.pool import LoadedInfo
from core.ui.instruct.conversation import model_title
from core.ui.widgets.actions import action
from core.ui.widgets.safe_text import safe_inline
from core.units import bytes_text, duration_text


def draw_loaded(engine: Engine, *, key: str) -> None:
    """Draw one line per loaded model; the key begins those of the widgets."""
    for info in engine.pool.loaded():
        with st.container(horizontal=True, wrap=False, vertical_alignment="center"):
            st.markdown(safe_inline(loaded_text(info)), width="stretch")
            action(
                "Unload",
                "eject",
                f"{key}_unload_{info.spec}",
                engine.pool.unload,
                info.spec,
                of=f"{model_title(info.spec)} {info.stored.label}",
                manage=True,
            )


def loaded_text(info: LoadedInfo) -> str:
    """Return a line that identifies a loaded model and states its memory and use."""
    memory, place = info.facts.memory, info.spec.words[1:]
    return " · ".join(
        (
            model_title(info.spec),
            info.stored.label,
            *place,
            *(["prefix cache"] if info.spec.prefix_cache else []),
            f"{bytes_text(memory.private_bytes)} private + "
            f"{bytes_text(memory.file_backed_bytes)} file-backed",
            f"{info.in_use} running" if info.in_use else f"idle {duration_text(info.idle_s)}",
        )
    )
