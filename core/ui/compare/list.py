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
from core.ui.compare.history import draw_list_export
from core.ui.compare.state import CompareState, MatchView, SeriesView
from core.ui.compare.votes import NoWinner
from core.ui.instruct.conversation import model_title
from core.ui.widgets.answer_text import draw_plain
from core.ui.widgets.link import link_texts, texts_linked
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.safe_text import safe_inline
from core.units import counted, milliseconds_text, rate_text

LIST = "list"
"""Key of the text area and name of its URL parameter."""
UNATTENDED = "list_unattended"
"""Key of the checkbox."""
UNTIMED_HINT = (
    ":material/timer: Each instruction runs once. The fastest side is shown only where all answers "
    "took at least one second. To time shorter answers, run a single instruction in *Fair* mode."
)
BUSY_HELP = (
    "The timings are not comparable, because another generation was running at the same time or "
    "the host had moved the processor cores apart."
)
SHOWN_ROWS = 5
"""Rows of the results table without scrolling, so that the answers below it are in the window."""
_FILE = "list_file"
"""Name and content of the uploaded file, kept in the session state across page switches."""


def draw_list_input() -> tuple[Instruction, ...]:
    """Draw the text area and return the instructions; empty if invalid."""
    link_texts(LIST)
    file: tuple[str, bytes] | None = st.session_state.get(_FILE)
    typed = st.text_area(
        "Instructions, one per line",
        key=LIST,
        persist_state="session",
        height=96,
        label_visibility="collapsed",
        disabled=file is not None,
        placeholder="One instruction per line:\nSuggest three names for a sailing boat.\n"
        "How does a CPU differ from a GPU?",
        help=f"Up to {MAX_INSTRUCTIONS}. A line {SEPARATOR} between them lets each have several "
        "lines. A table (CSV) or JSON lines may give each a context passage too.",
    )
    try:
        if file is not None:
            return parse_instructions(decode_upload(file[1], file[0]), file[0])
        return parse_instructions(typed) if (typed or "").strip() else ()
    except PaddockError as error:
        st.warning(safe_inline(str(error)), icon=":material/error:")
        return ()


def draw_list_options(count: int) -> None:
    """Draw the upload and the number of instructions in a popover."""
    file: tuple[str, bytes] | None = st.session_state.get(_FILE)
    label = counted(count, "instruction") if count else "Upload"
    with st.popover(
        label, icon=":material/checklist:", type="tertiary", key="list_box", width="content"
    ):
        st.file_uploader(
            "A .txt, .csv or .jsonl file",
            type=["txt", "csv", "tsv", "jsonl", "ndjson", "md"],
            key="list_upload",
            on_change=_keep_upload,
        )
        if file is not None:
            st.button(
                "Use the typed list instead",
                icon=":material/close:",
                type="tertiary",
                on_click=_forget_upload,
            )
        st.checkbox(
            "Go on after this page is closed",
            key=UNATTENDED,
            persist_state="session",
            help="Otherwise the run ends when the page has been closed for a minute.",
        )


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
    if entry.series.abandoned:
        stopped = " The run ended because the page had been closed for a minute."
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{done} of {count} instructions completed.**{stopped}", width="content")
        st.markdown(tally(entry), width="stretch")
        if entry.hidden:
            st.button(
                "Reveal now",
                icon=":material/visibility:",
                type="tertiary",
                key="reveal_list",
                on_click=state.reveal,
                args=(entry,),
                help="Otherwise names and figures are shown after you have voted on every "
                "instruction with complete answers.",
            )
        draw_list_export(entry, shared_engine().store)
    if not entry.hidden:
        st.table(summary_table(entry), border="horizontal", hide_index=True)
        if not all(row.timed for row in rows if row.match is not None):
            st.caption(UNTIMED_HINT)
    picked = st.dataframe(
        [list_row(row, entry) for row in rows],
        hide_index=True,
        height=38 + 35 * min(len(rows), SHOWN_ROWS),
        key=f"list_{entry.series.id}_{entry.selected}",  # another key: the default counts again
        on_select="rerun",
        selection_mode="single-row",
        selection_default={"selection": {"rows": [entry.selected]}},
        column_config={
            "#": st.column_config.NumberColumn(width=40),
            "Instruction": st.column_config.TextColumn(width="medium"),
            "State": st.column_config.TextColumn(width="small"),
            "Measured while busy": st.column_config.CheckboxColumn(help=BUSY_HELP),
        },
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


def tally(entry: SeriesView) -> str:
    """Return how often each side was chosen: ``A 3 · B 2 · tie 0``; empty without a vote."""
    best = [view.judgement.best for view in entry.matches if view.judgement is not None]
    if not best:
        return ""
    parts = [f"{LETTERS[side]} {best.count(side)}" for side in range(len(entry.series.sides))]
    parts.append(f"tie {best.count(NoWinner.TIE)}")
    if NoWinner.BOTH_BAD in best:
        parts.append(f"none good {best.count(NoWinner.BOTH_BAD)}")
    return "Votes: " + " · ".join(parts)


def _draw_running(entry: SeriesView, state: CompareState) -> None:
    match = entry.series.current
    st.fragment(_draw_progress, run_every=refresh_interval_s())(entry, match)
    if match is not None:
        with st.container(key="current"):
            draw_plain(match.setup.request.instruction, bold=True)
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
    if (found := row.divergence) is not None:
        same = "never" if found.identical else "not before the cut"
        cells["Diverge at"] = same if found.index is None else f"token {found.index + 1:,}"
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
