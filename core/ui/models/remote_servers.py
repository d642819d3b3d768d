"""Remote servers on the Models page: add, show state, remove."""

from __future__ import annotations

import streamlit as st

from core.errors import PaddockError
from core.inference.engine import Engine
from core.remotes import Listing, Remote, model_name
from core.remotes.registry import key_variable
from core.ui.models.remote_models import follow_listings
from core.ui.widgets.navigation import page
from core.ui.widgets.person import in_kiosk, manage_button, may_manage, person
from core.ui.widgets.safe_text import safe_inline

_NAME, _URL, _KEY = "remote_name", "remote_url", "remote_key"
_ERROR = "remote_refused"
_MAX_MODELS = 8
"""Maximum number of models shown for each server."""


def draw_add_server(engine: Engine) -> None:
    """Draw the form; the entered key is removed from the session state when it is stored."""
    if not may_manage():
        return
    with (
        st.popover("Add a server", icon=":material/cloud:", key="add_server"),
        st.form("server_form", border=False),
    ):
        st.markdown(
            "Add a server with an OpenAI-compatible API (OpenVINO Model Server, vLLM, another "
            "Paddock). All users of this Paddock can use its models."
        )
        st.text_input("Name", key=_NAME, placeholder="office", max_chars=32)
        st.text_input(
            "Base URL",
            key=_URL,
            placeholder="http://box:8000/v1",
            help="Usually ends with `/v1`; with `/v3` for OpenVINO Model Server.",
        )
        st.text_input(
            "API key",
            key=_KEY,
            type="password",
            autocomplete="off",
            placeholder="if required",
            help="Stored in a file of the home folder that only its owner can read, sent to this "
            "server only, and never shown again.",
        )
        st.form_submit_button("Add and test", icon=":material/add:", on_click=_add, args=(engine,))
        if error := st.session_state.pop(_ERROR, None):
            st.error(safe_inline(error), icon=":material/error:")


def draw_servers(engine: Engine) -> None:
    """Draw all remote servers with their last known state."""
    directory = engine.remotes.directory
    remotes = directory.book.list()
    if not remotes:
        return
    st.subheader("Remote servers", anchor=False)
    for remote in remotes:
        with st.container(border=True, key=f"server_{remote.name}", gap="small"):
            _draw_server(engine, remote, directory.listing(remote))
    follow_listings(directory)


def _draw_server(engine: Engine, remote: Remote, known: Listing | None) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(
            f"**{remote.name}** &nbsp; {_badge(known)} &nbsp; {safe_inline(remote.url)}",
            width="stretch",
        )
        if manage_button(
            "Test",
            icon=":material/network_check:",
            type="tertiary",
            key=f"test_{remote.name}",
        ):
            with st.spinner(f"Requesting the model list from {safe_inline(remote.host)}"):
                engine.remotes.directory.ask(remote).result()
            st.rerun()
        _draw_remove(engine, remote)
    if known is not None and known.error is not None:
        st.warning(safe_inline(str(known.error)), icon=":material/cloud_off:")
    st.caption(" · ".join(_facts(remote, known)))
    if known is not None and known.models:
        _draw_models(remote, known)


def _badge(known: Listing | None) -> str:
    if known is None:
        return ":gray-badge[:material/cloud_sync: connecting]"
    if not known.reachable:
        return ":red-badge[:material/cloud_off: not available]"
    if known.error is not None:
        return ":orange-badge[:material/cloud_alert: no model list]"
    noun = "model" if len(known.models) == 1 else "models"
    return f":green-badge[:material/cloud_done: {len(known.models)} {noun}]"


def _facts(remote: Remote, known: Listing | None) -> list[str]:
    facts = []
    if known is not None and known.software is not None:
        facts.append(safe_inline(known.software))
    if known is not None and known.round_trip_ms is not None:
        facts.append(f"round trip {known.round_trip_ms:.1f} ms")
    if known is not None and known.connect_ms is not None:
        facts.append(f"connected in {known.connect_ms:.1f} ms")
    facts.append(
        ":material/key: has an API key" if remote.has_key else ":material/key_off: no API key"
    )
    if remote.from_environment:
        facts.append(f"set by `PADDOCK_REMOTES`, API key by `{key_variable(remote.name)}`")
    return facts


def _draw_models(remote: Remote, known: Listing) -> None:
    for model in known.models[:_MAX_MODELS]:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(safe_inline(model), width="stretch")
            st.page_link(
                page("instruct"),
                label="Try it",
                icon=":material/play_arrow:",
                query_params={"model": model_name(remote.name, model)},
            )
    if (more := len(known.models) - _MAX_MODELS) > 0:
        st.caption(f"and {more} more in the model selectors")


def _draw_remove(engine: Engine, remote: Remote) -> None:
    if remote.from_environment or in_kiosk():
        return
    with st.popover(
        "Remove", icon=":material/delete:", type="tertiary", key=f"ask_remove_{remote.name}"
    ):
        st.markdown(f"Remove **{remote.name}** and its API key? Its answers are kept.")
        manage_button(
            "Remove it",
            icon=":material/delete:",
            type="primary",
            key=f"remove_{remote.name}",
            on_click=_remove,
            args=(engine, remote.name),
        )


# Callbacks


def _add(engine: Engine) -> None:
    state = st.session_state
    try:
        person().access.check_manage()
        remote = engine.add_remote(state[_NAME] or "", state[_URL] or "", state[_KEY] or "")
    except PaddockError as error:
        state[_ERROR] = str(error)
        return
    state[_NAME] = state[_URL] = state[_KEY] = ""
    engine.remotes.directory.ask(remote)


def _remove(engine: Engine, name: str) -> None:
    try:
        engine.remove_remote(name)
    except PaddockError as error:
        st.session_state[_ERROR] = str(error)
