"""Adds a model that is not in the catalogue: a Hugging Face id, a folder, or an OpenVINO IR."""

from __future__ import annotations

import streamlit as st

from core.engine import Engine
from core.errors import PaddockError
from core.store import SourceKind
from core.store import hub as model_hub
from core.store.hub import HubAccess
from core.ui.hub_access import hub_access
from core.ui.link import link_texts
from core.ui.model_access import check_name
from core.ui.model_list import added
from core.ui.opened import open_card
from core.ui.person import may_manage, person
from core.ui.safe_text import safe_inline


def draw_add(engine: Engine) -> None:
    """Draw the form; what is found joins the list with its card open."""
    if not may_manage():
        return
    link_texts("add")
    with (
        st.popover("Add a model", icon=":material/add:", key="add_model"),
        st.form("add_form", border=False),
    ):
        name = st.text_input(
            "Hugging Face id or folder",
            key="add",
            persist_state="session",
            placeholder="org/name, or a path on this machine",
            help="A causal language model: PyTorch weights (safetensors or pytorch_model.bin) or a "
            "ready OpenVINO IR (openvino_model.xml and .bin), at the hub or in a folder.",
        )
        if st.form_submit_button("Look it up", icon=":material/search:"):
            look_up(engine, name or "", hub_access())


def look_up(engine: Engine, name: str, access: HubAccess) -> None:
    """Find a model and draw the page anew with it; a refusal is shown where this is called."""
    try:
        check_name(engine.store, name.strip(), person())
        source = engine.store.resolve(name)
        described = None
        if source.kind is SourceKind.HUB and source.model is None:
            with st.spinner(f"Asking the hub for {safe_inline(source.title)}"):
                described = model_hub.describe(str(source.location), access)
    except PaddockError as error:
        st.error(safe_inline(str(error)), icon=":material/error:")
        return
    added().put(source, described)
    open_card(source.key)
    st.rerun()
