"""The Account page's API keys: with one, a program asks in the person's name."""

from __future__ import annotations

from datetime import UTC, datetime

import streamlit as st

from core.auth.keys import MAX_KEYS, MAX_NAME_LENGTH
from core.db import ApiKey
from core.engine import Engine
from core.errors import PaddockError
from core.server.paths import V1
from core.ui.account.profile import acting, ago_text, day_text, draw_refusal
from core.ui.widgets.person import Person, person
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.safe_text import safe_inline

_NEW_KEY = "new_api_key"
_REFUSED = "api_key_refused"
_NAME, _LIFE = "api_key_name", "api_key_life"
_LIVES: dict[str, int | None] = {
    "30 days": 30,
    "90 days": 90,
    "a year": 365,
    "until revoked": None,
}

_EXAMPLE = """\
export PADDOCK_KEY=pdk_…
curl {url}{v1}/chat/completions \\
  -H "Authorization: Bearer $PADDOCK_KEY" -H "Content-Type: application/json" \\
  -d '{{"model": "paddock-neox", "messages": [{{"role": "user",
       "content": "Name three advantages of being a cat."}}]}}'"""


def draw_keys(engine: Engine, someone: Person) -> None:
    """The person's keys, a new one, and how it is used."""
    draw_refusal()
    try:
        keys = engine.accounts.keys.listing(someone.owner)
    except PaddockError as error:
        st.error(safe_inline(str(error)), icon=":material/error:")
        return
    st.subheader("API keys", anchor=False)
    st.caption(
        "With a key your programs ask this Paddock as they would ask OpenAI, in your name. It "
        "opens no page, and holds on when you change your password."
    )
    with st.container(border=True, key="api_keys"):
        _draw_new()
        for key in keys:
            _draw_key(key)
        if not keys:
            st.caption("You have no key yet.")
        _draw_maker(len(keys))
    with st.expander("How a program asks", icon=":material/terminal:", key="api_example"):
        st.code(_EXAMPLE.format(url=_server(), v1=V1), language="bash", wrap_lines=True)


def _draw_new() -> None:
    """The key that was made just now: once, since it is stored nowhere."""
    if secret := st.session_state.pop(_NEW_KEY, None):
        st.success(
            "Here is your key. Copy it now: it is not kept, and cannot be shown again.",
            icon=":material/key:",
        )
        st.code(secret, language=None, wrap_lines=True)


def _draw_key(key: ApiKey) -> None:
    now = datetime.now(UTC)
    expired = key.expires_at is not None and key.expires_at <= now
    used = f"last used {ago_text(key.used_at)}" if key.used_at else "never used"
    life = f"until {day_text(key.expires_at)}" if key.expires_at else "until revoked"
    badge, holds = (" :red-badge[expired]", "held") if expired else ("", "holds")
    with st.container(horizontal=True, wrap=False, vertical_alignment="center"):
        st.markdown(
            f"{safe_inline(key.name)}{badge}  \n"
            f":small[:gray[made {day_text(key.created_at)}, {used}, {holds} {life}]]",
            width="stretch",
        )
        _draw_revoke(key, expired=expired)


def _draw_revoke(key: ApiKey, *, expired: bool) -> None:
    with st.popover(
        "Revoke", icon=":material/key_off:", type="tertiary", key=f"ask_revoke_{key.id}"
    ):
        now = "" if expired else " What asks with it is refused from then on."
        st.markdown(f"Revoke **{safe_inline(key.name)}**?{now} This cannot be undone.")
        st.button(
            "Revoke it",
            icon=":material/key_off:",
            type="primary",
            key=f"revoke_{key.id}",
            on_click=acting,
            args=(lambda accounts, id=key.id: accounts.keys.revoke(person().owner, id),),
        )


def _draw_maker(count: int) -> None:
    full = count >= MAX_KEYS
    new = f"api_key_maker_{count}"  # with another number of keys it is another one, and closed
    with (
        st.popover("Make a key", icon=":material/add:", disabled=full, key=new),
        st.form("api_key_form", border=False),
    ):
        st.text_input(
            "Name", key=_NAME, placeholder="Such as the program's", max_chars=MAX_NAME_LENGTH
        )
        st.selectbox("How long it holds", list(_LIVES), index=1, key=_LIFE)
        st.form_submit_button("Make it", type="primary", key="make_api_key", on_click=_make)
        if refused := st.session_state.pop(_REFUSED, None):
            st.error(safe_inline(refused), icon=":material/error:")
    if full:
        st.caption(f"These are {MAX_KEYS} keys, and no more can be had: revoke one first.")


def _make() -> None:
    """A callback."""
    asker, state = person(), st.session_state
    if asker.account is None:
        return
    try:
        made = shared_engine().accounts.keys.make(
            asker.owner, state[_NAME] or "", days=_LIVES[state[_LIFE]]
        )
    except PaddockError as error:
        state[_REFUSED] = str(error)
    else:
        state[_NEW_KEY], state[_NAME] = made.secret, ""


def _server() -> str:
    """The address of this server, as the browser has it."""
    url = st.context.url or "http://localhost:8501/account"
    return url.partition("?")[0].rstrip("/").rpartition("/")[0]
