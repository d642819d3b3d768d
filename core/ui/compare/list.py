"""Lists of instructions on the Compare page: input, progress and results."""

from __future__ import annotations

from typing import Any

import streamlit as st

from core.compare.instructions import (
    MAX_INSTRUCTIONS,
    SEPARATOR,
    Instruction,
    decode_upload,
    parse_instructions,
)
from core.compare.match import Match, SideState
from core.compare.series import SeriesRow, SideSummary
from core.compare.setup import LETTERS
from core.errors import PaddockError
from core.ui.compare.columns import draw_answers, refresh_interval_s
from core.ui.compare.state import CompareState, MatchView, SeriesView
from core.ui.instruct.history import model_title
from core.ui.widgets.link import link_texts, texts_linked
from core.ui.widgets.safe_text import emphasised, safe_inline
from core.units import milliseconds_text, rate_text

LIST = "list"
"""Key of the text area and name of its URL parameter."""
UNTIMED_HINT = (
    ":material/timer: Each instruction runs once. The fastest side is shown only where all answers "
    "took at least one second. To time shorter answers, run a single instruction in *Fair* mode."
)
BUSY_HELP = (
    "The timings are not comparable, because another generation was running at the same time or "
    "the host had moved the processor cores apart."
)
_FILE = "list_file"
"""Name and content of the uploaded file, kept in the session state across page switches."""


def draw_list_input() -> tuple[Instruction, ...]:
    """Draw the text area and the upload and return the instructions; empty if invalid."""
    link_texts(LIST)
    file: tuple[str, bytes] | None = st.session_state.get(_FILE)
    typed = st.text_area(
        "Instructions, one per line",
        key=LIST,
        persist_state="session",
        height=160,
        disabled=file is not None,
        placeholder="Suggest three names for a sailing boat.\nHow does a CPU differ from a GPU?",
        help=f"Up to {MAX_INSTRUCTIONS}. A line {SEPARATOR} between them lets each have several "
        "lines. A table (CSV) or JSON lines may give each a context passage too.",
    )
    with st.expander("Upload a list instead", icon=":material/upload_file:"):
        st.file_uploader(
            "A .txt, .csv or .jsonl file",
            type=["txt", "csv", "tsv", "jsonl", "ndjson", "md"],
            key="list_upload",
            on_change=_keep_upload,
        )
    try:
        if file is not None:
            found = parse_instructions(decode_upload(file[1], file[0]), file[0])
        elif (typed or "").strip():
            found = parse_instructions(typed)
        else:
            return ()
    except PaddockError as error:
        st.warning(safe_inline(str(error)), icon=":material/error:")
        found = ()
    with st.container(horizontal=True, vertical_alignment="center"):
        if found:
            noun = "instruction" if len(found) == 1 else "instructions"
            source = f" from {safe_inline(file[0])}" if file is not None else ""
            st.caption(f":material/checklist: {len(found)} {noun}{source}.", width="content")
        if file is not None:
            st.button(
                "Use the typed list instead",
                icon=":material/close:",
                type="tertiary",
                on_click=_forget_upload,
            )
    return found


def list_linked() -> bool:
    """Return whether the URL contains the whole list."""
    return _FILE not in st.session_state and texts_linked(LIST)


def _keep_upload() -> None:
    upload = st.session_state.get("list_upload")
    if upload is not None:
        st.session_state[_FILE] = (upload.name, upload.getvalue())


def _forget_upload() -> None:
    st.session_state.pop(_FILE, None)


# Results


def draw_list(entry: SeriesView, state: CompareState) -> MatchView | None:
    """Draw a running or finished list.

    Returns:
        The comparison that the user selected in a finished list, if any.
    """
    if entry.running:
        _draw_running(entry, state)
        return None
    rows = entry.series.rows()
    done, count = entry.series.progress
    stopped = " The run was stopped." if entry.series.stopped else ""
    st.markdown(f"**{done} of {count} instructions completed.**{stopped}")
    if not entry.hidden:
        st.table(summary_table(entry), border="horizontal", hide_index=True)
        if not all(row.timed for row in rows if row.match is not None):
            st.caption(UNTIMED_HINT)
    picked = st.dataframe(
        [list_row(row, entry) for row in rows],
        hide_index=True,
        key=f"list_{entry.series.id}",
        on_select="rerun",
        selection_mode="single-row",
        column_config={
            "#": st.column_config.NumberColumn(width=40),
            "Instruction": st.column_config.TextColumn(width="medium"),
            "State": st.column_config.TextColumn(width="small"),
            "Measured while busy": st.column_config.CheckboxColumn(help=BUSY_HELP),
        },
    )
    if entry.hidden:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(
                ":material/visibility_off: Names and figures are shown after you have voted on "
                "every instruction with complete answers.",
                width="stretch",
            )
            st.button(
                "Reveal now",
                type="tertiary",
                key="reveal_list",
                on_click=state.reveal,
                args=(entry,),
            )
    chosen = picked["selection"]["rows"]
    if not chosen:
        st.caption("Select a row to read its answers and vote on them.")
        return None
    match = rows[chosen[0]].match
    if match is None:
        st.caption("This instruction was not run.")
        return None
    return entry.view(match)


def _draw_running(entry: SeriesView, state: CompareState) -> None:
    match = entry.series.current
    st.fragment(_draw_progress, run_every=refresh_interval_s())(entry, match)
    if match is not None:
        with st.container(key="current"):
            st.markdown(emphasised(match.setup.request.instruction))
            draw_answers(entry.view(match), state, actions=False)


def _draw_progress(entry: SeriesView, drawn: Match | None) -> None:
    if not entry.running or entry.series.current is not drawn:
        st.rerun()
    done, count = entry.series.progress
    st.progress(done / count, text=f"Instruction {min(done + 1, count)} of {count}")


def list_row(row: SeriesRow, entry: SeriesView) -> dict[str, Any]:
    """Return one row of the results table; without figures while they are hidden."""
    cells: dict[str, Any] = {"#": row.number, "Instruction": row.instruction}
    judgement = entry.view(row.match).judgement if row.match is not None else None
    cells["Your vote"] = judgement.sentence(len(row.states)) if judgement is not None else ""
    cells["State"] = _state(row)
    if entry.hidden:
        return cells
    figures = list(zip(LETTERS, row.figures, strict=False))
    cells |= {
        f"{letter} tokens/s": _rounded(each and each.decode_tokens_per_s)
        for letter, each in figures
    }
    cells["Fastest"] = LETTERS[row.fastest] if row.fastest is not None else ""
    found = row.divergence
    cells["Diverge at"] = (
        "" if found is None or found.index is None else f"{found.unit} {found.index + 1:,}"
    )
    cells["Measured while busy"] = row.contended
    cells |= {f"{letter} TTFT ms": _rounded(each and each.ttft_ms) for letter, each in figures}
    cells |= {f"{letter} tokens": each.new_tokens if each else None for letter, each in figures}
    return cells


def summary_table(entry: SeriesView) -> list[dict[str, str]]:
    """Return one row per side with the figures over the whole list."""
    return [
        _summary_row(side, summary, entry) for side, summary in enumerate(entry.series.summary())
    ]


def _summary_row(side: int, summary: SideSummary, entry: SeriesView) -> dict[str, str]:
    spec = entry.series.sides[side]
    mark = " :material/warning:" if summary.contended else ""
    ttft = milliseconds_text(summary.ttft_ms) if summary.ttft_ms is not None else "—"
    # A table cell is Markdown, and the name of a model is untrusted text.
    title = safe_inline(f"{model_title(spec)} · {spec.variant}")
    return {
        "Side": f"**{LETTERS[side]}** · {title}",
        "Answered": f"{summary.answered}",
        "Failed": f"{summary.failed}",
        "Median rate": rate_text(summary.decode_tokens_per_s) + mark,
        "Median TTFT": ttft + mark,
        "Tokens": f"{summary.new_tokens:,}",
        "Fastest": f"{summary.fastest} of {summary.timed}" if summary.timed else "—",
    }


def _state(row: SeriesRow) -> str:
    if SideState.FAILED in row.states:
        failed = [LETTERS[side] for side, s in enumerate(row.states) if s is SideState.FAILED]
        return f"{' and '.join(failed)} failed"
    if all(state is SideState.DONE for state in row.states):
        return "answered"
    return "not run" if row.match is None else "stopped"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
