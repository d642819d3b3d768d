"""Actions on a comparison (regenerate, export, link) and the history of this session."""

from __future__ import annotations

from urllib.parse import urlencode

import streamlit as st

from core.compare.export import to_csv, to_html, to_json, to_markdown
from core.compare.setup import LETTERS
from core.ui.compare.state import PARAMETER, CompareState, Entry, MatchView
from core.ui.instruct.conversation import model_title
from core.ui.widgets.actions import action, draw_download
from core.ui.widgets.safe_text import safe_inline

_SHORT = 120
"""Most characters of an instruction in a heading."""
_FORMATS = {"md": to_markdown, "json": to_json, "html": to_html}
_LIST_FORMATS = {
    "md": to_markdown,
    "csv": to_csv,
    "json": lambda *reports: to_json(*reports, as_list=True),
    "html": to_html,
}


def draw_actions(view: MatchView, state: CompareState) -> None:
    """Draw the buttons for the whole comparison."""
    count = len(view.match.setup.sides)
    with st.container(horizontal=True, gap="small"):
        action(
            "Regenerate both" if count == 2 else "Regenerate all",
            "refresh",
            "again_all",
            *(state.regenerate, view),
            kind="secondary",
            disabled=state.running,
            help="Run the same request again with a new seed.",
        )
        with st.popover("Export", icon=":material/download:", disabled=view.hidden):
            for ending, export in _FORMATS.items():
                draw_download(
                    f"paddock-comparison.{ending}",
                    lambda export=export: export(view.report),
                    f"export_{ending}",
                )


def draw_list_export(entry: Entry) -> None:
    """Draw the download buttons of a whole list."""
    with st.popover("Export the list", icon=":material/download:", disabled=entry.hidden):
        for ending, export in _LIST_FORMATS.items():
            draw_download(
                f"paddock-list.{ending}",
                lambda export=export: export(*(view.report for view in entry.views)),
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
        key = entry.run.id
        with st.container(border=True, key=f"earlier_{key}"):
            st.markdown(_heading(entry))
            with st.container(horizontal=True, vertical_alignment="center"):
                st.caption(_line(entry), width="stretch")
                action("Show", "open_in_full", f"show_{key}", state.show, entry, of=told)
                action(
                    "Delete",
                    "delete",
                    f"forget_{key}",
                    *(state.delete, entry),
                    of=told,
                    help="Delete the comparison with its answers and votes, here and from the "
                    "database.",
                )


def _heading(entry: Entry) -> str:
    if entry.is_list:
        return f":material/checklist: A list of {len(entry.run.setups)} instructions"
    instruction = " ".join(entry.setup.request.instruction.split())
    short = instruction if len(instruction) <= _SHORT else f"{instruction[:_SHORT]} …"
    return safe_inline(short)


def _line(entry: Entry) -> str:
    sides = entry.setup.sides
    parts = [f"{entry.run.asked_at:%H:%M:%S} UTC"]
    if entry.hidden:
        parts.append(f"{len(sides)} models, names hidden")
    else:
        parts += [
            safe_inline(f"{letter} {model_title(spec)} {spec.variant}")
            for letter, spec in zip(LETTERS, sides, strict=False)
        ]
    if entry.run.running:
        parts.append("running")
    if not entry.is_list and (judgement := entry.views[0].judgement) is not None:
        parts.append(judgement.sentence(len(sides)))
    return " · ".join(parts)
