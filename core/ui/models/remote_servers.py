"""Remote servers: add, show state and remove them, and their models in the model selectors."""

from __future__ import annotations

import streamlit as st

from core.errors import PaddockError
from core.inference.engine import Engine
from core.remotes import Directory, Listing, Remote, model_name, split_name
from core.remotes.registry import key_variable
from core.runtimes.spec import ModelSpec
from core.ui.widgets.actions import action, confirmed_action, draw_error, errors_told
from core.ui.widgets.navigation import draw_try_it
from core.ui.widgets.person import may_manage, person
from core.ui.widgets.resources import rerun_when
from core.ui.widgets.safe_text import safe_inline
from core.units import counted

_NAME, _URL, _KEY = "remote_name", "remote_url", "remote_key"
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


def _add(engine: Engine) -> None:
    """Callback: store and test the server in the form."""
    state = st.session_state
    with errors_told():
        person().access.check_manage()
        remote = engine.add_remote(state[_NAME] or "", state[_URL] or "", state[_KEY] or "")
        state[_NAME] = state[_URL] = state[_KEY] = ""
        engine.remotes.directory.ask(remote)


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
        if action("Test", "network_check", f"test_{remote.name}", of=remote.name, manage=True):
            with st.spinner(f"Requesting the model list from {safe_inline(remote.host)}"):
                engine.remotes.directory.ask(remote).result()
            st.rerun()
        if not remote.from_environment:
            confirmed_action(
                "Remove",
                "delete",
                f"remove_{remote.name}",
                f"Remove **{remote.name}** and its API key? Its answers are kept.",
                engine.remove_remote,
                remote.name,
                of=remote.name,
                manage=True,
            )
    if known is not None and known.error is not None:
        st.warning(safe_inline(str(known.error)), icon=":material/cloud_off:")
    facts = []
    if known is not None:
        facts += [safe_inline(known.software)] if known.software else []
        times = {"round trip": known.round_trip_ms, "connected in": known.connect_ms}
        facts += [f"{name} {ms:.1f} ms" for name, ms in times.items() if ms is not None]
    has_key = ":material/key: has an API key"
    facts.append(has_key if remote.has_key else ":material/key_off: no API key")
    if remote.from_environment:
        facts.append(f"set by `PADDOCK_REMOTES`, API key by `{key_variable(remote.name)}`")
    st.caption(" · ".join(facts))
    if known is None:
        return
    for model in known.models[:_MAX_MODELS]:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(safe_inline(model), width="stretch")
            draw_try_it(model, model=model_name(remote.name, model))
    if (more := len(known.models) - _MAX_MODELS) > 0:
        st.caption(f"and {more} more in the model selectors")


def _badge(known: Listing | None) -> str:
    if known is None:
        return ":gray-badge[:material/cloud_sync: connecting]"
    if not known.reachable:
        return ":red-badge[:material/cloud_off: not available]"
    if known.error is not None:
        return ":orange-badge[:material/cloud_alert: no model list]"
    return f":green-badge[:material/cloud_done: {counted(len(known.models), 'model')}]"


# In the model selectors


def follow_listings(directory: Directory) -> None:
    """Rerun the page when the first model list of each remote server has arrived."""
    rerun_when(lambda: not directory.waiting)


def draw_remote_state(directory: Directory, spec: ModelSpec) -> None:
    """Draw where a remote model runs, and whether its server is available."""
    try:
        name, model = split_name(spec.model)
        remote = directory.book.get(name)
    except PaddockError as error:
        draw_error(error)
        return
    known, host = directory.listing(remote), safe_inline(remote.host)
    if known is None:
        st.caption(f":material/cloud_sync: Requesting the model list from {host}.")
    elif not known.reachable:
        st.warning(safe_inline(str(known.error)), icon=":material/cloud_off:")
    elif known.error is None and model not in known.models:
        st.warning(f"{host} does not list this model.", icon=":material/cloud_alert:")
    else:
        st.caption(
            f":material/cloud: Runs on {host}, over the network. The server selects precision, "
            "device and prompt format. Your instruction is sent there."
        )
