"""The Account page's API keys: with one, a program asks in the person's name."""

from __future__ import annotations

from datetime import UTC, datetime

import streamlit as st

from core.accounts import Accounts
from core.accounts.keys import LONGEST_NAME, MOST_KEYS
from core.engine import Engine
from core.errors import PaddockError
from core.records import ApiKey
from core.ui.account_profile import acting, ago_text, day_text, draw_refusal
from core.ui.person import Person, person
from core.ui.safe_text import safe_markdown
from core.web.guard import V1

_NEW_KEY = "new_api_key"
_NAME, _LIFE = "api_key_name", "api_key_life"
_LIVES: dict[str, int | None] = {
    "30 days": 30,
    "90 days": 90,
    "a year": 365,
    "until revoked": None,
}

_EXAMPLE = """\
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
        st.error(safe_markdown(str(error)), icon=":material/error:")
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
        _draw_maker(full=len(keys) >= MOST_KEYS)
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
    badge = " :red-badge[expired]" if expired else ""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(
            f"{safe_markdown(key.name)}{badge}  \n"
            f":small[:gray[made {day_text(key.created_at)}, {used}, holds {life}]]",
            width="stretch",
        )
        st.button(
            "Revoke",
            icon=":material/key_off:",
            type="tertiary",
            key=f"revoke_{key.id}",
            on_click=acting,
            args=(lambda accounts, id=key.id: accounts.keys.revoke(person().owner, id),),
        )


def _draw_maker(*, full: bool) -> None:
    with st.popover("Make a key", icon=":material/add:", disabled=full):
        st.text_input(
            "Name", key=_NAME, placeholder="Such as the program's", max_chars=LONGEST_NAME
        )
        st.selectbox("It holds", list(_LIVES), index=1, key=_LIFE)
        st.button("Make it", type="primary", key="make_api_key", on_click=_make)


def _make() -> None:
    """A callback."""
    asker = person()
    name, days = st.session_state[_NAME] or "", _LIVES[st.session_state[_LIFE]]

    def make(accounts: Accounts) -> None:
        st.session_state[_NEW_KEY] = accounts.keys.make(asker.owner, name, days=days).secret
        st.session_state[_NAME] = ""

    if asker.account is not None:
        acting(make)


def _server() -> str:
    """The address of this server, as the browser has it."""
    url = st.context.url or "http://localhost:8501/account"
    return url.partition("?")[0].rstrip("/").rpartition("/")[0]
