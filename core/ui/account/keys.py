"""API keys on the Account page, with which programs use the API on behalf of the user."""

from __future__ import annotations

from datetime import UTC, datetime

import streamlit as st

from core.auth.keys import MAX_KEYS, MAX_NAME_LENGTH
from core.db import ApiKey
from core.inference.engine import Engine
from core.server.paths import V1
from core.ui.account.profile import ago_text, change, day_text
from core.ui.widgets.actions import confirmed_action, errors_told
from core.ui.widgets.person import Person, person
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.safe_text import safe_inline

_NEW_KEY = "new_api_key"
_NAME, _LIFETIME = "api_key_name", "api_key_life"
_LIFETIME_DAYS: dict[str, int | None] = {
    "30 days": 30,
    "90 days": 90,
    "1 year": 365,
    "Until revoked": None,
}

_EXAMPLE = """\
export PADDOCK_KEY=pdk_…
curl {url}{v1}/chat/completions \\
  -H "Authorization: Bearer $PADDOCK_KEY" -H "Content-Type: application/json" \\
  -d '{{"model": "paddock-neox", "messages": [{{"role": "user",
       "content": "Name three advantages of being a cat."}}]}}'"""


def draw_keys(engine: Engine, someone: Person) -> None:
    """Draw the user's keys, the form for a new one, and an example request."""
    keys = engine.accounts.keys.listing(someone.owner)
    st.subheader("API keys", anchor=False)
    st.caption(
        "With an API key, programs can use this server's OpenAI-compatible API on your behalf. A "
        "key gives no access to the pages and stays valid when you change your password."
    )
    with st.container(border=True, key="api_keys"):
        if secret := st.session_state.pop(_NEW_KEY, None):
            st.success(
                "Copy your key now. It is not stored and cannot be shown again.",
                icon=":material/key:",
            )
            st.code(secret, language=None, wrap_lines=True)
        for key in keys:
            with st.container(horizontal=True, wrap=False, vertical_alignment="center"):
                _draw_key(engine, someone, key)
        if not keys:
            st.caption("You have no API keys.")
        _draw_create(len(keys))
    with st.expander("Example request", icon=":material/terminal:", key="api_example"):
        page = st.context.url or "http://localhost:8501/account"
        server = page.partition("?")[0].rstrip("/").rpartition("/")[0]
        st.code(_EXAMPLE.format(url=server, v1=V1), language="bash", wrap_lines=True)


def _draw_key(engine: Engine, someone: Person, key: ApiKey) -> None:
    expired = key.expires_at is not None and key.expires_at <= datetime.now(UTC)
    used = f"last used {ago_text(key.used_at)}" if key.used_at else "never used"
    valid = f"valid until {day_text(key.expires_at)}" if key.expires_at else "valid until revoked"
    badge, effect = "", " Programs that use it will be rejected."
    if expired:
        badge, effect = " :red-badge[expired]", ""
        valid = f"expired {day_text(key.expires_at)}"
    st.markdown(
        f"{safe_inline(key.name)}{badge}  \n"
        f":small[:gray[created {day_text(key.created_at)}, {used}, {valid}]]",
        width="stretch",
    )
    confirmed_action(
        "Revoke",
        "key_off",
        f"revoke_{key.id}",
        f"Revoke **{safe_inline(key.name)}**?{effect} This cannot be undone.",
        *(change, engine.accounts.keys.revoke, someone.owner, key.id),
        of=key.name,
        answer="Revoke key",
    )


def _draw_create(count: int) -> None:
    full = count >= MAX_KEYS
    popover_key = f"api_key_maker_{count}"  # a new key closes the popover after creating one
    with (
        st.popover("Create API key", icon=":material/add:", disabled=full, key=popover_key),
        st.form("api_key_form", border=False),
    ):
        st.text_input(
            "Name", key=_NAME, placeholder="Name of the program", max_chars=MAX_NAME_LENGTH
        )
        st.selectbox("Expires after", list(_LIFETIME_DAYS), index=1, key=_LIFETIME)
        st.form_submit_button("Create key", type="primary", key="make_api_key", on_click=_create)
    if full:
        st.caption(f"You have the maximum of {MAX_KEYS} keys. Revoke one to create another.")


def _create() -> None:
    """Callback: create a key with the values of the form."""
    someone, state = person(), st.session_state
    if someone.account is None:
        return
    with errors_told():
        key = shared_engine().accounts.keys.make(
            someone.owner, state[_NAME] or "", days=_LIFETIME_DAYS[state[_LIFETIME]]
        )
        state[_NEW_KEY], state[_NAME] = key, ""
