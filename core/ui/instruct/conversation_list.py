"""List of stored conversations in the sidebar, with search, rename, export and delete."""

from __future__ import annotations

import streamlit as st

from core.errors import RecordsError
from core.ui.instruct.answers import draw_downloads
from core.ui.instruct.conversation import OPEN, Conversation
from core.ui.widgets.actions import action
from core.ui.widgets.person import person
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.safe_text import safe_inline


def draw_conversations(state: Conversation) -> None:
    """Draw the latest conversations, or those that match the search; a click opens one."""
    opened = st.session_state[OPEN]
    action(
        "New conversation",
        "add",
        "new_conversation",
        state.new,
        kind="secondary",
        disabled=state.empty,
        width="stretch",
    )
    menu = st.container()
    with st.expander("Conversations", icon=":material/forum:", expanded=True, key="conversations"):
        search = st.text_input(
            "Search",
            key="conversation_search",
            placeholder="Search",
            icon=":material/search:",
            label_visibility="collapsed",
        )
        holder = person().holder
        try:
            store = shared_engine().conversations.store
            found = store.list(holder, search or "", limit=state.listed + 1)
            title = store.title(opened, holder)
        except RecordsError:
            return  # the notice of the conversation says why
        for each in found[: state.listed]:
            st.button(
                safe_inline(each.title),
                key=f"open_{each.id}",
                type="secondary" if each.id == opened else "tertiary",
                width="stretch",
                on_click=state.open,
                args=(each.id,),
            )
        if not found:
            st.caption("Nothing was found." if search else "Your conversations are listed here.")
        elif len(found) > state.listed:
            action("Show more", "expand_more", "list_more", state.list_more)
    if title is not None:
        with menu:
            _draw_menu(state, opened, title)


def _draw_menu(state: Conversation, conversation: str, title: str) -> None:
    """Draw what can be done with the open conversation."""
    with st.popover("This conversation", icon=":material/more_horiz:", width="stretch"):
        box = f"title_{conversation}"
        st.text_input(
            "Title", title, key=box, on_change=lambda: state.rename(st.session_state[box] or "")
        )
        draw_downloads(state.exchanges, "conversation")
        key = "delete_conversation"
        action("Delete conversation", "delete", key, state.delete_conversation, kind="secondary")
