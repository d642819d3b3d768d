"""What this browser session may use to reach the model hub: token, address, offline switch.

A token that is typed here stays in this session's state on the server. It is never written, logged,
shown or put in a link, and is gone when the tab is closed.
"""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit

import streamlit as st
from streamlit.errors import StreamlitSecretNotFoundError

from core.store.hub import HubAccess
from core.store.hub_errors import PUBLIC_HUB
from core.ui.widgets.person import may_manage
from core.ui.widgets.safe_text import safe_inline

_TOKEN, _OFFLINE, _SECRET = "hub_token", "hub_offline", "HF_TOKEN"


def hub_access() -> HubAccess:
    """Access of this session: what was typed here, else the environment, else the secrets."""
    found = HubAccess.from_environment()
    typed = (st.session_state.get(_TOKEN) or "").strip()
    return replace(
        found,
        token=typed or found.token or _secret_token(),
        offline=found.offline or bool(st.session_state.get(_OFFLINE)),
    )


def hub_url(access: HubAccess) -> str:
    """Where the hub's pages are, without a name and password that the address may hold."""
    parts = urlsplit(access.endpoint or PUBLIC_HUB)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def draw_hub_access() -> HubAccess:
    """Draw the controls and return what they are set to."""
    found = HubAccess.from_environment()
    if not may_manage():
        return hub_access()
    with st.popover("Hub", icon=":material/hub:", key="hub"):
        st.markdown(
            f"Models are fetched from **{safe_inline(hub_url(found))}**"
            + ("." if found.endpoint is None else ", as `HF_ENDPOINT` says.")
        )
        if found.endpoint is None:
            st.caption("For a mirror or a hub of your own, set `HF_ENDPOINT` before the start.")
        st.toggle(
            "Offline",
            value=found.offline,
            disabled=found.offline,
            key=_OFFLINE,
            persist_state="session",
            help="Fetch nothing: only what is on this machine is used. "
            "`HF_HUB_OFFLINE=1` sets it for everybody.",
        )
        st.text_input(
            "Access token",
            type="password",
            key=_TOKEN,
            persist_state="session",
            autocomplete="off",
            placeholder="hf_…",
            help="Needed for gated and private models. Make one of type *Read* in the settings of "
            "your account at the hub. It is kept for this session only, and never written, logged "
            "or shown.",
        )
        st.caption(_token_state(found))
    return hub_access()


def _token_state(found: HubAccess) -> str:
    if st.session_state.get(_TOKEN):
        return ":material/key: The token typed here is used, in this session only."
    if found.token:
        return ":material/key: The token of `HF_TOKEN` is used."
    if _secret_token():
        return ":material/key: The token `HF_TOKEN` of Streamlit's secrets is used."
    return ":material/key_off: No token; open models need none."


def _secret_token() -> str | None:
    try:
        token = st.secrets.get(_SECRET)
    except StreamlitSecretNotFoundError:
        return None
    return str(token).strip() or None if token else None
