"""Adding a model that is not in the catalogue: a Hugging Face id, a folder, or a GGUF file."""

from __future__ import annotations

import streamlit as st

from core.errors import PaddockError
from core.inference.engine import Engine
from core.store import SourceKind
from core.store import hub as model_hub
from core.store.resolver import several_gguf_files
from core.ui.models.access import check_name
from core.ui.models.hub_access import hub_access
from core.ui.models.list import add_model, open_model
from core.ui.widgets.actions import draw_error
from core.ui.widgets.link import link_texts
from core.ui.widgets.person import may_manage, person
from core.ui.widgets.safe_text import safe_inline
from core.units import bytes_text

_GGUF_FILES = "gguf_files"
"""Session state key: GGUF files of the folder or repository that was looked up last."""


def draw_add(engine: Engine) -> None:
    """Draw the form; the found model is added to the list, with its details open."""
    if not may_manage():
        return
    link_texts("add")
    with st.popover("Add a model", icon=":material/add:", key="add_model"):
        with st.form("add_form", border=False):
            name = st.text_input(
                "Hugging Face id, folder or GGUF file",
                key="add",
                persist_state="session",
                placeholder="org/name, or a path on this machine",
                help="A causal language model: PyTorch weights (safetensors or pytorch_model.bin), "
                "an OpenVINO IR (openvino_model.xml and .bin) or GGUF files, on the Hugging Face "
                "Hub or on this machine.",
            )
            if st.form_submit_button("Look up", icon=":material/search:"):
                look_up(engine, name or "")
        if files := st.session_state.get(_GGUF_FILES):
            with st.form("choose_gguf", border=False):
                file = st.selectbox("GGUF file", files, format_func=files.get, key="add_gguf")
                if st.form_submit_button("Use this file", icon=":material/check:") and file:
                    look_up(engine, file)


def look_up(engine: Engine, name: str) -> None:
    """Look up a model and rerun the page; an error is drawn at the position of the call."""
    access = hub_access()
    st.session_state.pop(_GGUF_FILES, None)
    try:
        check_name(engine.store, name.strip(), person())
        if paths := several_gguf_files(name):
            st.session_state[_GGUF_FILES] = {
                str(path): f"{path.name} ({bytes_text(path.stat().st_size)})" for path in paths
            }
            return
        source, described = engine.store.resolve(name), None
        if source.kind is SourceKind.HUB and source.model is None:
            location = str(source.location)
            with st.spinner(f"Looking up {safe_inline(source.title)} on the Hugging Face Hub"):
                files = [] if source.is_gguf else model_hub.gguf_files(location, access)
                if files:
                    st.session_state[_GGUF_FILES] = {
                        f"{location}:{each.name}": each.text for each in files
                    }
                    return
                described = model_hub.describe(location, access)
    except PaddockError as error:
        draw_error(error)
        return
    add_model(source, described)
    open_model(source.key)
    st.rerun()
