"""Access to the Hugging Face Hub in this browser session: token, endpoint, offline mode.

A token entered here is kept in the session state on the server. It is never written, logged, shown
or put in a link, and is discarded when the tab is closed.
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
    """Return this session's access: the token from the page, the environment or the secrets."""
    found = HubAccess.from_environment()
    entered = (st.session_state.get(_TOKEN) or "").strip()
    return replace(
        found,
        token=entered or found.token or _secret_token(),
        offline=found.offline or bool(st.session_state.get(_OFFLINE)),
    )


def hub_url(access: HubAccess) -> str:
    """Return the URL of the Hub, without user name and password."""
    parts = urlsplit(access.endpoint or PUBLIC_HUB)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def draw_hub_access() -> None:
    """Draw the controls of :func:`hub_access`."""
    found = HubAccess.from_environment()
    if not may_manage():
        return
    with st.popover("Hugging Face access", icon=":material/hub:", key="hub"):
        st.markdown(
            f"Models are downloaded from **{safe_inline(hub_url(found))}**"
            + ("." if found.endpoint is None else " (set by `HF_ENDPOINT`).")
        )
        if found.endpoint is None:
            st.caption("To use a mirror, set `HF_ENDPOINT` before the start.")
        st.toggle(
            "Offline",
            value=found.offline,
            disabled=found.offline,
            key=_OFFLINE,
            persist_state="session",
            help="Only use files on this machine, without downloads. "
            "`HF_HUB_OFFLINE=1` sets this for all users.",
        )
        st.text_input(
            "Access token",
            type="password",
            key=_TOKEN,
            persist_state="session",
            autocomplete="off",
            placeholder="hf_…",
            help="Required for gated and private models. Create a token of type *Read* in the "
            "settings of your Hugging Face account. It is kept for this session only, and never "
            "written, logged or shown.",
        )
        st.caption(_token_state(found))


def _token_state(found: HubAccess) -> str:
    if st.session_state.get(_TOKEN):
        return ":material/key: The token entered here is used, in this session only."
    if found.token:
        return ":material/key: The token from `HF_TOKEN` is used."
    if _secret_token():
        return ":material/key: The token `HF_TOKEN` from Streamlit's secrets is used."
    return ":material/key_off: No token is set. Open models do not need one."


def _secret_token() -> str | None:
    try:
        token = st.secrets.get(_SECRET)
    except StreamlitSecretNotFoundError:
        return None
    return str(token).strip() or None if token else None
