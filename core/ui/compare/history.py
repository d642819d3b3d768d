"""Actions on a comparison (regenerate, export, link) and the history of this session."""

from __future__ import annotations

from urllib.parse import urlencode

import streamlit as st

from core.compare.export import (
    list_to_csv,
    list_to_html,
    list_to_json,
    list_to_markdown,
    to_html,
    to_json,
    to_markdown,
)
from core.compare.setup import LETTERS
from core.store import ModelStore
from core.ui.compare.result import report_of
from core.ui.compare.state import PARAMETER, CompareState, Entry, MatchView, SeriesView
from core.ui.instruct.conversation import model_title
from core.ui.widgets.actions import draw_download
from core.ui.widgets.safe_text import safe_inline, unseen

_SHORT = 120
"""Most characters of an instruction in a heading."""
_FORMATS = {"md": to_markdown, "json": to_json, "html": to_html}
_LIST_FORMATS = {
    "md": list_to_markdown,
    "csv": list_to_csv,
    "json": list_to_json,
    "html": list_to_html,
}


def draw_actions(view: MatchView, state: CompareState, store: ModelStore) -> None:
    """Draw the buttons for the whole comparison."""
    count = len(view.match.setup.sides)
    with st.container(horizontal=True, gap="small"):
        st.button(
            "Regenerate both" if count == 2 else "Regenerate all",
            icon=":material/refresh:",
            key="again_all",
            disabled=state.running,
            on_click=state.regenerate,
            args=(view,),
            help="Run the same request again with a new seed.",
        )
        with st.popover("Export", icon=":material/download:", disabled=view.hidden):
            for ending, export in _FORMATS.items():
                draw_download(
                    f"paddock-comparison.{ending}",
                    lambda export=export: export(report_of(view, store)),
                    f"export_{ending}",
                )


def draw_list_export(entry: SeriesView, store: ModelStore) -> None:
    """Draw the download buttons of a whole list."""
    with st.popover("Export the list", icon=":material/download:", disabled=entry.hidden):
        for ending, export in _LIST_FORMATS.items():
            draw_download(
                f"paddock-list.{ending}",
                lambda export=export: export([report_of(view, store) for view in entry.matches]),
                f"export_list_{ending}",
            )


def draw_link(*, whole: bool) -> None:
    """Draw the link that reproduces the settings; it is also in the address bar.

    Args:
        whole: whether the link includes the instruction or the list.
    """
    with st.popover(
        "Link",
        icon=":material/link:",
        type="tertiary",
        key="icon_link",
        help="Link with these models and settings",
    ):
        st.caption(
            "Opens this page with the same models, settings and instruction."
            if whole
            else "Opens this page with the same models and settings. The instructions are not "
            "included, because they are too long for a link or come from a file."
        )
        base = (st.context.url or "").partition("?")[0]
        settings = {
            key: text for key, text in st.query_params.to_dict().items() if key != PARAMETER
        }
        query = urlencode(settings)
        st.code(f"{base}?{query}" if query else base, language=None, wrap_lines=True)


def draw_history(state: CompareState) -> None:
    """Draw the earlier comparisons of this session, the newest first."""
    earlier = [entry for entry in state.entries if entry is not state.current]
    if not earlier:
        return
    st.subheader("Earlier in this session", anchor=False)
    for entry in earlier:
        # Keys by entry, not by position: a double click on Delete must not reach the next entry.
        names = " and ".join(map(model_title, entry.setup.sides))
        told = "with hidden names" if entry.hidden else names
        entry_id = entry.series.id if isinstance(entry, SeriesView) else entry.match.id
        with st.container(border=True, key=f"earlier_{entry_id}"):
            st.markdown(_heading(entry))
            with st.container(horizontal=True, vertical_alignment="center"):
                st.caption(_line(entry), width="stretch")
                st.button(
                    f"Show{unseen(told)}",
                    icon=":material/open_in_full:",
                    key=f"show_{entry_id}",
                    type="tertiary",
                    on_click=state.show,
                    args=(entry,),
                )
                st.button(
                    f"Delete{unseen(told)}",
                    icon=":material/delete:",
                    key=f"forget_{entry_id}",
                    type="tertiary",
                    on_click=state.delete,
                    args=(entry,),
                    help="Delete the comparison with its answers and votes, here and from the "
                    "database.",
                )


def _heading(entry: Entry) -> str:
    if isinstance(entry, SeriesView):
        count = len(entry.series.setups)
        return f":material/checklist: A list of {count} instructions"
    instruction = " ".join(entry.match.setup.request.instruction.split())
    short = instruction if len(instruction) <= _SHORT else f"{instruction[:_SHORT]} …"
    return safe_inline(short)


def _line(entry: Entry) -> str:
    match = entry.series if isinstance(entry, SeriesView) else entry.match
    sides = entry.setup.sides
    parts = [f"{match.asked_at:%H:%M:%S} UTC"]
    if entry.hidden:
        parts.append(f"{len(sides)} models, names hidden")
    else:
        parts += [
            safe_inline(f"{letter} {model_title(spec)} {spec.variant}")
            for letter, spec in zip(LETTERS, sides, strict=False)
        ]
    if entry.running:
        parts.append("running")
    if isinstance(entry, MatchView) and entry.judgement is not None:
        parts.append(entry.judgement.sentence(len(sides)))
    return " · ".join(parts)
