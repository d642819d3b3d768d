"""What else can be done with a match: run it again, keep it, share it, find it again."""

from __future__ import annotations

from urllib.parse import urlencode

import streamlit as st

from core.compare.export import to_html, to_json, to_markdown
from core.compare.setup import LETTERS
from core.store import ModelStore
from core.ui.compare.result import report_of
from core.ui.compare.state import Comparison, Entry, Shown, ShownList
from core.ui.instruct.history import model_title
from core.ui.widgets.safe_text import safe_inline

_SHORT = 120
"""Characters of an instruction in a heading."""
_FORMATS = (
    ("Markdown", "md", "text/markdown", "markdown", to_markdown),
    ("JSON", "json", "application/json", "data_object", to_json),
    ("Web page (HTML)", "html", "text/html", "web", to_html),
)


def draw_actions(shown: Shown, state: Comparison, store: ModelStore) -> None:
    """Buttons for the match as a whole."""
    count = len(shown.match.setup.sides)
    with st.container(horizontal=True, gap="small"):
        st.button(
            "Regenerate both" if count == 2 else "Regenerate all",
            icon=":material/refresh:",
            key="again_all",
            disabled=state.running,
            on_click=state.regenerate,
            args=(shown,),
            help="Ask the same again with a fresh seed.",
        )
        with st.popover("Export", icon=":material/download:", disabled=shown.hidden):
            for label, ending, mime, icon, export in _FORMATS:
                st.download_button(
                    label,
                    lambda export=export: export(report_of(shown, store)),
                    file_name=f"paddock-comparison.{ending}",
                    mime=mime,
                    icon=f":material/{icon}:",
                    key=f"export_{ending}",
                    on_click="ignore",
                )


def draw_link(*, whole: bool) -> None:
    """The link that reproduces the set-up; it also stands in the address bar.

    Args:
        whole: whether it holds what is asked, too.
    """
    with st.popover("Link", icon=":material/link:", type="tertiary"):
        st.caption(
            "Opens this page with the same models, settings and instruction."
            if whole
            else "Opens this page with the same models and settings. What is asked is too long for "
            "a link, or comes from a file."
        )
        base = (st.context.url or "").partition("?")[0]
        query = urlencode(st.query_params.to_dict())
        st.code(f"{base}?{query}" if query else base, language=None, wrap_lines=True)


def draw_history(state: Comparison) -> None:
    """What this session compared before, the newest first."""
    earlier = [entry for entry in state.entries if entry is not state.current]
    if not earlier:
        return
    st.subheader("Earlier in this session", anchor=False)
    for entry in earlier:
        # By whose buttons they are: a second quick click must not reach what took its place.
        place = entry.series.id if isinstance(entry, ShownList) else entry.match.id
        with st.container(border=True, key=f"earlier_{place}"):
            st.markdown(_heading(entry))
            with st.container(horizontal=True, vertical_alignment="center"):
                st.caption(_line(entry), width="stretch")
                st.button(
                    "Show",
                    icon=":material/open_in_full:",
                    key=f"show_{place}",
                    type="tertiary",
                    on_click=state.show,
                    args=(entry,),
                )
                st.button(
                    "Delete",
                    icon=":material/delete:",
                    key=f"forget_{place}",
                    type="tertiary",
                    on_click=state.delete,
                    args=(entry,),
                    help="Forget it, its answers and votes in the records too.",
                )


def _heading(entry: Entry) -> str:
    if isinstance(entry, ShownList):
        count = len(entry.series.setups)
        return f":material/checklist: A list of {count} instructions"
    instruction = " ".join(entry.match.setup.request.instruction.split())
    short = instruction if len(instruction) <= _SHORT else f"{instruction[:_SHORT]} …"
    return safe_inline(short)


def _line(entry: Entry) -> str:
    match = entry.series if isinstance(entry, ShownList) else entry.match
    sides = entry.series.sides if isinstance(entry, ShownList) else entry.match.setup.sides
    parts = [f"{match.asked_at:%H:%M:%S} UTC"]
    if entry.hidden:
        parts.append(f"{len(sides)} models, names hidden")
    else:
        parts += [
            safe_inline(f"{letter} {model_title(spec)} {spec.variant}")
            for letter, spec in zip(LETTERS, sides, strict=False)
        ]
    if entry.running:
        parts.append("answering")
    if isinstance(entry, Shown) and entry.judgement is not None:
        parts.append(entry.judgement.sentence(len(sides)))
    return " · ".join(parts)
