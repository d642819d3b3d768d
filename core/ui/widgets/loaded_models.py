"""List of the loaded models with their configuration, memory and an Unload button."""

from __future__ import annotations

import streamlit as st

from core.errors import PaddockError
from core.inference.engine import Engine
from core.runtimes.pool import LoadedInfo
from core.runtimes.spec import ModelSpec
from core.ui.instruct.history import model_title
from core.ui.widgets.person import manage_button
from core.ui.widgets.safe_text import safe_inline
from core.units import bytes_text, duration_text

_REFUSED = "unload_refused"


def draw_loaded(engine: Engine, *, key: str) -> None:
    """Draw one line per loaded model.

    Args:
        key: prefix of the widget keys, to distinguish several lists.
    """
    for info in engine.pool.loaded():
        with st.container(horizontal=True, wrap=False, vertical_alignment="center"):
            st.markdown(safe_inline(loaded_text(info)), width="stretch")
            manage_button(
                "Unload",
                icon=":material/eject:",
                type="tertiary",
                key=f"{key}_unload_{info.spec}",
                on_click=_unload,
                args=(engine, info.spec),
            )
    if refused := st.session_state.pop(_REFUSED, None):
        st.error(safe_inline(refused), icon=":material/error:")


def loaded_text(info: LoadedInfo) -> str:
    """Return a line that identifies a loaded model and states its memory and use."""
    memory, place = info.facts.memory, info.spec.words[1:]
    return " · ".join(
        (
            model_title(info.spec),
            info.stored.label,
            *place,
            f"{bytes_text(memory.private_bytes)} private + "
            f"{bytes_text(memory.file_backed_bytes)} file-backed",
            f"{info.in_use} running" if info.in_use else f"idle {duration_text(info.idle_s)}",
        )
    )


def _unload(engine: Engine, spec: ModelSpec) -> None:
    """Callback: unload the model; an error is shown in the next run."""
    try:
        engine.pool.unload(spec)
    except PaddockError as error:
        st.session_state[_REFUSED] = str(error)
